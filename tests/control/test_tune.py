"""Tuning: seeded, within its bounds, as many trials as asked, and it finds a minimum that is known."""

import numpy as np
import pytest
import torch
from torch import Tensor

from anatomy.control.tune import Objective, Tuned, scaling, tune

BOUNDS = [(0.05, 1.5), (0.0, 1.2)]


def quadratic(*minimum: float) -> Objective:
    target = torch.tensor(minimum)
    return lambda sigma: ((sigma - target) ** 2).sum(-1).double().numpy()


def tuned(
    objective: Objective, variant: str = "original", *, trials: int = 60, batch: int = 10, seed: int = 0
) -> Tuned:
    return tune(objective, BOUNDS, variant=variant, trials=trials, batch=batch, seed=seed)


def test_scaling_is_a_square_and_in_the_paper_s_variant_keeps_the_sign() -> None:
    factors = torch.tensor([[-1.5, -0.5, 0.0, 2.0]])
    assert scaling(factors, "original").tolist() == [[2.25, 0.25, 0.0, 4.0]]
    assert scaling(factors, "paper").tolist() == [[-2.25, -0.25, 0.0, 4.0]]


@pytest.mark.parametrize(("variant", "minimum"), [("original", (0.6, 1.0)), ("paper", (-0.8, 0.5))])
def test_it_finds_the_minimum_of_a_quadratic(variant: str, minimum: tuple[float, float]) -> None:
    found = tuned(quadratic(*minimum), variant, trials=240, batch=20)
    assert found.sigma.tolist() == pytest.approx(minimum, abs=0.1)
    assert found.objective == pytest.approx(quadratic(*minimum)(found.sigma[None])[0], abs=1e-12)
    assert found.objective < 0.01


def test_the_original_cannot_reach_a_negative_factor() -> None:
    found = tuned(quadratic(-1.0, -1.0), trials=100)
    assert (found.sigma >= 0).all() and found.objective >= 2


def test_it_is_seeded() -> None:
    one, again, other = (tuned(quadratic(0.6, 1.0), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.sigma, again.sigma) and one.objective == again.objective
    assert not torch.equal(one.sigma, other.sigma)


def test_a_63_bit_seed_is_taken() -> None:
    assert tuned(quadratic(0.6, 1.0), trials=5, seed=2**63 - 1).trials == 5


@pytest.mark.parametrize("variant", ["original", "paper"])
def test_every_trial_is_asked_once_and_within_bounds_and_the_best_is_kept(variant: str) -> None:
    seen: list[Tensor] = []
    values: list[np.ndarray] = []

    def objective(sigma: Tensor) -> np.ndarray:
        seen.append(sigma)
        values.append(quadratic(0.6, 1.0)(sigma))
        return values[-1]

    found = tuned(objective, variant, trials=47, batch=10)
    assert [len(s) for s in seen] == [10, 10, 10, 10, 7] and found.trials == 47
    everything, best = torch.cat(seen), int(np.concatenate(values).argmin())
    assert torch.equal(found.sigma, everything[best])
    for (low, high), sigma in zip(BOUNDS, everything.T, strict=True):
        assert sigma.max() <= high**2 + 1e-6
        assert sigma.min() >= (low**2 if variant == "original" else -(high**2)) - 1e-6
