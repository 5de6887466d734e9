"""Causal patching: nothing moves when nothing is brought in, and what is brought in is the other pass's."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from anatomy.interventions.hooks import next_token_logits, record
from anatomy.localize.patching import patched_logits
from anatomy.models import gpt2
from anatomy.sites import Site, heads, modules

INTO = torch.tensor([[3, 5], [1, 5], [42, 5], [20, 5]])
SOURCE = torch.tensor([[3, 9], [1, 17], [42, 1], [20, 8]])  # the same first words
EVERY_SITE = [Site(0, "embed"), *modules(3), *heads(3, 2), *(Site(layer, "resid") for layer in range(3))]


@pytest.fixture
def model(make_model: Callable) -> nn.Module:
    return make_model()


@pytest.mark.parametrize("site", EVERY_SITE, ids=str)
def test_patching_from_the_same_prompts_changes_nothing(site: Site, model: nn.Module) -> None:
    assert torch.equal(patched_logits(model, INTO, INTO, site), next_token_logits(model, INTO))


@pytest.mark.parametrize("site", [Site(0, "embed"), *(Site(layer, "resid") for layer in range(3))], ids=str)
def test_patching_the_whole_stream_gives_the_source_s_answer(site: Site, model: nn.Module) -> None:
    assert torch.equal(patched_logits(model, INTO, SOURCE, site), next_token_logits(model, SOURCE))


@pytest.mark.parametrize("site", modules(3), ids=str)
def test_patching_a_module_is_between_the_two_and_prompt_by_prompt(site: Site, model: nn.Module) -> None:
    patched = patched_logits(model, INTO, SOURCE, site)
    assert not torch.allclose(patched, next_token_logits(model, INTO), atol=1e-3)
    assert not torch.allclose(patched, next_token_logits(model, SOURCE), atol=1e-3)
    one = patched_logits(model, INTO[2:3], SOURCE[2:3], site)
    assert torch.allclose(one[0], patched[2], atol=1e-5)


def test_patching_the_last_mlp_swaps_its_summand(model: nn.Module) -> None:
    mlp, stream = Site(2, "mlp"), Site(2, "resid")
    into, source = record(model, INTO, [mlp, stream]), record(model, SOURCE, [mlp])
    expected = gpt2.unembed(model, (into[stream] - into[mlp] + source[mlp])[:, -1])
    assert torch.allclose(patched_logits(model, INTO, SOURCE, mlp), expected, atol=1e-5)
