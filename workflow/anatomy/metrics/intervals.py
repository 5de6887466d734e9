"""Intervals: of a mean over prompts, of a mean over seeds, and for one further seed."""

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean with its confidence interval, and the interval in which one further value is expected."""

    mean: float
    low: float
    high: float
    predicted_low: float
    predicted_high: float
    n: int


def student(values: np.ndarray, confidence: float) -> Estimate:
    """Student's t interval of the mean, and the prediction interval m ± t s sqrt(1 + 1/n).

    With one value both intervals are unknown (NaN).
    """
    values = np.asarray(values, dtype=float)
    n, mean = len(values), float(values.mean())
    if n < 2:
        return Estimate(mean, np.nan, np.nan, np.nan, np.nan, n)
    t, s = float(stats.t.ppf((1 + confidence) / 2, n - 1)), float(values.std(ddof=1))
    half, wide = t * s / np.sqrt(n), t * s * np.sqrt(1 + 1 / n)
    return Estimate(mean, mean - half, mean + half, mean - wide, mean + wide, n)
