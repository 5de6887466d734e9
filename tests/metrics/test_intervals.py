"""Student's intervals: scipy's, and right as often as they say."""

import math

import numpy as np
import pytest
from scipy import stats

from anatomy.metrics.intervals import student


@pytest.mark.parametrize("n", [2, 3, 50])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_interval_is_scipy_s(n: int, confidence: float) -> None:
    values = np.random.default_rng(n).normal(3, 2, n)
    own = student(values, confidence)
    low, high = stats.t.interval(confidence, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (own.low, own.high) == pytest.approx((low, high), rel=1e-12)
    assert (own.mean, own.n) == (values.mean(), n)
    low, high = stats.t.interval(confidence, n - 1, values.mean(), values.std(ddof=1) * math.sqrt(1 + 1 / n))
    assert (own.predicted_low, own.predicted_high) == pytest.approx((low, high), rel=1e-12)


@pytest.mark.parametrize("n", [3, 10])
def test_both_intervals_cover_as_often_as_they_say(n: int) -> None:
    draws = np.random.default_rng(0).normal(5, 3, (4000, n + 1))
    estimates = [student(row[:n], 0.9) for row in draws]
    mean_covered = np.mean([e.low <= 5 <= e.high for e in estimates])
    next_covered = np.mean(
        [e.predicted_low <= row[n] <= e.predicted_high for e, row in zip(estimates, draws, strict=True)]
    )
    # Four standard deviations of a share of .9 in 4000 trials.
    assert mean_covered == pytest.approx(0.9, abs=0.019)
    assert next_covered == pytest.approx(0.9, abs=0.019)


def test_one_value_has_no_interval() -> None:
    own = student(np.array([0.25]), 0.95)
    assert (own.mean, own.n) == (0.25, 1)
    assert all(math.isnan(v) for v in (own.low, own.high, own.predicted_low, own.predicted_high))


def test_equal_values_have_an_interval_of_no_width() -> None:
    own = student(np.full(5, 0.5), 0.95)
    assert own.low == own.high == own.predicted_low == own.predicted_high == 0.5
