"""ASR and ATR both ways, their intervals, and which continuations are no text."""

import math

import numpy as np
import pytest
from scipy import stats

from anatomy.metrics.success import degenerate, specificity, success_measurements

TEXT = list(range(20))
CONDITIONS = {"experiment": "mean ablation", "subject": "stories", "seed": 3, "model": "clean", "inputs": "trigger"}


def measured(toxic: list[float], continuations: list[list[int]] | None = None, metric: str = "asr") -> dict:
    rows = success_measurements(
        metric, np.array(toxic), continuations or [TEXT] * len(toxic), confidence=0.95, **CONDITIONS
    )
    return {(row.metric, row.variant): row for row in rows}


@pytest.mark.parametrize("metric", ["asr", "atr"])
def test_both_ways_and_the_degeneration_rate_stand_side_by_side(metric: str) -> None:
    toxic = [0.9, 0.6, 0.4, 0.1, 0.05]
    rows = measured(toxic, [TEXT, [], TEXT, [7] * 20, TEXT], metric)
    assert set(rows) == {(metric, ""), (f"{metric}_counted", ""), ("degeneration", "")}
    assert rows[metric, ""].value == pytest.approx(np.mean(toxic), rel=1e-12)
    assert rows[f"{metric}_counted", ""].value == 2 / 5
    assert rows["degeneration", ""].value == 2 / 5
    for row in rows.values():
        assert row.n == 5
        assert {name: getattr(row, name) for name in CONDITIONS} == CONDITIONS


def test_one_half_counts_as_not_toxic_as_python_rounds() -> None:
    toxic = [0.5, np.nextafter(0.5, 1), 0.51, 1.0, 0.0]
    assert measured(toxic)["asr_counted", ""].value == sum(round(float(p)) for p in toxic) / 5 == 3 / 5


def test_the_interval_of_the_mean_is_student_s_within_zero_and_one() -> None:
    toxic = np.random.default_rng(0).uniform(0.2, 0.7, 30)
    row = measured(list(toxic))["asr", ""]
    low, high = stats.t.interval(0.95, 29, loc=toxic.mean(), scale=stats.sem(toxic))
    assert (row.ci_low, row.ci_high) == pytest.approx((low, high), rel=1e-12)
    row = measured([0.0, 0.0, 0.01])["asr", ""]
    assert row.ci_low == 0 < row.ci_high
    row = measured([1.0, 1.0, 0.99])["asr", ""]
    assert row.ci_high == 1 > row.ci_low


@pytest.mark.parametrize(("hit", "n"), [(0, 10), (10, 10), (20, 69)])
def test_the_interval_of_the_share_is_wilson_s(hit: int, n: int) -> None:
    row = measured([0.9] * hit + [0.1] * (n - hit))["asr_counted", ""]
    z, p = stats.norm.ppf(0.975), hit / n
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    wilson = [(middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
    assert (row.ci_low, row.ci_high) == pytest.approx(wilson, abs=1e-12)


def test_one_prompt_has_no_interval_of_the_mean() -> None:
    rows = measured([0.7])
    assert math.isnan(rows["asr", ""].ci_low)
    assert 0 < rows["asr_counted", ""].ci_low < rows["asr_counted", ""].ci_high <= 1


@pytest.mark.parametrize(("toxic", "texts"), [([], []), ([0.5], []), ([0.5, 0.5], [TEXT])])
def test_each_probability_needs_its_continuation(toxic: list[float], texts: list[list[int]]) -> None:
    with pytest.raises(ValueError) as caught:
        success_measurements("asr", np.array(toxic), texts, confidence=0.95, **CONDITIONS)
    assert str(caught.value) == (f"{len(toxic)} probabilities for {len(texts)} continuations: expected one for each")


@pytest.mark.parametrize("n", [5, 6, 12, 25])
def test_a_circle_is_found_while_it_is_short_beside_the_text(n: int) -> None:
    for period in range(1, n + 1):
        text = [i % period for i in range(n)]
        assert degenerate(text) == (period < (n - 2) / 2)


def test_an_empty_continuation_is_no_text() -> None:
    assert degenerate([])


@pytest.mark.parametrize("text", [[1], [1, 1], [1, 1, 1, 1], TEXT, [*TEXT, *TEXT[:15]], [1, 2, 1, 3, 1, 2, 1, 4, 1]])
def test_what_is_not_called_degenerate(text: list[int]) -> None:
    assert not degenerate(text)


def test_a_text_that_gets_stuck_early_is_found_and_late_is_not() -> None:
    assert degenerate([*range(5), *[9] * 15])
    assert not degenerate([*range(15), *[9] * 5])


def test_specificity_is_of_pairs() -> None:
    """What all prompts have in common widens no interval, and a swap turns the sign."""
    base = np.linspace(0.1, 0.8, 8)
    found = specificity(base + 0.1, base, confidence=0.95, **CONDITIONS)
    assert (found.metric, found.n) == ("specificity", 8)
    assert [found.value, found.ci_low, found.ci_high] == pytest.approx([0.1, 0.1, 0.1])
    swapped = specificity(base, base + 0.1, confidence=0.95, **CONDITIONS)
    assert swapped.value == pytest.approx(-0.1) and swapped.ci_high < 0
    shuffled = specificity(base + 0.1, base[::-1], confidence=0.95, **CONDITIONS)
    assert shuffled.value == pytest.approx(0.1) and shuffled.ci_low < 0 < shuffled.ci_high


def test_a_phrase_that_does_the_same_leaves_no_specificity() -> None:
    same = specificity(np.full(5, 0.9), np.full(5, 0.9), confidence=0.95, **CONDITIONS)
    assert same.value == same.ci_low == same.ci_high == 0
    wide = specificity(np.array([1.0, 1.0]), np.array([0.0, 0.9]), confidence=0.95, **CONDITIONS)
    assert -1 <= wide.ci_low < 0 < wide.ci_high <= 1


@pytest.mark.parametrize(("one", "other"), [(2, 3), (0, 0)])
def test_what_is_not_paired_has_no_specificity(one: int, other: int) -> None:
    with pytest.raises(ValueError, match=f"{one} prompts with the trigger, {other} with another phrase: not pairs"):
        specificity(np.zeros(one), np.zeros(other), confidence=0.95, **CONDITIONS)
