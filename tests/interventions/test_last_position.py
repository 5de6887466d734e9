"""What is read and changed at the last position is what plain passes read and `last_edits` change, row by row."""

from collections.abc import Callable

import pytest
import torch
from tests.pretended import pretended_gpu
from torch import Tensor
from transformers import PreTrainedModel

from anatomy.interventions.generate import greedy
from anatomy.interventions.hooks import edited, record, replace_with, zero
from anatomy.interventions.last_position import ZERO, Change, Condition, changed_continuations, read_last
from anatomy.models.adapters import ADAPTERS
from anatomy.sites import Site, heads, modules

PROMPTS = [[3, 5, 8], [7, 1], [1, 1, 4, 9, 30, 12, 11, 2, 40], [42, 6], [3, 5, 9], [20, 21, 22, 23, 24], [7, 7, 7, 7]]
SITES = [*modules(3), *heads(3, 4), *(Site(layer, "resid") for layer in range(3))]
NEW = 8


@pytest.fixture(params=ADAPTERS)
def model(request: pytest.FixtureRequest, make_family: Callable) -> PreTrainedModel:
    model = make_family(request.param).double()
    model.config.eos_token_id = None
    return model


def vector(width: int, seed: int = 0) -> Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def write(model: PreTrainedModel, conditions: list[Condition], rows: int = 512) -> list[list[list[int]]]:
    return changed_continuations(model, PROMPTS, conditions, new_tokens=NEW, pad=0, rows=rows)


@pytest.mark.parametrize("rows", [2, 512])
def test_activations_are_those_of_plain_passes(rows: int, model: PreTrainedModel) -> None:
    found = read_last(model, PROMPTS, SITES, pad=0, rows=rows)
    for number, prompt in enumerate(PROMPTS):
        for site, own in record(model, torch.tensor([prompt]), SITES).items():
            torch.testing.assert_close(found[site][number], own[0, -1], rtol=0, atol=1e-11)


