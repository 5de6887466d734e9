"""GPT-2's sites: a model run from the middle, heads that add up, and where the residual stream ends."""

from collections.abc import Callable

import pytest
import torch

from anatomy.interventions.hooks import record
from anatomy.models import gpt2
from anatomy.models.toy import model_from_state
from anatomy.sites import Site

IDS = torch.tensor([[3, 5, 8, 2, 7], [1, 1, 4, 9, 30], [42, 6, 6, 2, 11]])


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_resuming_from_any_layer_equals_the_full_pass(layer: int, make_model: Callable) -> None:
    model = make_model().double()
    below = Site(layer - 1, "resid") if layer else Site(0, "embed")
    logits = gpt2.resume(model, record(model, IDS, [below])[below], layer)
    assert torch.allclose(logits, model(IDS).logits[:, -1], rtol=0, atol=1e-12)


def test_resuming_is_exact_with_every_attention(make_model: Callable) -> None:
    model = make_model()
    model.set_attn_implementation("eager")
    embed = Site(0, "embed")
    logits = gpt2.resume(model, record(model, IDS, [embed])[embed], 0)
    assert torch.allclose(logits, model(IDS).logits[:, -1], atol=1e-5)


@pytest.mark.parametrize("heads", [2, 4])
def test_heads_and_one_bias_add_up_to_the_attention_s_output(heads: int, make_model: Callable) -> None:
    model = make_model(heads=heads)
    for layer in range(3):
        sites = [Site(layer, "head", head) for head in range(heads)]
        seen = record(model, IDS, [*sites, Site(layer, "attn")])
        z = torch.cat([seen[site] for site in sites], dim=-1)
        total = sum(gpt2.head_output(model, layer, head, z) for head in range(heads))
        bias = model.transformer.h[layer].attn.c_proj.bias
        assert torch.allclose(total - (heads - 1) * bias, seen[Site(layer, "attn")], atol=1e-5)


def test_the_last_residual_stream_unembeds_to_the_logits(make_model: Callable) -> None:
    model = make_model()
    last = Site(2, "resid")
    assert torch.equal(gpt2.unembed(model, record(model, IDS, [last])[last]), model(IDS).logits)


def test_a_layer_adds_its_attention_and_its_mlp_to_the_stream(make_model: Callable) -> None:
    model = make_model()
    sites = [Site(0, "resid"), Site(1, "attn"), Site(1, "mlp"), Site(1, "resid")]
    seen = record(model, IDS, sites)
    assert torch.allclose(seen[sites[3]], seen[sites[0]] + seen[sites[1]] + seen[sites[2]], atol=1e-5)


def test_a_part_that_is_none_is_refused(make_model: Callable) -> None:
    with pytest.raises(Exception, match="nose"):
        gpt2.module(make_model(), 0, "nose")


def test_a_model_made_from_a_state_is_frozen_and_in_evaluation(make_config: Callable, make_state: Callable) -> None:
    config = make_config(dropout=0.5)
    model = model_from_state(make_state(config, 0), config)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert model.lm_head.weight is model.transformer.wte.weight
