"""A model with modules replaced: the batched answer is the naive one, setting by setting."""

from collections.abc import Callable

import pytest
import torch
from tests.pretended import pretended_gpu
from torch import nn
from transformers import GPT2LMHeadModel

from anatomy.control.pcp import projection, random_directions
from anatomy.control.replacement import Replacement, negativity, settings_logits
from anatomy.control.settings import settings_continuations
from anatomy.interventions.generate import greedy
from anatomy.interventions.hooks import next_token_logits, replace_with
from anatomy.metrics.topk import token_mask, topk_share
from anatomy.sites import Site

PROMPTS = torch.tensor([[3, 5], [1, 1], [42, 6], [20, 21], [9, 30]])
MASK = token_mask([*range(5, 25)], 43)
REPLACED = {
    "mlp 1": {Site(0, "mlp"): 2},
    "mlp 3": {Site(2, "mlp"): 1},
    "mlp 1+3": {Site(0, "mlp"): 2, Site(2, "mlp"): 2},
    "attn 2": {Site(1, "attn"): 4},
    "attn 2+3": {Site(1, "attn"): 4, Site(2, "attn"): 3},
    "listed upside down": {Site(2, "mlp"): 1, Site(1, "attn"): 3},
}


@pytest.fixture
def model(make_model: Callable) -> nn.Module:
    return make_model()


def replacement(name: str) -> Replacement:
    ranks = REPLACED[name].items()
    return Replacement(name, {site: random_directions(16, rank, seed=i) for i, (site, rank) in enumerate(ranks)})


def settings(rank: int, count: int = 7) -> torch.Tensor:
    return 6 * torch.rand(count, rank, generator=torch.Generator().manual_seed(1)) - 3


@pytest.mark.parametrize("name", REPLACED)
def test_negativity_equals_one_edited_pass_per_setting(name: str, model: nn.Module) -> None:
    own = replacement(name)
    sigma = settings(own.rank)
    expected = torch.stack([topk_share(next_token_logits(model, PROMPTS, own.edits(s)), MASK, 10) for s in sigma])
    for rows in (5, 12, 2048):  # one setting at a time, two, all at once
        pieces = settings_logits(model, own, sigma, PROMPTS, rows=rows)
        assert torch.equal(torch.cat([topk_share(logits, MASK, 10) for logits in pieces]), expected)
    assert torch.equal(negativity(model, own, sigma, PROMPTS, MASK, 10), expected)
    assert len(expected.unique()) > 1


@pytest.mark.parametrize("name", REPLACED)
def test_a_replaced_module_is_its_matrix(name: str, model: nn.Module) -> None:
    """The same by another way: modules overwritten by A h."""
    own = replacement(name)
    (sigma,) = settings(own.rank, 1)
    edits, start = {}, 0
    for site in sorted(own.directions):
        p = own.directions[site]
        matrix = projection(p, sigma[start : start + len(p)])
        start += len(p)
        edits[site] = lambda h, _, matrix=matrix: h @ matrix
    expected = next_token_logits(model, PROMPTS, edits)
    assert torch.allclose(next_token_logits(model, PROMPTS, own.edits(sigma)), expected, atol=1e-4)


def test_factors_of_zero_ablate_to_zero(model: nn.Module) -> None:
    own = replacement("mlp 1+3")
    nil = {site: replace_with(torch.zeros(16)) for site in own.sites}
    assert torch.equal(
        next_token_logits(model, PROMPTS, own.edits(torch.zeros(4))), next_token_logits(model, PROMPTS, nil)
    )


def test_sites_come_bottom_up_and_ranks_add_up() -> None:
    own = replacement("listed upside down")
    assert own.sites == [Site(1, "attn"), Site(2, "mlp")] and own.rank == 4
    with pytest.raises(RuntimeError):
        own.edits(torch.ones(5))  # one factor too many


def test_the_model_is_as_before(model: nn.Module) -> None:
    full = next_token_logits(model, PROMPTS)
    own = replacement("attn 2+3")
    negativity(model, own, settings(own.rank), PROMPTS, MASK, 10)
    assert torch.equal(next_token_logits(model, PROMPTS), full)


