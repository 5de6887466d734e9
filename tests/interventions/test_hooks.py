"""Edits do what they say, at the site they name, and are gone afterwards; none is silently without effect."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from anatomy.interventions.hooks import (
    SilentEditError,
    edited,
    next_token_logits,
    record,
    replace_with,
    zero,
)
from anatomy.models import gpt2
from anatomy.sites import Site, heads, modules

IDS = torch.tensor([[3, 5, 8], [1, 1, 4], [42, 6, 6], [20, 21, 22]])
OTHER = torch.tensor([[9, 2, 2], [17, 30, 0], [5, 5, 13], [1, 3, 2]])
LAYERS, HEADS = 3, 2
EVERY_SITE = [
    Site(0, "embed"),
    *modules(LAYERS),
    *heads(LAYERS, HEADS),
    *(Site(layer, "resid") for layer in range(LAYERS)),
]


def unchanged(_: Tensor, output: Tensor) -> Tensor:
    return output


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.fixture
def model(make_model: Callable) -> nn.Module:
    return make_model(layers=LAYERS, heads=HEADS)


def test_without_edits_nothing_changes(model: nn.Module) -> None:
    assert torch.equal(next_token_logits(model, IDS), model(IDS, logits_to_keep=1).logits[:, -1])
    assert torch.allclose(next_token_logits(model, IDS), model(IDS).logits[:, -1], atol=1e-5)


def test_patching_nothing_changes_nothing(model: nn.Module) -> None:
    """Every site replaced by what it is: the same run, to the bit."""
    own = record(model, IDS, EVERY_SITE)
    full = next_token_logits(model, IDS)
    assert torch.equal(next_token_logits(model, IDS, dict.fromkeys(EVERY_SITE, unchanged)), full)
    assert torch.equal(next_token_logits(model, IDS, {s: replace_with(own[s]) for s in EVERY_SITE}), full)


def test_patching_everything_gives_the_other_run(model: nn.Module) -> None:
    sites = [Site(0, "embed"), *modules(LAYERS)]
    other = record(model, OTHER, sites)
    patched = next_token_logits(model, IDS, {site: replace_with(other[site]) for site in sites})
    assert torch.equal(patched, next_token_logits(model, OTHER))
    assert not torch.equal(patched, next_token_logits(model, IDS))


@pytest.mark.parametrize("site", EVERY_SITE, ids=str)
def test_an_edit_moves_the_logits(site: Site, model: nn.Module) -> None:
    full = next_token_logits(model, IDS)
    other = record(model, OTHER, [site])[site]
    for edit in (zero, replace_with(other), replace_with(other[0, 0]), lambda _, output: output.flip(-1)):
        moved = (next_token_logits(model, IDS, {site: edit}) - full).abs().amax(1)
        assert (moved > 1e-3).all()


@pytest.mark.parametrize("site", EVERY_SITE, ids=str)
def test_what_is_recorded_under_an_edit_is_what_the_edit_returned(site: Site, model: nn.Module) -> None:
    value = torch.full_like(record(model, IDS, [site])[site], 0.25)
    with edited(model, {site: replace_with(value)}):
        assert torch.equal(record(model, IDS, [site])[site], value)


def test_zeroing_a_head_takes_away_its_contribution(model: nn.Module) -> None:
    for layer in range(LAYERS):
        attention, own = Site(layer, "attn"), [Site(layer, "head", head) for head in range(HEADS)]
        seen = record(model, IDS, [attention, *own])
        z = torch.cat([seen[site] for site in own], dim=-1)
        bias = gpt2.blocks(model)[layer].attn.c_proj.bias
        for head, site in enumerate(own):
            with edited(model, {site: zero}):
                without = record(model, IDS, [attention])[attention]
            contribution = gpt2.head_output(model, layer, head, z) - bias
            assert torch.allclose(without, seen[attention] - contribution, atol=1e-5)


def test_zeroing_all_heads_leaves_the_bias(model: nn.Module) -> None:
    sites = heads(LAYERS, HEADS)[:HEADS]
    with edited(model, dict.fromkeys(sites, zero)):
        left = record(model, IDS, [Site(0, "attn")])[Site(0, "attn")]
    assert torch.equal(left, gpt2.blocks(model)[0].attn.c_proj.bias.expand_as(left))


@pytest.mark.parametrize("part", ["attn", "mlp"])
def test_an_edit_is_given_the_module_s_input(part: str, model: nn.Module) -> None:
    block = gpt2.blocks(model)[1]
    norm = block.ln_1 if part == "attn" else block.ln_2
    normed: list[Tensor] = []
    handle = norm.register_forward_hook(lambda _, args, output: normed.append(output))
    given: list[Tensor] = []

    def look(h: Tensor, output: Tensor) -> Tensor:
        given.append(h)
        return output

    next_token_logits(model, IDS, {Site(1, part): look})
    handle.remove()
    assert torch.equal(given[0], normed[0])


def test_an_activation_that_was_recorded_is_a_copy(model: nn.Module) -> None:
    site = Site(2, "resid")
    seen = record(model, IDS, [site])[site]
    before = seen.clone()
    next_token_logits(model, OTHER)
    assert torch.equal(seen, before)


def test_hooks_are_gone_after_the_context(model: nn.Module) -> None:
    full = next_token_logits(model, IDS)
    with edited(model, dict.fromkeys(EVERY_SITE, zero)):
        assert hooks_of(model) == len(EVERY_SITE)
        model(IDS)
    assert hooks_of(model) == 0
    assert torch.equal(next_token_logits(model, IDS), full)


@pytest.mark.parametrize("site", EVERY_SITE, ids=str)
def test_hooks_are_gone_after_an_exception(site: Site, model: nn.Module) -> None:
    full = next_token_logits(model, IDS)

    def broken(_: Tensor, output: Tensor) -> Tensor:
        raise ArithmeticError("in the edit")

    with pytest.raises(ArithmeticError, match="in the edit"):
        next_token_logits(model, IDS, {Site(0, "mlp"): zero, site: broken})
    with pytest.raises(ArithmeticError, match="in the body"), edited(model, {site: zero}):
        raise ArithmeticError("in the body")  # and no SilentEditError, which would hide it
    assert hooks_of(model) == 0
    assert torch.equal(next_token_logits(model, IDS), full)


def test_a_site_that_is_not_there_leaves_no_hooks(model: nn.Module) -> None:
    with pytest.raises(IndexError), edited(model, {Site(0, "mlp"): zero, Site(LAYERS, "mlp"): zero}):
        pass
    assert hooks_of(model) == 0


def test_an_edit_that_never_runs_is_an_error_that_names_it(model: nn.Module) -> None:
    with (
        pytest.raises(SilentEditError) as caught,
        edited(model, {Site(0, "mlp"): zero, Site(1, "head", 1): zero}),
    ):
        pass
    assert str(caught.value) == "the edit of layer 1 mlp, layer 2 att1 never ran"
    assert hooks_of(model) == 0


def test_an_edit_below_the_layer_that_is_resumed_is_an_error(model: nn.Module) -> None:
    resid = record(model, IDS, [Site(0, "resid")])[Site(0, "resid")]
    with pytest.raises(SilentEditError, match="layer 1 mlp"), edited(model, {Site(0, "mlp"): zero}):
        gpt2.resume(model, resid, 1)


def test_edits_nest_from_the_inside_out(model: nn.Module) -> None:
    site = Site(1, "mlp")
    full = record(model, IDS, [site])[site]
    with edited(model, {site: lambda _, x: x * 2}), edited(model, {site: lambda _, x: x + 1}):
        assert torch.equal(record(model, IDS, [site])[site], full * 2 + 1)


def test_reading_leaves_no_gradient(model: nn.Module) -> None:
    model.requires_grad_(True)
    assert not next_token_logits(model, IDS).requires_grad
    assert not record(model, IDS, [Site(0, "mlp")])[Site(0, "mlp")].requires_grad
