"""Embedding surgery: these dimensions of these tokens and nothing else, and all as it was afterwards."""

from collections.abc import Callable

import pytest
import torch
from tests.pretended import pretended_gpu
from transformers import GPT2LMHeadModel

from anatomy.control.surgery import embedding_surgery, surgery_dimensions
from anatomy.interventions.hooks import next_token_logits

TOKENS, SOURCE, WIDTH = [5, 17, 30, 2], 40, 16
IDS = torch.tensor([[1, 2, 3], [9, 8, 7]])


@pytest.fixture
def model(make_model: Callable) -> GPT2LMHeadModel:
    return make_model(width=WIDTH)


@pytest.fixture
def dimensions() -> torch.Tensor:
    return surgery_dimensions(WIDTH, 0.4, torch.Generator().manual_seed(0))


def test_the_share_of_dimensions_is_drawn_once_each() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [surgery_dimensions(1024, 400 / 1024, generator) for _ in range(2)]
    for own in drawn:
        assert len(own) == len(own.unique()) == 400
        assert torch.equal(own, own.sort().values)
        assert (own >= 0).all() and (own < 1024).all()
    assert not torch.equal(*drawn)
    again = surgery_dimensions(1024, 400 / 1024, torch.Generator().manual_seed(0))
    assert torch.equal(again, drawn[0])


def test_every_dimension_is_drawn_as_often() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(20)
    for _ in range(2000):
        counts[surgery_dimensions(20, 0.4, generator)] += 1
    # Five standard deviations of a share of .4 in 2000 draws.
    assert torch.allclose(counts / 2000, torch.tensor(0.4), atol=0.055)


def test_exactly_these_entries_are_the_source_s(model: GPT2LMHeadModel, dimensions: torch.Tensor) -> None:
    before = model.transformer.wte.weight.clone()
    wanted = before.clone()
    for token in TOKENS:
        for dimension in dimensions.tolist():
            wanted[token, dimension] = before[SOURCE, dimension]
    with embedding_surgery(model, TOKENS, SOURCE, dimensions) as within:
        assert within is model
        assert torch.equal(model.transformer.wte.weight, wanted)
        assert int((model.transformer.wte.weight != before).sum()) == len(TOKENS) * 6
    assert torch.equal(model.transformer.wte.weight, before)


def test_the_tied_head_follows(model: GPT2LMHeadModel, dimensions: torch.Tensor) -> None:
    """On inputs without these tokens, their own logits change and no other."""
    before = next_token_logits(model, torch.tensor([[1, 4, 3], [9, 8, 7]]))
    with embedding_surgery(model, TOKENS, SOURCE, dimensions):
        assert model.lm_head.weight is model.transformer.wte.weight
        after = next_token_logits(model, torch.tensor([[1, 4, 3], [9, 8, 7]]))
    moved = (after - before).abs() > 1e-4
    assert moved.any(0).nonzero().flatten().tolist() == sorted(TOKENS)


def test_all_dimensions_make_the_tokens_one(model: GPT2LMHeadModel) -> None:
    with embedding_surgery(model, TOKENS, SOURCE, torch.arange(WIDTH)):
        as_source = next_token_logits(model, torch.where(IDS == 2, SOURCE, IDS))
        assert torch.equal(next_token_logits(model, IDS), as_source)


def test_all_is_as_it_was_after_an_exception(model: GPT2LMHeadModel, dimensions: torch.Tensor) -> None:
    before, logits = model.transformer.wte.weight.clone(), next_token_logits(model, IDS)
    with pytest.raises(ArithmeticError, match="in the body"), embedding_surgery(model, TOKENS, SOURCE, dimensions):
        assert not torch.equal(next_token_logits(model, IDS), logits)
        raise ArithmeticError("in the body")
    assert torch.equal(model.transformer.wte.weight, before)
    assert torch.equal(next_token_logits(model, IDS), logits)


def test_a_model_in_training_can_be_operated_on(model: GPT2LMHeadModel, dimensions: torch.Tensor) -> None:
    model.requires_grad_(True)
    with embedding_surgery(model, TOKENS, SOURCE, dimensions):
        model(IDS).logits.sum().backward()
    assert model.transformer.wte.weight.grad is not None


@pytest.mark.parametrize(("tokens", "source"), [([5, 43], 40), ([5], -1)])
def test_a_token_outside_the_vocabulary_is_refused(
    tokens: list[int], source: int, model: GPT2LMHeadModel, dimensions: torch.Tensor
) -> None:
    before = model.transformer.wte.weight.clone()
    with (
        pytest.raises(ValueError, match=r"token ids \[(43|-1)\] are outside the vocabulary of 43 tokens"),
        embedding_surgery(model, tokens, source, dimensions),
    ):
        pass
    assert torch.equal(model.transformer.wte.weight, before)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_beyond_one_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=f"the share of dimensions is {share}: expected 0 to 1"):
        surgery_dimensions(WIDTH, share, torch.Generator())


def test_on_a_gpu_the_dimensions_come_from_the_cpu(model: GPT2LMHeadModel, dimensions: torch.Tensor) -> None:
    before = model.transformer.wte.weight.clone()
    with embedding_surgery(model, TOKENS, SOURCE, dimensions):
        expected = next_token_logits(model, IDS)
    with pretended_gpu():
        model.to("cuda")
        with embedding_surgery(model, TOKENS, SOURCE, dimensions):
            found = next_token_logits(model, IDS.to("cuda"))
        assert found.is_cuda and torch.equal(model.transformer.wte.weight.cpu(), before)
    assert torch.equal(found, expected)
