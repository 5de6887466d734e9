"""A key-value cache that grows in place. transformers' own copies everything it holds at each token."""

from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicLayer

AHEAD = 64  # positions that are allocated at once


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer. Whoever replaces them (`layer.keys = ...`) gives tensors of their own."""

    keys: Tensor
    values: Tensor

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values [batch, head, position, width]; return all that are held."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = append(self.keys, key_states), append(self.values, value_states)
        return self.keys, self.values


def growing_cache(config: PreTrainedConfig) -> Cache:
    """An empty cache for a model."""
    return Cache(layers=[GrowingLayer() for _ in range(config.num_hidden_layers)])


def append(
    held: Float[Tensor, "..."], more: Float[Tensor, "batch head new width"]
) -> Float[Tensor, "batch head position width"]:
    """`held` and then `more`, along the positions; in `held`'s own memory where it has room behind its last position.

    The room shows in the strides: from head to head it is as far as the positions that were allocated.
    """
    if held.numel() == 0:
        held = more[:, :, :0]
    batch, head, old, width = held.shape
    new = old + more.shape[2]
    room = held.stride(1) // width if old and held.stride()[2:] == (width, 1) else 0
    if new <= room:
        whole = held.as_strided((batch, head, room, width), held.stride())
    else:
        whole = more.new_empty(batch, head, new + AHEAD, width)
        whole[:, :, :old] = held
    whole[:, :, old:new] = more
    return whole[:, :, :new]
