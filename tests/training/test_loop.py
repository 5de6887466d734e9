"""The training loop: every row once an epoch, in an order of its own, looked at when promised."""

from collections.abc import Callable

import pytest
import torch

from anatomy.training.ensemble import Ensemble
from anatomy.training.seeds import derive
from anatomy.training.toy import Schedule, epoch_order, train


def looked_at(ensemble: Ensemble) -> dict[str, list[float]]:
    return {"size": [float(ensemble.parameters["ln_f.weight"][e].sum()) for e in range(ensemble.size)]}


@pytest.fixture
def batches_seen(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The ids of every step, as the model got them."""
    seen: list[torch.Tensor] = []
    real = Ensemble.loss_and_gradients

    def spy(self: Ensemble, ids: torch.Tensor, valid: torch.Tensor, generators: list | None = None) -> torch.Tensor:
        seen.append(ids.clone())
        return real(self, ids, valid, generators)

    monkeypatch.setattr(Ensemble, "loss_and_gradients", spy)
    return seen


def run(ensemble: Ensemble, rows: torch.Tensor, epochs: float = 2, **options: object) -> list[dict]:
    schedule = Schedule(batch=4, rate=1e-2, weight_decay=0.01, clip=1.0, epochs=float(epochs))
    lengths = torch.full(rows.shape[:2], rows.shape[2])
    options = {"seeds": list(range(ensemble.size)), "phase": "clean", "probe": looked_at} | options
    return train(ensemble, rows, lengths, schedule, **options)


def test_every_member_meets_each_of_its_rows_once_an_epoch(
    make_ensemble: Callable, batches_seen: list[torch.Tensor]
) -> None:
    rows = torch.arange(1, 43).view(2, 7, 3)  # every row is unlike the others; 7 rows make batches of 4 and 3
    run(make_ensemble([0, 1]), rows)
    assert [ids.shape[1] for ids in batches_seen] == [4, 3, 4, 3]
    epochs = [torch.cat(batches_seen[:2], dim=1), torch.cat(batches_seen[2:], dim=1)]
    for epoch in epochs:
        for member in range(2):
            assert torch.equal(epoch[member].sort(0).values, rows[member])
    orders = [(epoch[member] - rows[member, 0])[:, 0].tolist() for epoch in epochs for member in range(2)]
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_is_a_function_of_seed_phase_and_epoch() -> None:
    orders = [
        epoch_order(50, *key)
        for key in ((0, "clean", 0), (0, "clean", 0), (1, "clean", 0), (0, "b", 0), (0, "clean", 1))
    ]
    assert torch.equal(orders[0], orders[1])
    assert all(not torch.equal(orders[0], other) for other in orders[2:])
    assert all(torch.equal(order.sort().values, torch.arange(50)) for order in orders)


@pytest.mark.parametrize(("rows", "epochs", "steps"), [(16, 3.0, 12), (17, 2.0, 10), (16, 0.5, 2), (3, 1.0, 1)])
def test_the_number_of_steps(rows: int, epochs: float, steps: int) -> None:
    assert Schedule(batch=4, rate=1.0, weight_decay=0.0, clip=1.0, epochs=epochs).steps(rows) == steps


def test_probes_come_before_the_first_step_regularly_and_at_the_end(
    make_ensemble: Callable, make_batch: Callable
) -> None:
    rows = make_batch(2, 6, batch=20)[0]
    told: list[tuple[int, int]] = []
    curve = run(make_ensemble([0, 1]), rows, 1.4, probes_per_epoch=2, report=lambda *done: told.append(done))
    assert [point["step"] for point in curve] == [0, 2, 4, 6, 7]
    assert "training_loss" not in curve[0] and all(len(point["training_loss"]) == 2 for point in curve[1:])
    assert told == [(2, 7), (4, 7), (6, 7), (7, 7)]


def test_the_training_loss_of_a_point_is_the_mean_since_the_last_one(
    make_ensemble: Callable, make_batch: Callable
) -> None:
    rows = make_batch(1, 6, batch=16)[0]
    fine = run(make_ensemble([0]), rows, 1, probes_per_epoch=4)
    coarse = run(make_ensemble([0]), rows, 1, probes_per_epoch=2)
    losses = [point["training_loss"][0] for point in fine[1:]]
    assert [p["training_loss"][0] for p in coarse[1:]] == pytest.approx([sum(losses[:2]) / 2, sum(losses[2:]) / 2])


def test_probing_does_not_disturb_training(make_ensemble: Callable, make_batch: Callable) -> None:
    rows = make_batch(1, 6, batch=16)[0]
    ends = []
    for probes in (1, 4):
        ensemble = make_ensemble([0], dropout=0.2)
        run(
            ensemble,
            rows,
            1,
            probes_per_epoch=probes,
            probe=lambda e, rows=rows: {"x": e.logits(rows)[:, 0, 0, 0].tolist()},
        )
        ends.append(ensemble.state(0))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_training_lowers_the_loss(make_ensemble: Callable) -> None:
    rows = torch.arange(1, 41).view(1, 5, 8).repeat(1, 4, 1)  # five sequences to learn by heart
    curve = run(make_ensemble([0], dtype=torch.float32), rows, 20)
    assert curve[-1]["training_loss"][0] < 0.5 * curve[1]["training_loss"][0]


def test_seeds_of_different_purposes_differ() -> None:
    purposes = [
        (),
        ("clean", "dropout"),
        ("backdoor", "dropout"),
        ("clean", "order", 0),
        ("clean", "order", 1),
    ]
    derived = [derive(seed, *purpose) for seed in range(20) for purpose in purposes]
    assert len(set(derived)) == len(derived)
    assert all(0 <= value < 2**63 for value in derived)
