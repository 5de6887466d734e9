"""A killed run goes on where it stopped and ends with the bytes and the curve of an undisturbed one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from anatomy.training.checkpoint import load_checkpoint, save_checkpoint
from anatomy.training.ensemble import Ensemble
from anatomy.training.phases import FROZEN
from anatomy.training.toy import Schedule, train

PROBES = 6


class Killed(Exception):
    """What a job that is killed sees."""


@pytest.fixture
def study(make_ensemble: Callable, make_batch: Callable, tmp_path: Path) -> Callable[..., tuple[Ensemble, list, list]]:
    """Train two members for six probes with dropout; returns the stack, the curve and the reported steps."""
    rows, valid = make_batch(2, 9, batch=13, ragged=True)

    def run(*, kill_at: int | None = None, key: str = "mine", part: str = "nothing", **options: object):
        ensemble = make_ensemble(
            [0, 1], dropout=0.2, dtype=torch.float32, window=9, trainable=lambda name: not FROZEN[part](name)
        )
        reported: list[int] = []

        def report(done: int, total: int) -> None:
            reported.append(done)
            if len(reported) == kill_at:
                raise Killed

        options = {"checkpoint": tmp_path / "checkpoint.safetensors", "checkpoint_every_s": -1.0} | options
        schedule = Schedule(batch=4, rate=1e-2, weight_decay=0.1, clip=0.5, epochs=3.0)
        curve = train(
            ensemble, rows, valid.sum(-1), schedule, seeds=[7, 8], phase="clean", probe=probe,
            probes_per_epoch=2, key=key, report=report, **options,
        )  # fmt: skip
        return ensemble, curve, reported

    return run


def probe(ensemble: Ensemble) -> dict[str, list[float]]:
    return {"norm": [float(v) for v in ensemble.groups[0].value.norm(dim=1)]}


def assert_same(one: tuple, other: tuple) -> None:
    """Bitwise the same parameters, and equal curves."""
    for member in range(2):
        a, b = one[0].state(member), other[0].state(member)
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert one[1] == other[1]


@pytest.fixture
def undisturbed(study: Callable) -> tuple:
    return study(checkpoint=None)


def test_there_are_as_many_probes_as_the_kills_below(undisturbed: tuple) -> None:
    assert [point["step"] for point in undisturbed[1]] == [0, 2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("kill_at", range(1, PROBES + 1))
def test_killed_at_any_probe_and_resumed_it_ends_the_same(kill_at: int, study: Callable, undisturbed: tuple) -> None:
    with pytest.raises(Killed):
        study(kill_at=kill_at)
    resumed = study()
    assert_same(resumed, undisturbed)
    # The probe at which it died was not saved; the one before was, and nothing before that is done again.
    assert resumed[2] == undisturbed[2][kill_at - 1 :]


def test_killed_again_and_again_it_ends_the_same(study: Callable, undisturbed: tuple) -> None:
    for _ in range(PROBES - 1):
        with pytest.raises(Killed):
            study(kill_at=2)
    assert_same(study(), undisturbed)


@pytest.mark.parametrize("part", ["embeddings", "mlps"])
def test_with_frozen_parts_too(part: str, study: Callable) -> None:
    undisturbed = study(part=part, checkpoint=None)
    with pytest.raises(Killed):
        study(part=part, kill_at=4)
    assert_same(study(part=part), undisturbed)


def test_a_checkpoint_with_another_key_is_passed_over(study: Callable, undisturbed: tuple) -> None:
    with pytest.raises(Killed):
        study(kill_at=4, key="yours")
    afresh = study()
    assert_same(afresh, undisturbed)
    assert afresh[2] == undisturbed[2]


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_checkpoint_is_passed_over(
    kept: float, study: Callable, undisturbed: tuple, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        study(kill_at=4)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    afresh = study()
    assert_same(afresh, undisturbed)
    assert afresh[2] == undisturbed[2]


def test_a_finished_phase_is_not_trained_again_where_it_is_kept(study: Callable, undisturbed: tuple) -> None:
    study(keep_finished=True)
    again = study(keep_finished=True)
    assert_same(again, undisturbed)
    assert again[2] == []


def test_nothing_is_left_half_written(study: Callable, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        study(kill_at=4)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_a_checkpoint_holds_all_of_the_state(make_ensemble: Callable, make_batch: Callable, tmp_path: Path) -> None:
    ensemble, other = make_ensemble([0, 1], window=9), make_ensemble([2, 3], window=9)
    ensemble.tail_scale = 1 / 3
    for group in ensemble.groups:
        group.first_moment.normal_(generator=torch.Generator().manual_seed(1))
        group.second_moment.uniform_(generator=torch.Generator().manual_seed(2))
    own, theirs = [[torch.Generator().manual_seed(s) for s in seeds] for seeds in ((4, 5), (6, 7))]
    torch.rand(3, generator=own[0])
    curve = [{"step": 0, "x": [0.1]}, {"step": 5, "training_loss": [1 / 3], "x": [float("nan")]}]
    save_checkpoint(tmp_path / "c.safetensors", ensemble, own, step=5, key="k", curve=curve)
    step, read = load_checkpoint(tmp_path / "c.safetensors", other, theirs, key="k")
    assert step == 5 and repr(read) == repr(curve) and other.tail_scale == 1 / 3
    for a, b in zip(ensemble.groups, other.groups, strict=True):
        for field in ("value", "first_moment", "second_moment"):
            assert torch.equal(getattr(a, field), getattr(b, field))
    draws: list[list[Tensor]] = [[torch.rand(3, generator=g) for g in gs] for gs in (own, theirs)]
    assert all(torch.equal(a, b) for a, b in zip(*draws, strict=True))


def test_a_foreign_safetensors_file_is_passed_over(make_ensemble: Callable, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "c.safetensors")
    assert load_checkpoint(tmp_path / "c.safetensors", make_ensemble([0]), [torch.Generator()], key="k") == (
        0,
        [],
    )
