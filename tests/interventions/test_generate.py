"""Greedy generation: what transformers writes for one prompt after the other, with and without edits."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from anatomy.control.pcp import pcp_edit, random_directions
from anatomy.interventions.generate import greedy
from anatomy.interventions.hooks import SilentEditError, edited, replace_with
from anatomy.sites import Site

MAX_LENGTH, WIDTH = 20, 16
PROMPTS = [
    [3, 5, 8],
    [7],
    [1, 1, 4, 9, 30, 12, 11, 2, 40],
    [42, 6],
    [3, 5, 9],
    [20, 21, 22, 23, 24],
    [7, 7, 7, 7, 7, 7],
]


@pytest.fixture
def model(make_model: Callable) -> GPT2LMHeadModel:
    model = make_model().double()
    return end_at(model, None)


def end_at(model: GPT2LMHeadModel, eos: int | None) -> GPT2LMHeadModel:
    model.config.eos_token_id = model.generation_config.eos_token_id = eos
    return model


def one_by_one(model: GPT2LMHeadModel, prompts: list[list[int]], max_length: int = MAX_LENGTH) -> list[list[int]]:
    """transformers' own generation, cut before the end of the text."""
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_length=max_length, do_sample=False, pad_token_id=0
        )
        written = out[0, len(prompt) :].tolist()
        eos = model.config.eos_token_id
        found.append(written[: written.index(eos)] if eos in written else written)
    return found


def edits() -> dict[Site, Callable[[Tensor, Tensor], Tensor]]:
    generator = torch.Generator().manual_seed(1)
    constant = torch.randn(WIDTH, generator=generator).double()
    return {
        Site(0, "mlp"): replace_with(constant),
        Site(1, "head", 1): replace_with(constant[: WIDTH // 2]),
        Site(1, "attn"): pcp_edit(random_directions(WIDTH, 3, seed=0).double(), torch.tensor([1.5, 0.4, -0.7])),
    }


def test_the_text_is_that_of_one_by_one_generation(model: GPT2LMHeadModel) -> None:
    found = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0)
    assert found == one_by_one(model, PROMPTS)
    assert [len(p) + len(c) for p, c in zip(PROMPTS, found, strict=True)] == [MAX_LENGTH] * len(PROMPTS)
    assert len({tuple(c[:4]) for c in found}) > 3  # not one text for all


def test_the_text_under_edits_is_that_of_one_by_one_generation(model: GPT2LMHeadModel) -> None:
    found = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0, edits=edits())
    with edited(model, edits()):
        assert found == one_by_one(model, PROMPTS)
    plain = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0)
    assert sum(a != b for a, b in zip(found, plain, strict=True)) > len(PROMPTS) / 2
    for site, edit in edits().items():
        assert greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0, edits={site: edit}) != plain


def test_it_ends_where_the_end_of_text_is_written(model: GPT2LMHeadModel) -> None:
    free = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0)
    # A token that some texts hold and others do not: first, later, never.
    eos = next(t for c in free for t in c[:1] if any(t not in other for other in free))
    end_at(model, eos)
    found = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0)
    assert found == one_by_one(model, PROMPTS)
    lengths = [len(c) for c in found]
    assert 0 in lengths
    assert any(len(p) + n == MAX_LENGTH for p, n in zip(PROMPTS, lengths, strict=True))


def test_rows_that_ended_leave_the_batch(model: GPT2LMHeadModel) -> None:
    sizes: list[int] = []
    model.transformer.h[0].register_forward_hook(lambda _, args, output: sizes.append(len(args[0])))
    found = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0)
    # Of seven prompts the five longest reach the maximal length first.
    assert sizes == sorted(sizes, reverse=True) and set(sizes) == {7, 2, 1}
    assert found == one_by_one(model, PROMPTS)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_the_batch_size_changes_nothing(rows: int, attention: str, model: GPT2LMHeadModel) -> None:
    model.set_attn_implementation(attention)
    whole = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0, edits=edits())
    assert greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0, edits=edits(), rows=rows) == whole


def test_what_stands_in_the_padding_changes_nothing(model: GPT2LMHeadModel) -> None:
    a, b = (greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=pad, edits=edits()) for pad in (0, 42))
    assert a == b


def test_a_row_may_fill_every_position_of_the_model(model: GPT2LMHeadModel) -> None:
    """The longest prompt ends first, and the others go on beside it."""
    last = model.config.n_positions
    assert greedy(model, PROMPTS, max_length=last, pad=0) == one_by_one(model, PROMPTS, last)


def test_a_prompt_that_occurs_twice_is_continued_once(model: GPT2LMHeadModel) -> None:
    batches: list[int] = []
    handle = model.transformer.wte.register_forward_hook(lambda _, args, output: batches.append(len(args[0])))
    found = greedy(model, [PROMPTS[0], PROMPTS[1], PROMPTS[0]], max_length=MAX_LENGTH, pad=0)
    handle.remove()
    assert max(batches) == 2
    assert found[0] == found[2] == one_by_one(model, PROMPTS[:1])[0]
    found[0].clear()
    assert found[2]  # each caller's list is its own


def test_only_the_last_position_meets_the_head(model: GPT2LMHeadModel) -> None:
    widths: list[int] = []
    handle = model.lm_head.register_forward_hook(lambda _, args, output: widths.append(output.shape[1]))
    greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0)
    handle.remove()
    assert set(widths) == {1}
    assert len(widths) == MAX_LENGTH - min(map(len, PROMPTS))


def test_no_hook_stays(model: GPT2LMHeadModel) -> None:
    plain = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0)
    greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0, edits=edits())
    assert greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0) == plain


def test_an_edit_that_never_runs_is_an_error(model: GPT2LMHeadModel) -> None:
    with pytest.raises(SilentEditError, match="layer 1 mlp"):
        greedy(model, [], max_length=MAX_LENGTH, pad=0, edits={Site(0, "mlp"): edits()[Site(0, "mlp")]})


@pytest.mark.parametrize(
    ("prompts", "max_length", "message"),
    [
        ([[1], []], 5, "a prompt of 0 tokens: expected 1 to 4, below max_length"),
        ([[1], [1, 2, 3, 4, 5]], 5, "a prompt of 5 tokens: expected 1 to 4, below max_length"),
        ([[1]], 25, "max_length is 25, and the model has 24 positions"),
    ],
)
def test_what_cannot_be_generated_is_refused(
    prompts: list[list[int]], max_length: int, message: str, model: GPT2LMHeadModel
) -> None:
    with pytest.raises(ValueError) as caught:
        greedy(model, prompts, max_length=max_length, pad=0)
    assert str(caught.value) == message
