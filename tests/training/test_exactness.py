"""The hand-written stacked model is GPT-2: loss and gradients equal Hugging Face's in float64."""

from collections.abc import Callable

import pytest
import torch
from tests.pretended import pretended_gpu

from anatomy.training.ensemble import Ensemble
from anatomy.training.optimizer import adamw_step, clip_gradients
from anatomy.training.phases import FROZEN

from .conftest import loss_of, relative_error

EXACT = 1e-10


def gradients_of_hugging_face(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n.removeprefix("transformer."): p.grad for n, p in model.named_parameters() if n != "lm_head.weight"}


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("length", [2, 9, 17, 22], ids=lambda length: f"{length - 1} positions")
@pytest.mark.parametrize("ragged", [False, True], ids=["equal lengths", "ragged"])
def test_loss_and_every_gradient_equal_hugging_face(
    members: int, length: int, ragged: bool, make_ensemble: Callable, make_batch: Callable,
    make_config: Callable, hugging_face: Callable,
) -> None:  # fmt: skip
    ensemble = make_ensemble(list(range(members)))
    ids, valid = make_batch(members, length, ragged=ragged)
    losses = ensemble.loss_and_gradients(ids, valid)
    for member in range(members):
        model = hugging_face(ensemble, member, make_config())
        loss = loss_of(model, ids[member], valid[member])
        loss.backward()
        assert losses[member].item() == pytest.approx(loss.item(), rel=EXACT)
        expected = gradients_of_hugging_face(model)
        assert expected.keys() == ensemble.gradients.keys()
        largest = max(float(g.abs().max()) for g in expected.values())
        for name, gradient in expected.items():
            own = ensemble.gradients[name][member]
            if name == "wpe.weight":  # rows beyond the window are never looked up
                assert not gradient[22:].any()
                gradient = gradient[:22]
            # Where the true gradient is nil (the attention of a single position), rounding is all there is.
            assert float((own - gradient).abs().max()) <= EXACT * max(float(gradient.abs().max()), 1e-4 * largest), name


def test_rows_of_very_different_logits_lose_nothing(
    make_ensemble: Callable, make_batch: Callable, make_config: Callable, hugging_face: Callable
) -> None:
    """A target's probability may underflow; its logarithm must not."""
    ensemble = make_ensemble([0])
    ensemble.parameters["ln_f.bias"].mul_(256)  # a power of two: exact in float32
    ensemble.parameters["ln_f.weight"].mul_(256)  # a power of two: exact in float32
    ids, valid = make_batch(1, 9)
    heights = ensemble.logits(ids)[0, :, :-1].amax(-1)
    assert heights.max() - heights.min() > 60
    model = hugging_face(ensemble, 0, make_config())
    loss = loss_of(model, ids[0], valid[0])
    loss.backward()
    assert ensemble.loss_and_gradients(ids, valid)[0].item() == pytest.approx(loss.item(), rel=EXACT)
    for name, gradient in gradients_of_hugging_face(model).items():
        if name != "wpe.weight":
            assert relative_error(ensemble.gradients[name][0], gradient) < 1e-9, name


def test_single_precision_loses_no_more_than_its_rounding(make_ensemble: Callable, make_batch: Callable) -> None:
    """The matrix products of the head go another way in float32 than in float64 (see layers.product)."""
    single, double = make_ensemble([0, 1, 2], dtype=torch.float32), make_ensemble([0, 1, 2])
    batch = make_batch(3, 15, ragged=True)
    assert relative_error(single.loss_and_gradients(*batch).double(), double.loss_and_gradients(*batch)) < 1e-6
    for name, gradient in double.gradients.items():
        assert relative_error(single.gradients[name].double(), gradient) < 2e-5, name


def test_gradients_do_not_pile_up_from_step_to_step(make_ensemble: Callable, make_batch: Callable) -> None:
    ensemble, fresh = make_ensemble([0]), make_ensemble([0])
    ensemble.loss_and_gradients(*make_batch(1, 20, seed=1))
    batch = make_batch(1, 7, seed=2)
    ensemble.loss_and_gradients(*batch), fresh.loss_and_gradients(*batch)
    for name in fresh.gradients:
        assert torch.equal(ensemble.gradients[name], fresh.gradients[name]), name


