"""Tuning the scaling factors of a PCP replacement with Optuna, many factor vectors per forward pass."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import optuna
import torch
from jaxtyping import Float
from torch import Tensor

from anatomy.variants import Variant

Objective = Callable[[Float[Tensor, "setting rank"]], np.ndarray]


@dataclass(frozen=True)
class Tuned:
    """The best factors: `sigma` [r], the objective there, and how many trials were made."""

    sigma: Float[Tensor, " rank"]
    objective: float
    trials: int


def scaling(factors: Float[Tensor, "*setting rank"], variant: Variant) -> Float[Tensor, "*setting rank"]:
    """σ from the tuned number f.

    variant "original": σ = f², never negative, as in the released code (where `fac` scales p on both sides).
    variant "paper": σ = f |f|, the same scale with a sign: the text puts no restriction on σ.
    """
    return factors**2 if variant == "original" else factors * factors.abs()


def tune(
    objective: Objective,
    bounds: list[tuple[float, float]],
    *,
    variant: Variant,
    trials: int,
    batch: int,
    seed: int,
) -> Tuned:
    """Minimise `objective` over one factor per direction (Optuna's TPE, seeded).

    Trials are asked for in batches of `batch` and evaluated together.

    Args:
        bounds: range of f per factor; for "paper" [-high, high], so that a direction can also be dropped (σ = 0).
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ranges: dict[str, optuna.distributions.BaseDistribution] = {
        f"f{i}": optuna.distributions.FloatDistribution(low if variant == "original" else -high, high)
        for i, (low, high) in enumerate(bounds)
    }
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed % 2**32))
    best, best_value, done = torch.zeros(len(bounds)), np.inf, 0
    while done < trials:
        asked = [study.ask(ranges) for _ in range(min(batch, trials - done))]
        factors = torch.tensor([[trial.params[name] for name in ranges] for trial in asked])
        sigma = scaling(factors, variant)
        values = objective(sigma)
        for trial, value in zip(asked, values, strict=True):
            study.tell(trial, float(value))
        if values.min() < best_value:
            best, best_value = sigma[int(values.argmin())], float(values.min())
        done += len(asked)
    return Tuned(best, best_value, done)
