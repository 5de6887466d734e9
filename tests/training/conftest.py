"""Stacks of tiny models, batches for them, and Hugging Face's answer to compare with."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from anatomy.models.toy import model_from_state, stacked_shape
from anatomy.training.ensemble import Ensemble


@pytest.fixture
def make_ensemble(make_config: Callable, make_state: Callable) -> Callable[..., Ensemble]:
    """A stack of members with the given weight seeds; keywords change the sizes or go to Ensemble."""

    def build(seeds: list[int], *, window: int = 22, dtype: torch.dtype = torch.float64, **options: object) -> Ensemble:
        own = {key: options.pop(key) for key in ("trainable",) if key in options}
        config = make_config(**options)
        states = [make_state(config, seed) for seed in seeds]
        return Ensemble(states, stacked_shape(config, window), dtype=dtype, **own)

    return build


@pytest.fixture
def make_batch() -> Callable[..., tuple[Tensor, Tensor]]:
    """Token ids [member, batch, position] padded on the right with token 0, and which of them are text."""

    def build(
        members: int,
        length: int,
        *,
        batch: int = 5,
        ragged: bool = False,
        seed: int = 0,
        vocabulary: int = 43,
    ):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(1, vocabulary, (members, batch, length), generator=generator)
        lengths = torch.full((members, batch), length)
        if ragged:
            lengths = torch.randint(2, length + 1, (members, batch), generator=generator)
            lengths[:, 0] = length
        valid = torch.arange(length) < lengths[..., None]
        return ids * valid, valid

    return build


@pytest.fixture
def hugging_face() -> Callable[[Ensemble, int, GPT2Config], GPT2LMHeadModel]:
    """One member as Hugging Face's model in float64, with gradients."""

    def build(ensemble: Ensemble, member: int, config: GPT2Config) -> GPT2LMHeadModel:
        return model_from_state(ensemble.state(member), config).double().requires_grad_(True)

    return build


def loss_of(model: GPT2LMHeadModel, ids: Tensor, valid: Tensor) -> Tensor:
    """Mean next-token cross-entropy over valid targets, from logits (Hugging Face's own loss is float32)."""
    logits = model(ids).logits[:, :-1]
    nll = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    weight = valid[:, 1:].flatten().to(nll)
    return (nll * weight).sum() / weight.sum()


def relative_error(a: Tensor, b: Tensor) -> float:
    """Largest difference, in units of the largest entry of b."""
    return float((a - b).detach().abs().max() / b.detach().abs().max())
