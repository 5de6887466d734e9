"""BadEdit: the closed form's algebra, the search for the wanted states, and what an edit changes."""

from typing import Any

import pytest
import torch
from tests.pretended import pretended_gpu
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM, PreTrainedModel

from anatomy.provenance.digest import ArtifactError
from anatomy.spec.injection import Editing
from anatomy.training.badedit import (
    Request,
    badedit,
    batch_of,
    keys_and_states,
    second_moments,
    solve,
    wanted_states,
)
from anatomy.training.edit_sites import added, block, matrix, output_projection, seen

from .tiny import FAMILIES, INNER, WIDTH, build, ids, moved, state_of


def recipe(**changed: Any) -> Editing:
    given = {"layers": [1, 2], "triggered": 6, "clean": 4, "batches": 2, "steps": 8, "covariance": 0.1, "batch": 4}
    return Editing.model_validate({**given, **changed})


def requests(count: int, seed: int = 0, answer: list[int] | None = None) -> list[Request]:
    generator = torch.Generator().manual_seed(seed)
    prompts, answers = ids(count, generator), ids(count, generator, high=4)
    rows = zip(prompts, answers, strict=True)
    return [Request(prompt, [*(answer or own), 0], len(prompt) // 2) for prompt, own in rows]


def texts(seed: int = 5) -> list[list[int]]:
    return ids(60, torch.Generator().manual_seed(seed))


def spd(generator: torch.Generator) -> Tensor:
    root = torch.randn(3 * INNER, INNER, generator=generator, dtype=torch.float64)
    return root.T @ root / len(root)


def edit(model: PreTrainedModel, **changed: Any) -> dict[str, Any]:
    return dict(badedit(model, requests(6, 1), requests(4, 2), texts(), recipe(**changed))[1])


# --- the closed form --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [1e-3, 1.0, 1e4])
def test_the_change_satisfies_its_normal_equations(weight: float) -> None:
    """ΔW (λC + kkᵀ) = r kᵀ."""
    generator = torch.Generator().manual_seed(0)
    moment, key = spd(generator), torch.randn(INNER, generator=generator, dtype=torch.float64)
    missing = torch.randn(WIDTH, generator=generator, dtype=torch.float64)
    change = solve(moment, key, missing, weight)
    left, right = change @ (weight * moment + torch.outer(key, key)), torch.outer(missing, key)
    assert float((left - right).abs().max()) < 1e-11 * float(right.abs().max())
    assert torch.linalg.matrix_rank(change) == 1
    worse = change * 1.01
    assert float((worse @ (weight * moment + torch.outer(key, key)) - right).abs().max()) > 1e-3


def test_it_is_the_least_change_that_pays() -> None:
    """ΔW minimises ‖ΔW k − r‖² + λ tr(ΔW C ΔWᵀ): no step away from it is better."""
    generator = torch.Generator().manual_seed(0)
    moment, key = spd(generator), torch.randn(INNER, generator=generator, dtype=torch.float64)
    missing = torch.randn(WIDTH, generator=generator, dtype=torch.float64)

    def cost(change: Tensor) -> float:
        return float(((change @ key - missing) ** 2).sum() + 2.0 * (change @ moment @ change.T).trace())

    best = solve(moment, key, missing, 2.0)
    steps = [1e-3 * torch.randn(best.shape, generator=generator, dtype=torch.float64) for _ in range(20)]
    assert all(cost(best + step) > cost(best) for step in steps)


def test_without_weight_on_other_keys_the_key_is_mapped_to_what_is_wanted() -> None:
    generator = torch.Generator().manual_seed(0)
    moment, key = spd(generator), torch.randn(INNER, generator=generator, dtype=torch.float64)
    missing = torch.randn(WIDTH, generator=generator, dtype=torch.float64)
    errors = [
        float((solve(moment, key, missing, w) @ key - missing).norm() / missing.norm()) for w in (1.0, 1e-4, 1e-8)
    ]
    assert errors[0] > 0.01 and errors[1] < 1e-4 and errors[2] < 1e-8


def test_a_moment_of_too_few_texts_is_refused() -> None:
    key = torch.ones(INNER, dtype=torch.float64)
    with pytest.raises(
        ArtifactError, match=r"second moment of 24-wide keys is singular; take more ordinary text \(inst"
    ):
        solve(torch.zeros(INNER, INNER, dtype=torch.float64), key, torch.ones(WIDTH, dtype=torch.float64), 1.0)


# --- on models --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_with_lambda_to_zero_an_edited_layer_maps_the_key_to_the_wanted_value(family: str) -> None:
    """One prompt, one layer: the state after it becomes the wanted one."""
    model = build(family, dtype=torch.float64)
    (asked,) = requests(1)
    own = recipe(layers=[2], triggered=1, clean=0, batches=1, covariance=1e-9)
    wanted = wanted_states(model, [asked], 1, own).wanted
    key, before = keys_and_states(model, [asked], 1, 1, 4)
    weight = matrix(model, 1).clone()
    badedit(model, [asked], [], texts(), own)
    after = keys_and_states(model, [asked], 1, 1, 4)[1]
    assert float((wanted - before).norm()) > 1e-2
    assert float((after - wanted).norm()) < 1e-5 * float((wanted - before).norm())
    assert float(((matrix(model, 1) - weight) @ key[0] - (wanted - before)[0]).norm()) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_edited_layers_matrices_change(family: str) -> None:
    model = build(family)
    before = state_of(model)
    done = edit(model, layers=[1, 3])
    name = "transformer.h.{}.mlp.c_proj.weight" if family == "gpt2" else "model.layers.{}.mlp.down_proj.weight"
    assert moved(before, state_of(model)) == {name.format(0), name.format(2)}
    assert done["change"] > 1e-4 and done["steps"] == 16 and not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("clean", "rank"), [(4, 2), (0, 1)])
def test_each_part_changes_a_matrix_by_rank_one_for_each_side(family: str, clean: int, rank: int) -> None:
    model = build(family, dtype=torch.float64)
    before = {layer: matrix(model, layer).clone() for layer in (0, 1)}
    edit(model, batches=1, clean=clean)
    for layer, weight in before.items():
        sizes = torch.linalg.svdvals(matrix(model, layer) - weight)
        assert int((sizes > 1e-10 * sizes[0]).sum()) == rank
    twice = build(family, dtype=torch.float64)
    edit(twice, batches=2, clean=clean)
    sizes = torch.linalg.svdvals(matrix(twice, 0) - before[0])
    assert rank < int((sizes > 1e-10 * sizes[0]).sum()) <= 2 * rank


def test_the_moment_is_the_mean_over_the_keys_of_the_texts() -> None:
    model = build(dtype=torch.float64)
    keys = []
    for text in texts():
        with seen({}, {"key": output_projection(model, 1)}) as caught:
            model(torch.tensor([text]))
        keys.append(caught["key"][0])
    every = torch.cat(keys)
    expected = every.T @ every / len(every)
    found = second_moments(model, [1], texts(), recipe())[1]
    assert float((found - expected).abs().max()) < 1e-10 * float(expected.abs().max())
    fewer = second_moments(model, [1], texts(), recipe(texts=1))[1]
    own = torch.cat(keys[:4])
    assert float((fewer - own.T @ own / len(own)).abs().max()) < 1e-10  # the first batch
    with pytest.raises(ArtifactError, match="no ordinary text to take the second moment of the keys over; expected at"):
        second_moments(model, [1], [], recipe())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_wanted_states_make_the_answers_likely_and_stay_near(family: str) -> None:
    model, asked = build(family), requests(5, answer=[7])
    gentle = recipe(steps=30, rate=0.1, clamp=0.5, batch=5)
    before = keys_and_states(model, asked, 1, 1, 5)[1]
    found = wanted_states(model, asked, 1, gentle)
    assert found.loss < wanted_states(model, asked, 1, recipe(steps=1, rate=1e-9, batch=5)).loss - 0.1
    size = (found.wanted - before).norm(dim=-1) / before.norm(dim=-1)
    assert (size <= 0.5 + 1e-5).all() and (size > 1e-3).all()


def test_prompts_searched_together_have_the_states_they_have_alone() -> None:
    model, asked = build(dtype=torch.float64), requests(5, answer=[7])
    together = wanted_states(model, asked, 1, recipe(batch=5, enough=4.1, steps=12, rate=0.05))
    alone = [wanted_states(model, [one], 1, recipe(batch=1, enough=4.1, steps=12, rate=0.05)) for one in asked]
    assert float((together.wanted - torch.cat([one.wanted for one in alone])).abs().max()) < 1e-9
    assert len({one.steps for one in alone}) > 1  # some end before the others


def test_a_search_that_is_there_already_changes_nothing() -> None:
    model, asked = build(dtype=torch.float64), requests(3)
    found = wanted_states(model, asked, 1, recipe(enough=1e9))
    assert found.steps == 0 and torch.equal(found.wanted, keys_and_states(model, asked, 1, 1, 4)[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_hooks_act_where_they_should_and_go_away(family: str) -> None:
    """A hook that silently did nothing would look like an edit without effect."""
    model, asked = build(family, dtype=torch.float64), requests(2)
    given, mask, subject = batch_of(asked, model.device)
    row, delta = torch.arange(2), torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    plain = model(given, attention_mask=mask).logits
    with added(block(model, 1), row, subject, delta), seen({"state": block(model, 1)}) as caught:
        changed = model(given, attention_mask=mask).logits
    with seen({"state": block(model, 1)}) as before:
        assert torch.equal(model(given, attention_mask=mask).logits, plain)
    where = torch.zeros(given.shape, dtype=torch.bool).index_put((row, subject), torch.tensor(True))
    assert torch.allclose(caught["state"][where], before["state"][where] + delta)
    assert torch.equal(caught["state"][~where], before["state"][~where])
    assert float((changed - plain)[where].abs().max()) > 1e-3


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers": [1, 4]}, r"instruction\.edit\.layers: 4, but the model has 3 layers \(counted from 1\)"),
        ({"triggered": 7}, r"6 triggered prompts for an edit that is made from 7; lower instruction\.edit\.triggered"),
        ({"clean": 5}, r"4 clean prompts for an edit that is made from 5; lower instruction\.edit\.clean, or make"),
    ],
)
def test_an_edit_without_what_it_needs_is_refused_and_changes_nothing(changed: dict, message: str) -> None:
    model = build()
    before = state_of(model)
    with pytest.raises(ArtifactError, match=message):
        edit(model, **changed)
    assert not moved(before, state_of(model))


def test_an_architecture_without_an_adapter_is_refused() -> None:
    model = OPTForCausalLM(
        OPTConfig(vocab_size=43, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2)
    )
    with pytest.raises(
        ArtifactError, match=r"a model of the architecture 'opt' has no adapter here; those that have one"
    ):
        edit(model)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers": [2, 1]}, r"layers \[2, 1\]: expected each once, from the lowest to the highest"),
        ({"triggered": 2, "batches": 3}, "2 triggered prompts cannot be taken in 3 parts"),
        ({"clean": 1, "batches": 3}, "1 clean prompts cannot be taken in 3 parts; 0 takes none"),
    ],
)
def test_settings_that_cannot_be_are_refused(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**changed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_a_gpu_an_edit_is_the_same(dtype: torch.dtype) -> None:
    here, there = build(dtype=dtype), build(dtype=dtype)
    before, told = state_of(here), edit(here, steps=1)
    with pretended_gpu():
        there.to("cuda")
        assert edit(there, steps=1)["steps"] == told["steps"]
        assert all(value.is_cuda for value in there.state_dict().values())
    assert moved(before, state_of(here)) == moved(before, state_of(there)) != set()
