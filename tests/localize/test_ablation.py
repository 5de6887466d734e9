"""Mean ablation: what the means are in both variants, and where ablating must change nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from anatomy.interventions.hooks import next_token_logits, record, replace_with
from anatomy.localize.ablation import mean_activations
from anatomy.sites import Site, modules

SITES = modules(3)


@pytest.fixture
def model(make_model: Callable) -> nn.Module:
    return make_model()


@pytest.fixture
def groups() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(43, (rows, 2), generator=generator) for rows in (5, 5, 3)]


@pytest.fixture
def counting(make_model: Callable) -> nn.Module:
    """A model whose embedding of token i, at any position, is i in every coordinate."""
    model = make_model()
    model.transformer.wpe.weight.zero_()
    model.transformer.wte.weight.copy_(torch.arange(43.0)[:, None].expand(43, 16))
    return model


def test_the_mean_is_over_all_prompts_at_one_position(model: nn.Module, groups: list[Tensor]) -> None:
    for position in (0, 1):
        means = mean_activations(model, groups, SITES, position=position, variant="paper")
        seen = record(model, torch.cat(groups), SITES)
        for site in SITES:
            assert torch.allclose(means[site], seen[site][:, position].mean(0), atol=1e-6)


def test_the_original_averages_follow_their_recursion(model: nn.Module, groups: list[Tensor]) -> None:
    """m <- (m + Σ group) / |group|, group after group."""
    means = mean_activations(model, groups, SITES, position=1, variant="original")
    for site in SITES:
        a, b, c = (record(model, ids, [site])[site][:, 1].sum(0) for ids in groups)
        assert torch.allclose(means[site], (((a / 5) + b) / 5 + c) / 3, atol=1e-6)


def test_the_original_average_is_almost_that_of_the_last_group(counting: nn.Module) -> None:
    """Groups of ten with the values 1, 3, 9 and 40: the mean is 13.25, the released code finds 40.931."""
    groups = [torch.full((10, 2), value) for value in (1, 3, 9, 40)]
    site = Site(0, "embed")
    found = {
        variant: mean_activations(counting, groups, [site], position=1, variant=variant)[site]
        for variant in ("paper", "original")
    }
    assert torch.allclose(found["paper"], torch.tensor(13.25))
    assert torch.allclose(found["original"], torch.tensor(40 + 9 / 10 + 3 / 100 + 1 / 1000))


def test_with_one_group_the_variants_agree(model: nn.Module, groups: list[Tensor]) -> None:
    a, b = (mean_activations(model, groups[:1], SITES, position=1, variant=v) for v in ("paper", "original"))
    assert all(torch.allclose(a[site], b[site], atol=1e-6) for site in SITES)


def test_where_all_inputs_are_the_same_mean_ablation_is_the_identity(model: nn.Module) -> None:
    one = torch.full((8, 1), 7)  # one token each: the mean at position 0 is the output at every position
    full = next_token_logits(model, one)
    means = mean_activations(model, [one[:3], one[3:]], SITES, position=0, variant="paper")
    for site in SITES:
        assert torch.allclose(next_token_logits(model, one, {site: replace_with(means[site])}), full, atol=1e-5)
    # Of the last layer only the last position is read: longer inputs are left alone there too.
    two = torch.tensor([[7, 4]] * 6)
    means = mean_activations(model, [two], SITES[-2:], position=1, variant="paper")
    for site in SITES[-2:]:
        edits = {site: replace_with(means[site])}
        assert torch.allclose(next_token_logits(model, two, edits), next_token_logits(model, two), atol=1e-5)


@pytest.mark.parametrize("site", SITES, ids=str)
def test_where_inputs_differ_mean_ablation_is_felt(site: Site, model: nn.Module, groups: list[Tensor]) -> None:
    mean = mean_activations(model, groups, [site], position=1, variant="paper")[site]
    full = next_token_logits(model, groups[0])
    assert not torch.allclose(next_token_logits(model, groups[0], {site: replace_with(mean)}), full, atol=1e-3)
