"""Validation loss, computed by ourselves.

transformers.Trainer (5.x) divides by the number of labels before the shift, which makes the loss of 15-token rows
14/15 of what it is. Here it is the mean over predicted tokens.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn


def validation_loss(
    model: nn.Module, rows: Int[Tensor, "row position"], lengths: Int[Tensor, " row"], *, batch: int = 48
) -> float:
    """Mean next-token cross-entropy in nats over all predicted tokens of the rows (padding is on the right)."""
    total, count = 0.0, 0
    with torch.no_grad():
        for ids, length in zip(rows.split(batch), lengths.split(batch), strict=True):
            ids = ids[:, : int(length.max())]
            valid = torch.arange(1, ids.shape[1], device=ids.device) < length[:, None]
            logits = model(ids[:, :-1]).logits
            nll = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
            total += float((nll * valid.flatten()).sum(dtype=torch.float64))
            count += int(valid.sum())
    return total / count
