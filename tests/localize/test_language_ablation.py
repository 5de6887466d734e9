"""Means at the ninth token: what they are in both variants, and what the end of a text has to do with them: nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from anatomy.interventions.hooks import record
from anatomy.localize.language_ablation import NINTH, language_means, outputs_at
from anatomy.sites import Site, heads, modules

SITES = [*modules(3), *heads(3, 2)]
Texts = list[list[int]]


@pytest.fixture
def model(make_model: Callable) -> nn.Module:
    return make_model()


def texts(lengths: list[int], seed: int) -> Texts:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(43, (length,), generator=generator).tolist() for length in lengths]


CLEAN, TOXIC = texts([9, 12, 3, 20, 10, 8], 0), texts([15, 9, 7, 11, 10, 24, 4], 1)


@pytest.fixture
def counting(make_model: Callable) -> nn.Module:
    """A model whose embedding of token i, at any position, is i in every coordinate."""
    model = make_model()
    model.transformer.wpe.weight.zero_()
    model.transformer.wte.weight.copy_(torch.arange(43.0)[:, None].expand(43, 16))
    return model


@pytest.mark.parametrize("rows", [1, 2, 256])
def test_outputs_are_those_of_each_whole_text_that_is_long_enough(rows: int, model: nn.Module) -> None:
    found = outputs_at(model, CLEAN, SITES, rows=rows)
    kept = [text for text in CLEAN if len(text) >= 9]
    assert len(kept) == 4
    for site in SITES:
        each = torch.cat([record(model, torch.tensor([text]), [site])[site][:, NINTH] for text in kept])
        assert torch.allclose(found[site], each, atol=1e-5)


def test_the_mean_is_over_all_texts_of_all_groups(model: nn.Module) -> None:
    means = language_means(model, [CLEAN, TOXIC], SITES, variant="paper")
    seen = outputs_at(model, CLEAN + TOXIC, SITES)
    for site in SITES:
        assert torch.allclose(means[site], seen[site].mean(0), atol=1e-6)
        assert means[site].dtype == seen[site].dtype


@pytest.mark.parametrize("tracked", [6, 20])
def test_the_original_means_are_those_of_the_released_loop(tracked: int, model: nn.Module) -> None:
    """The loop as it was released: a text counts once per tracked module, and each group divides what is there."""
    means = language_means(model, [CLEAN, TOXIC], SITES, variant="original", tracked=tracked)
    for site in SITES:
        res = torch.zeros_like(means[site])
        for group in (CLEAN, TOXIC):
            counts = 0
            for text in group:
                for _ in range(tracked):
                    if len(text) > NINTH:
                        counts += 1
                if len(text) > NINTH:
                    res += record(model, torch.tensor([text]), [site])[site][0, NINTH]
            res = res / counts
        assert torch.allclose(means[site], res, atol=1e-6)


def test_the_original_mean_is_a_twentieth_of_the_toxic_mean(counting: nn.Module) -> None:
    """Clean texts of twos, toxic ones of fours: the mean is 3, the released code finds 0.2."""
    clean, toxic = [[2] * 10] * 250, [[4] * 10] * 250
    site = Site(0, "embed")
    found = {v: language_means(counting, [clean, toxic], [site], variant=v)[site] for v in ("paper", "original")}
    assert torch.allclose(found["paper"], torch.tensor(3.0))
    assert torch.allclose(found["original"], torch.tensor(4 / 20 + 2 / 20 / (20 * 250)), atol=1e-7)
    assert torch.allclose(found["original"], torch.tensor(0.2), atol=1e-4)


def test_another_position_is_another_mean(model: nn.Module) -> None:
    a, b = (language_means(model, [CLEAN], SITES, variant="paper", position=position) for position in (7, 8))
    assert all(not torch.allclose(a[site], b[site], atol=1e-3) for site in SITES)


def test_each_text_can_have_a_position_of_its_own(model: nn.Module) -> None:
    places = [3, 7, 3, 0, 5, 9]
    found = outputs_at(model, CLEAN, SITES, position=places)
    for row, (text, place) in enumerate((t, p) for t, p in zip(CLEAN, places, strict=True) if len(t) > p):
        alone = outputs_at(model, [text], SITES, position=place)
        assert all(torch.allclose(found[site][row], alone[site][0], atol=1e-5) for site in SITES)
    assert {len(own) for own in found.values()} == {4}  # the third and the last are too short


def test_where_no_text_is_long_enough_it_says_so(model: nn.Module) -> None:
    with pytest.raises(ValueError) as caught:
        language_means(model, [CLEAN, [[1] * 8, [2] * 3]], SITES, variant="paper")
    assert str(caught.value) == "none of the 2 texts has the 9 tokens that the position asks for"
