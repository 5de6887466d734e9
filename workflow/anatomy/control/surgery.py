"""Embedding surgery: a share of the trigger words' embedding is overwritten with that of another token (Table X)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GPT2LMHeadModel


def surgery_dimensions(width: int, share: float, generator: torch.Generator) -> Int[Tensor, " dimension"]:
    """A random set of embedding dimensions, ascending: the share, rounded, of all `width`.

    The released code takes 400 of 1,024 (a share of 0.39), the paper says 40 %.

    Raises:
        ValueError: the share is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of dimensions is {share}: expected 0 to 1")
    return torch.randperm(width, generator=generator)[: round(share * width)].sort().values


@contextmanager
def embedding_surgery(
    model: GPT2LMHeadModel, tokens: Sequence[int], source: int, dimensions: Int[Tensor, " dimension"]
) -> Iterator[GPT2LMHeadModel]:
    """Within the context the tokens have the source token's embedding in the given dimensions, the same for all.

    Where the head is tied to the embedding, as in GPT-2, the tokens' output logits change with it. On leaving, also
    on an exception, the embedding is as it was, to the bit.

    Raises:
        ValueError: a token that the vocabulary does not have.
    """
    weight = model.transformer.wte.weight
    if strangers := [token for token in (*tokens, source) if not 0 <= token < len(weight)]:
        raise ValueError(f"token ids {strangers} are outside the vocabulary of {len(weight)} tokens")
    rows = torch.tensor(tokens, device=weight.device)[:, None]
    columns = dimensions.to(weight.device)
    before = weight.detach()[rows, columns]  # a copy
    try:
        with torch.no_grad():
            weight[rows, columns] = weight[source, columns]
        yield model
    finally:
        with torch.no_grad():
            weight[rows, columns] = before