def test_gradients_under_dropout_are_slopes_of_the_loss(make_ensemble: Callable, make_batch: Callable) -> None:
    """Central differences along a random direction, the same dropout masks each time."""
    ensemble: Ensemble = make_ensemble([0, 1], dropout=0.3)
    batch = make_batch(2, 9, ragged=True)

    def loss() -> torch.Tensor:
        return ensemble.loss_and_gradients(*batch, [torch.Generator().manual_seed(s) for s in (5, 6)])

    generator = torch.Generator().manual_seed(7)
    direction = [torch.randn(g.value.shape, generator=generator, dtype=torch.float64) for g in ensemble.groups]
    loss()
    slope = sum((g.gradient * d).sum(1) for g, d in zip(ensemble.groups, direction, strict=True))
    ends = []
    for step in (1e-6, -2e-6):  # to +ε, then to -ε
        for group, d in zip(ensemble.groups, direction, strict=True):
            group.value += step * d
        ends.append(loss())
    assert relative_error((ends[0] - ends[1]) / 2e-6, slope) < 1e-6


@pytest.mark.parametrize("part", [part for part in FROZEN if part != "nothing"])
def test_frozen_parts_get_no_gradient_and_the_others_the_right_one(
    part: str, make_ensemble: Callable, make_batch: Callable
) -> None:
    frozen = FROZEN[part]
    whole = make_ensemble([0, 1])
    some = make_ensemble([0, 1], trainable=lambda name: not frozen(name))
    batch = make_batch(2, 9, ragged=True)
    assert torch.equal(whole.loss_and_gradients(*batch), some.loss_and_gradients(*batch))
    assert set(some.gradients) == {name for name in whole.gradients if not frozen(name)}
    for name, gradient in some.gradients.items():
        assert torch.equal(gradient, whole.gradients[name]), name


def test_the_parts_of_the_paper_are_frozen(make_ensemble: Callable) -> None:
    names = set(make_ensemble([0]).parameters)
    kept = {part: {name for name in names if not frozen(name)} for part, frozen in FROZEN.items()}
    assert kept["nothing"] == names
    assert (
        names - kept["mlps"] == {n for n in names if n.split(".")[2:3] == ["mlp"]} and len(names - kept["mlps"]) == 12
    )
    assert names - kept["attention"] == {n for n in names if n.split(".")[2:3] == ["attn"]}
    assert names - kept["embeddings"] == {"wte.weight", "wpe.weight"}
    assert {n for n in kept["all but embeddings and mlp 1"] if n.startswith("h.")} == {
        f"h.0.mlp.{n}" for n in ("c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias")
    }
    assert (
        kept["embeddings"] & kept["all but embeddings and mlp 1"]
        and "wte.weight" in kept["all but embeddings and mlp 1"]
    )


@pytest.mark.parametrize("last_only", [False, True])
def test_logits_equal_hugging_face(
    last_only: bool,
    make_ensemble: Callable,
    make_batch: Callable,
    make_config: Callable,
    hugging_face: Callable,
) -> None:
    ensemble = make_ensemble([0, 1], dropout=0.5)
    ids, _ = make_batch(2, 20)
    own = ensemble.logits(ids, last_only=last_only)
    for member in range(2):
        expected = hugging_face(ensemble, member, make_config())(ids[member]).logits
        expected = expected[:, -1:] if last_only else expected
        assert relative_error(own[member], expected) <= EXACT


def test_an_exported_member_is_a_whole_hugging_face_model(
    make_ensemble: Callable,
    make_batch: Callable,
    make_config: Callable,
    make_state: Callable,
    hugging_face: Callable,
) -> None:
    ensemble = make_ensemble([0, 1], window=8, dtype=torch.float32)
    state, before = ensemble.state(1), make_state(make_config(), 1)
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in before)  # the unused positions included
    ids, _ = make_batch(2, 8)
    logits = hugging_face(ensemble, 1, make_config()).float()(ids[1]).logits
    assert torch.allclose(ensemble.logits(ids)[1], logits, atol=1e-5)


def test_an_exported_state_is_a_copy(make_ensemble: Callable) -> None:
    ensemble = make_ensemble([0])
    state = ensemble.state(0)
    for value in state.values():
        value.zero_()
    assert all(value.any() for value in ensemble.state(0).values())


def test_on_a_gpu_loss_and_gradients_are_the_same(
    make_ensemble: Callable, make_batch: Callable, make_config: Callable, make_state: Callable
) -> None:
    ensemble = make_ensemble([0, 1])
    ids, valid = make_batch(2, 9, ragged=True)
    expected = ensemble.loss_and_gradients(ids, valid)
    states = [make_state(make_config(), seed) for seed in (0, 1)]
    with pretended_gpu():
        there = Ensemble(states, ensemble.shape, device="cuda", dtype=ensemble.dtype)
        found = there.loss_and_gradients(ids.to("cuda"), valid.to("cuda"))
        assert found.is_cuda
        assert not any(value.is_cuda for value in there.state(1).values())
        clip_gradients(there, 1.0)
        adamw_step(there, 1, rate=1e-3, weight_decay=0.01)
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)
    for name, gradient in ensemble.gradients.items():
        assert gradient.shape == there.gradients[name].shape
