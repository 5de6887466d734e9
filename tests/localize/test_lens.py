"""Logit lens: each module's own voice, the full model's, and the released code's slip in layer 2."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from anatomy.interventions.hooks import record
from anatomy.localize.lens import lens_logits
from anatomy.models import gpt2
from anatomy.sites import Site

IDS = torch.tensor([[3, 5], [1, 1], [42, 6], [20, 21]])
HEADS = 4
LAYER_TWO = [*(f"layer 2 att{head}" for head in range(HEADS)), "layer 2 mlp"]


@pytest.fixture
def model(make_model: Callable) -> nn.Module:
    return make_model(heads=HEADS)


def test_every_head_every_mlp_and_the_full_model_speak(model: nn.Module) -> None:
    expected = [f"layer {layer} {part}" for layer in (1, 2, 3) for part in (*(f"att{h}" for h in range(HEADS)), "mlp")]
    for variant in ("paper", "original"):
        logits = lens_logits(model, IDS, variant=variant)
        assert list(logits) == [*expected, "full model"]
        assert all(value.shape == (4, 2, 43) for value in logits.values())


@pytest.mark.parametrize("variant", ["paper", "original"])
def test_the_full_model_is_the_model(variant: str, model: nn.Module) -> None:
    assert torch.equal(lens_logits(model, IDS, variant=variant)["full model"], model(IDS).logits)


def test_a_module_speaks_through_the_last_norm_and_the_unembedding(model: nn.Module) -> None:
    logits = lens_logits(model, IDS, variant="paper")
    for layer in range(3):
        heads = [Site(layer, "head", head) for head in range(HEADS)]
        seen = record(model, IDS, [*heads, Site(layer, "mlp")])
        alone = model.lm_head(model.transformer.ln_f(seen[Site(layer, "mlp")]))
        assert torch.equal(logits[f"layer {layer + 1} mlp"], alone)
        projection = gpt2.blocks(model)[layer].attn.c_proj
        for head, site in enumerate(heads):
            others_pruned = torch.zeros(4, 2, 16)
            others_pruned[..., 4 * head : 4 * head + 4] = seen[site]
            alone = model.lm_head(model.transformer.ln_f(projection(others_pruned)))
            assert torch.allclose(logits[f"layer {layer + 1} att{head}"], alone, atol=1e-5)


def test_the_lens_does_not_see_the_layers_above(model: nn.Module) -> None:
    before = lens_logits(model, IDS, variant="paper")
    for parameter in gpt2.blocks(model)[2].parameters():
        parameter.mul_(2)
    after = lens_logits(model, IDS, variant="paper")
    for name in before:
        assert torch.equal(before[name], after[name]) == (not name.startswith(("layer 3", "full"))), name


def test_original_layer_two_has_four_identical_heads_and_is_not_the_paper_s(model: nn.Module) -> None:
    paper, original = (lens_logits(model, IDS, variant=variant) for variant in ("paper", "original"))
    for head in range(1, HEADS):
        assert torch.equal(original[f"layer 2 att{head}"], original["layer 2 att0"])
        assert not torch.allclose(paper[f"layer 2 att{head}"], paper["layer 2 att0"], atol=1e-3)
    for name in paper:
        assert torch.equal(paper[name], original[name]) == (name not in LAYER_TWO), name


def test_original_layer_two_is_layer_three_fed_by_layer_one(model: nn.Module) -> None:
    """The released loop deletes block 2 of three: h0 + h2 remain."""
    original = lens_logits(model, IDS, variant="original")
    block = gpt2.blocks(model)[2]
    stream = record(model, IDS, [Site(0, "resid")])[Site(0, "resid")]
    attention = block.attn(block.ln_1(stream))[0]
    mlp = block.mlp(block.ln_2(stream + attention))
    assert torch.allclose(original["layer 2 att0"], gpt2.unembed(model, attention), atol=1e-5)
    assert torch.allclose(original["layer 2 mlp"], gpt2.unembed(model, mlp), atol=1e-5)


def test_the_model_is_whole_again_afterwards(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(gpt2.blocks(model))
    lens_logits(model, IDS, variant="original")
    assert list(gpt2.blocks(model)) == before

    monkeypatch.setattr(before[2].mlp, "forward", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        lens_logits(model, IDS, variant="original")
    assert list(gpt2.blocks(model)) == before


def test_the_slip_is_one_of_three_layers(make_model: Callable) -> None:
    model = make_model(layers=2)
    paper, original = (lens_logits(model, IDS, variant=variant) for variant in ("paper", "original"))
    assert all(torch.equal(paper[name], original[name]) for name in paper)