RAGGED = [[3, 5, 8], [7], [1, 1, 4, 9, 30, 12], [42, 6], [3, 5, 8], [20, 21, 22, 23], [7], [9, 9]]


def one_by_one(model: GPT2LMHeadModel, own: Replacement, sigma: torch.Tensor, length: int) -> list[list[list[int]]]:
    return [greedy(model, RAGGED, max_length=length, pad=0, edits=own.edits(some)) for some in sigma]


def in_double(name: str) -> Replacement:
    own = replacement(name)
    return Replacement(name, {site: p.double() for site, p in own.directions.items()})


@pytest.mark.parametrize("eos", [None, "one that some write"])
@pytest.mark.parametrize("name", REPLACED)
def test_continuations_equal_greedy_under_one_setting_after_the_other(
    name: str, eos: str | None, model: GPT2LMHeadModel
) -> None:
    model, own, length = model.double(), in_double(name), 14
    sigma = settings(own.rank).double()
    model.config.eos_token_id = None
    free = one_by_one(model, own, sigma, length)
    written = [token for texts in free for text in texts for token in text]
    if eos:
        model.config.eos_token_id = max(set(written), key=written.count)
    expected = one_by_one(model, own, sigma, length)
    lengths = {len(p) + len(c) for texts in expected for p, c in zip(RAGGED, texts, strict=True)}
    assert len({str(texts) for texts in expected}) > 1 and (lengths == {length}) is (eos is None)
    for rows in (1, 6, 13, 1024):  # one setting at a time, one, two, all at once
        found = settings_continuations(model, own, sigma, RAGGED, max_length=length, pad=0, rows=rows)
        assert found == expected


def test_prompts_that_occur_twice_are_continued_once_per_setting(model: GPT2LMHeadModel) -> None:
    own, batches = replacement("mlp 1"), []
    handle = model.transformer.wte.register_forward_hook(lambda _, args, output: batches.append(len(args[0])))
    found = settings_continuations(model, own, settings(own.rank, 3), RAGGED, max_length=9, pad=0, rows=12)
    handle.remove()
    assert batches[0] == 12 and {12, 6} <= set(batches)  # six distinct prompts: two settings, then one
    for texts in found:
        assert texts[0] == texts[4] and texts[1] == texts[6]
    found[0][0].clear()
    assert found[0][4]  # each caller's list is its own


def test_what_stands_in_the_padding_changes_no_continuation(model: GPT2LMHeadModel) -> None:
    model, own = model.double(), in_double("mlp 1+3")
    sigma = settings(own.rank).double()
    a, b = (settings_continuations(model, own, sigma, RAGGED, max_length=14, pad=pad) for pad in (0, 42))
    assert a == b


def test_continuations_without_room_are_refused_and_leave_no_hook(model: GPT2LMHeadModel) -> None:
    own, full = replacement("mlp 1"), next_token_logits(model, PROMPTS)
    with pytest.raises(ValueError) as caught:
        settings_continuations(model, own, settings(own.rank), RAGGED, max_length=6, pad=0)
    assert str(caught.value) == "a prompt of 6 tokens: expected 1 to 5, below max_length"
    settings_continuations(model, own, settings(own.rank), RAGGED, max_length=9, pad=0)
    assert torch.equal(next_token_logits(model, PROMPTS), full)


def test_on_a_gpu_the_answers_are_the_same(model: GPT2LMHeadModel) -> None:
    """Directions and factors come from the CPU; rows that end leave the batch with their factors."""
    model, own = model.double(), in_double("mlp 1+3")
    sigma = settings(own.rank, 3).double()
    free = one_by_one(model, own, sigma, 14)
    written = [token for texts in free for text in texts for token in text]
    model.config.eos_token_id = max(set(written), key=written.count)
    texts = settings_continuations(model, own, sigma, RAGGED, max_length=14, pad=0)
    shares = negativity(model, own, sigma, PROMPTS, MASK, 10)
    with pretended_gpu():
        model.to("cuda")
        assert settings_continuations(model, own, sigma, RAGGED, max_length=14, pad=0) == texts
        found = negativity(model, own, sigma, PROMPTS.to("cuda"), MASK.to("cuda"), 10)
        assert found.device == model.device
    assert torch.equal(found, shares)