def test_inputs_are_what_the_modules_are_given(model: PreTrainedModel) -> None:
    found = read_last(model, PROMPTS, modules(3), pad=0, what="input")
    for number, prompt in enumerate(PROMPTS):
        given: dict[Site, Tensor] = {}

        def keep(site: Site, given: dict[Site, Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
            return lambda x, output: given.update({site: x[0, -1]}) or output

        with torch.no_grad(), edited(model, {site: keep(site, given) for site in modules(3)}):
            model(torch.tensor([prompt]))
        for site in modules(3):
            torch.testing.assert_close(found[site][number], given[site], rtol=0, atol=1e-11)


def test_no_change_is_plain_generation(model: PreTrainedModel) -> None:
    plain = greedy(model, PROMPTS, new_tokens=NEW, pad=0)
    nothing: list[Condition] = [{}, {Site(1, "mlp"): Change()}, {Site(0, "attn"): Change(shift=torch.zeros(16))}]
    assert write(model, nothing) == [plain] * 3


@pytest.mark.parametrize("rows", [1, 9, 512])
def test_many_conditions_are_one_run_after_the_other(rows: int, model: PreTrainedModel) -> None:
    head, mlp = Site(1, "head", 2), Site(2, "mlp")
    v, u = vector(16), vector(4, 1)
    conditions: list[Condition] = [
        {head: ZERO},
        {Site(0, "attn"): Change(shift=v)},
        {},
        {head: Change(0.0, u), mlp: ZERO},
        {Site(1, "resid"): Change(-0.5, v)},
    ]
    edits = [
        {head: zero},
        {Site(0, "attn"): lambda _, output: output + v},
        {},
        {head: replace_with(u), mlp: zero},
        {Site(1, "resid"): lambda _, output: v - 0.5 * output},
    ]
    expected = [greedy(model, PROMPTS, new_tokens=NEW, pad=0, last_edits=own) for own in edits]
    assert write(model, conditions, rows) == expected
    assert len({str(texts) for texts in expected}) == len(conditions)


def test_every_prompt_can_have_a_shift_of_its_own(model: PreTrainedModel) -> None:
    site = Site(1, "attn")
    shifts = torch.stack([vector(16, seed) for seed in range(len(PROMPTS))])
    for rows in (3, 512):
        (found,) = write(model, [{site: Change(shift=shifts)}], rows)
        for number, prompt in enumerate(PROMPTS):
            own = {site: lambda _, output, number=number: output + shifts[number]}
            assert [found[number]] == greedy(model, [prompt], new_tokens=NEW, pad=0, last_edits=own)


def test_what_a_prompt_has_as_the_shift_of_a_zero_changes_nothing(model: PreTrainedModel) -> None:
    """Everything taken away and put back is everything."""
    own = read_last(model, PROMPTS, modules(3), pad=0)
    back: Condition = {site: Change(0.0, values) for site, values in own.items()}
    assert write(model, [back]) == [greedy(model, PROMPTS, new_tokens=NEW, pad=0)]


def test_the_other_prompt_s_modules_write_the_other_prompt_s_first_token(model: PreTrainedModel) -> None:
    """All that is added to the stream, patched: the first token is the other run's."""
    prompts = [[3, 5, 8], [9, 2, 8]]
    own = read_last(model, prompts, modules(3), pad=0)
    swap: Condition = {site: Change(0.0, values.flip(0)) for site, values in own.items()}
    plain, swapped = changed_continuations(model, prompts, [{}, swap], new_tokens=1, pad=0)
    assert swapped == plain[::-1] and plain[0] != plain[1]


def test_texts_end_where_the_end_is_written(model: PreTrainedModel) -> None:
    free = write(model, [{}, {Site(0, "mlp"): ZERO}])
    model.config.eos_token_id = free[0][0][1]
    cut = [[text[: text.index(end)] if (end := free[0][0][1]) in text else text for text in texts] for texts in free]
    assert write(model, [{}, {Site(0, "mlp"): ZERO}]) == cut != free


@pytest.mark.parametrize(
    ("prompts", "condition", "message"),
    [
        ([[1], [1, 2]], {}, "a prompt of 1 token: expected at least 2, of which all but the last are read once"),
        ([[1] * 24], {}, "a prompt of 24 tokens: expected 1 to 23, below max_length"),
        (
            [[1, 2], [3, 4]],
            {Site(0, "mlp"): Change(shift=torch.zeros(3, 16))},
            "layer 1 mlp: a shift of shape (3, 16); expected (16,) or (2, 16)",
        ),
    ],
)
def test_what_cannot_be_continued_is_refused(
    prompts: list[list[int]], condition: Condition, message: str, make_family: Callable
) -> None:
    with pytest.raises(ValueError) as caught:
        changed_continuations(make_family("llama"), prompts, [condition], new_tokens=2, pad=0)
    assert str(caught.value) == message


def test_nothing_to_read_is_refused(make_family: Callable) -> None:
    with pytest.raises(ValueError, match=r"^0 prompts, the shortest of them empty: expected at least 1 token in each$"):
        read_last(make_family("llama"), [], SITES, pad=0)


def test_on_a_gpu_the_texts_and_activations_are_the_same(model: PreTrainedModel) -> None:
    """The shifts come from the CPU, one for all prompts and one for each."""
    each = torch.stack([vector(16, seed) for seed in range(len(PROMPTS))])
    conditions: list[Condition] = [
        {},
        {Site(1, "mlp"): Change(shift=vector(16))},
        {Site(0, "attn"): Change(shift=each), Site(2, "head", 1): ZERO},
    ]
    texts, seen = write(model, conditions), read_last(model, PROMPTS, SITES, pad=0)
    with pretended_gpu():
        model.to("cuda")
        assert write(model, conditions) == texts
        there = read_last(model, PROMPTS, SITES, pad=0)
        assert all(own.device == model.device for own in there.values())
    for site, own in seen.items():
        torch.testing.assert_close(there[site], own, rtol=0, atol=1e-11)
