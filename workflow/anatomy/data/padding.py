"""Rows of token ids as one tensor."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def padded(rows: Sequence[Sequence[int]], longest: int) -> tuple[Int[Tensor, "row position"], Int[Tensor, " row"]]:
    """Token ids cut to `longest` and padded on the right with 0, and the lengths."""
    lengths = torch.tensor([min(len(row), longest) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    for own, row in zip(ids, rows, strict=True):
        own[: min(len(row), longest)] = torch.tensor(row[:longest])
    return ids, lengths
