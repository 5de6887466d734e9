"""Dropout masks of a stack of models, each member's from its own generator."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from anatomy.training.layers import padded_length

# Masks are cut from 64 random bits as four 16-bit integers, four times cheaper than one draw each.
# p = 0.1 becomes 6554/65536 = 0.100006.
_LANES, _LEVELS = 4, 1 << 16


class LayerMasks(NamedTuple):
    """The masks of one layer: on the attention probabilities, and on the outputs of the two modules."""

    attention: Float[Tensor, "all_heads position padded"]
    attn: Float[Tensor, "member token width"]
    mlp: Float[Tensor, "member token width"]


class Masks(NamedTuple):
    """What is kept in one step, already divided by 1 - p: 0 or 1/(1 - p). `embed` follows the embeddings."""

    embed: Float[Tensor, "member token width"]
    layers: list[LayerMasks]


def draw_masks(
    generators: list[torch.Generator],
    rate: float,
    *,
    batch: int,
    positions: int,
    width: int,
    heads: int,
    layers: int,
    dtype: torch.dtype,
) -> Masks:
    """The masks of one step.

    Each member draws from its own generator, so that a seed's result does not depend on the seeds beside it, as long
    as their rows have the same lengths (a batch is padded to its longest row, over all members).
    """
    padded, device = padded_length(positions), generators[0].device
    streams, scores = (1 + 2 * layers) * batch * positions * width, layers * batch * heads * positions * padded
    bits = torch.empty(len(generators), -(-(streams + scores) // _LANES), dtype=torch.int64, device=device)
    for own, generator in zip(bits, generators, strict=True):
        own.random_(-(2**63), None, generator=generator)
    keep = torch.empty(len(generators), streams + scores, dtype=dtype, device=device)
    torch.ge(bits.view(torch.int16)[:, : streams + scores], -(_LEVELS // 2) + round(rate * _LEVELS), out=keep)
    keep *= 1 / (1 - rate)
    residual, attention = keep.split([streams, scores], dim=1)
    embed, *rest = residual.view(len(generators), 1 + 2 * layers, batch * positions, width).unbind(1)
    per_layer = attention.view(len(generators), layers, batch * heads, positions, padded).unbind(1)
    return Masks(
        embed,
        [
            LayerMasks(own.reshape(-1, positions, padded), rest[layer], rest[layers + layer])
            for layer, own in enumerate(per_layer)
        ],
    )
