"""The sweep over sites equals the plain loop, whatever shares a batch, and does the work it says it leaves out."""

from collections.abc import Callable

import pytest
import torch
from tests.pretended import pretended_gpu
from torch import Tensor
from transformers import GPT2LMHeadModel

from anatomy.interventions.generate import greedy
from anatomy.interventions.hooks import replace_with
from anatomy.localize.module_sweep import share_saved, swept_continuations
from anatomy.sites import Site, heads, modules

LAYERS, HEADS, WIDTH, MAX_LENGTH = 3, 2, 16, 16
PROMPTS = [[3, 5, 8], [7], [1, 1, 4, 9, 30, 12, 11, 2, 40], [42, 6], [3, 5, 8], [20, 21, 22, 23, 24]]
SITES = [*heads(LAYERS, HEADS), *modules(LAYERS)]


@pytest.fixture
def model(make_model: Callable) -> GPT2LMHeadModel:
    return make_model(layers=LAYERS, heads=HEADS, width=WIDTH).double()


@pytest.fixture
def constants() -> dict[Site, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        site: torch.randn(WIDTH // HEADS if site.part == "head" else WIDTH, generator=generator).double()
        for site in SITES
    }


def plain_loop(model: GPT2LMHeadModel, prompts: list, constants: dict[Site, Tensor]) -> dict[Site, list[list[int]]]:
    return {
        site: greedy(model, prompts, max_length=MAX_LENGTH, pad=0, edits={site: replace_with(value)})
        for site, value in constants.items()
    }


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_sweep_equals_the_plain_loop(attention: str, model: GPT2LMHeadModel, constants: dict[Site, Tensor]) -> None:
    model.set_attn_implementation(attention)
    found = swept_continuations(model, PROMPTS, constants, max_length=MAX_LENGTH, pad=0)
    assert found == plain_loop(model, PROMPTS, constants)
    assert list(found) == list(constants)
    unedited = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0)
    assert all(texts != unedited for texts in found.values())
    assert len({str(texts) for texts in found.values()}) > len(SITES) / 2  # and most sites have an effect of their own


def test_it_equals_the_plain_loop_where_texts_end(model: GPT2LMHeadModel, constants: dict[Site, Tensor]) -> None:
    written = swept_continuations(model, PROMPTS, constants, max_length=MAX_LENGTH, pad=0)
    model.config.eos_token_id = written[Site(1, "mlp")][2][1]
    found = swept_continuations(model, PROMPTS, constants, max_length=MAX_LENGTH, pad=0)
    assert found == plain_loop(model, PROMPTS, constants)
    assert len(found[Site(1, "mlp")][2]) <= 1
    assert found != written


@pytest.mark.parametrize("rows", [1, 2, 7, 11])
def test_the_batch_size_changes_nothing(rows: int, model: GPT2LMHeadModel, constants: dict[Site, Tensor]) -> None:
    whole = swept_continuations(model, PROMPTS, constants, max_length=MAX_LENGTH, pad=0)
    sizes: list[int] = []
    handle = model.transformer.h[-1].register_forward_hook(lambda _, args, output: sizes.append(len(args[0])))
    assert swept_continuations(model, PROMPTS, constants, max_length=MAX_LENGTH, pad=0, rows=rows) == whole
    handle.remove()
    assert max(sizes) <= rows


def test_prompts_of_one_length_need_no_mask(model: GPT2LMHeadModel, constants: dict[Site, Tensor]) -> None:
    prompts = [[1, 2, 3, 4], [9, 8, 7, 6], [5, 5, 5, 5]]
    found = swept_continuations(model, prompts, constants, max_length=MAX_LENGTH, pad=0)
    assert found == plain_loop(model, prompts, constants)


@pytest.mark.parametrize("site", SITES, ids=str)
def test_a_single_site_equals_the_plain_run(site: Site, model: GPT2LMHeadModel, constants: dict[Site, Tensor]) -> None:
    one = {site: constants[site]}
    assert swept_continuations(model, PROMPTS, one, max_length=MAX_LENGTH, pad=0) == plain_loop(model, PROMPTS, one)


def evaluations(model: GPT2LMHeadModel, work: Callable[[], object]) -> int:
    """Blocks times rows times positions that the work runs."""
    count = 0

    def add(_: object, args: tuple, __: object) -> None:
        nonlocal count
        count += args[0].shape[0] * args[0].shape[1]

    handles = [block.register_forward_hook(add) for block in model.transformer.h]
    work()
    for handle in handles:
        handle.remove()
    return count


@pytest.mark.parametrize(
    "sites", [SITES, modules(LAYERS), [Site(0, "mlp")], [Site(2, "attn"), Site(2, "mlp")]], ids=len
)
def test_the_share_saved_is_what_is_counted(
    sites: list[Site], model: GPT2LMHeadModel, constants: dict[Site, Tensor]
) -> None:
    model.config.eos_token_id = None
    prompts = [[i, i + 1, i + 2, 0, 1, 2] for i in range(4)]
    own = {site: constants[site] for site in sites}
    plain = evaluations(model, lambda: plain_loop(model, prompts, own))
    swept = evaluations(model, lambda: swept_continuations(model, prompts, own, max_length=MAX_LENGTH, pad=0))
    saved = share_saved(sites, LAYERS, prompt=6, written=MAX_LENGTH - 6)
    assert saved == pytest.approx(1 - swept / plain, abs=1e-12)


def test_no_hook_stays(model: GPT2LMHeadModel, constants: dict[Site, Tensor]) -> None:
    unedited = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0)
    swept_continuations(model, PROMPTS, constants, max_length=MAX_LENGTH, pad=0)
    assert greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0) == unedited


def test_other_sites_are_refused(model: GPT2LMHeadModel) -> None:
    with pytest.raises(ValueError, match=r"^layer 1 embed: only attention, MLPs and heads can be swept$"):
        swept_continuations(model, PROMPTS, {Site(0, "embed"): torch.zeros(WIDTH)}, max_length=MAX_LENGTH, pad=0)


def test_a_prompt_without_room_is_refused(model: GPT2LMHeadModel, constants: dict[Site, Tensor]) -> None:
    with pytest.raises(ValueError, match="a prompt of 9 tokens: expected 1 to 8, below max_length"):
        swept_continuations(model, PROMPTS, constants, max_length=9, pad=0)


def test_on_a_gpu_the_texts_are_the_same(model: GPT2LMHeadModel, constants: dict[Site, Tensor]) -> None:
    """The constants come from the CPU; some texts end, so that rows leave the batch."""
    constants = {site: constants[site] for site in (Site(0, "head", 1), Site(1, "mlp"), Site(2, "attn"))}
    free = swept_continuations(model, PROMPTS, constants, max_length=MAX_LENGTH, pad=0)
    model.config.eos_token_id = free[Site(1, "mlp")][2][1]
    expected = swept_continuations(model, PROMPTS, constants, max_length=MAX_LENGTH, pad=0)
    with pretended_gpu():
        model.to("cuda")
        assert swept_continuations(model, PROMPTS, constants, max_length=MAX_LENGTH, pad=0) == expected
    assert expected != free
