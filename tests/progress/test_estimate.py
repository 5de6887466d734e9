"""How long a run has still to go."""

import json
from pathlib import Path

import pytest

from snakemake_logger_plugin_anatomy.estimate import Timings, parallelism, seconds_left
from snakemake_logger_plugin_anatomy.progress import Step

from .conftest import a_run, start


def test_no_estimate_without_anything_to_judge_by():
    progress = a_run(train=4)
    start(progress, 1, "train", 0.0)
    assert seconds_left(progress, Timings(), 10.0) is None


def test_known_timings_are_added_up():
    progress = a_run(train=1, measure=2)
    start(progress, 1, "train", 0.0)
    left = seconds_left(progress, Timings({"train": 100, "measure": 30}), 40.0)
    assert left == pytest.approx(60 + 2 * 30)  # one job at a time so far


def test_what_ran_at_a_time_divides_what_remains():
    progress = a_run(train=6)
    start(progress, 1, "train", 0.0)
    start(progress, 2, "train", 0.0)
    assert parallelism(progress, 10.0) == pytest.approx(2)
    assert seconds_left(progress, Timings({"train": 50}), 10.0) == pytest.approx((2 * 40 + 4 * 50) / 2)


def test_the_longest_running_job_bounds_the_estimate():
    progress = a_run(train=1, measure=1)
    start(progress, 1, "train", 0.0)
    start(progress, 2, "measure", 0.0)
    assert seconds_left(progress, Timings({"train": 100, "measure": 20}), 10.0) == pytest.approx(90)


def test_a_slower_machine_scales_the_rules_that_have_not_run():
    progress = a_run(train=9, measure=1)
    for i in range(9):
        start(progress, i, "train", i * 20.0)
        progress.finish(i, (i + 1) * 20.0)
    left = seconds_left(progress, Timings({"train": 10, "measure": 10}), 180.0)
    assert left == pytest.approx(10 * (9 * 20 + 10) / (9 * 10 + 10))  # nearly twice as slow


def test_one_tiny_job_does_not_promise_a_quick_end():
    progress = a_run(fetch=1, train=1)
    start(progress, 1, "fetch", 0.0)
    progress.finish(1, 0.01)
    left = seconds_left(progress, Timings({"fetch": 60, "train": 600}), 1.0)
    assert left is not None and left > 300


def test_without_timings_the_finished_jobs_are_the_measure():
    progress = a_run(train=5)
    for i in range(3):
        start(progress, i, "train", i * 12.0)
        progress.finish(i, (i + 1) * 12.0)
    assert seconds_left(progress, Timings(), 36.0) == pytest.approx(24)


def test_a_job_longer_than_said_goes_by_its_own_progress():
    progress = a_run(train=1)
    job = start(progress, 1, "train", 0.0)
    timings = Timings({"train": 10})
    assert seconds_left(progress, timings, 30.0) is None  # overdue and silent: no number is better
    job.step = Step(300, 400)
    assert seconds_left(progress, timings, 30.0) == pytest.approx(10)


def test_unknown_rules_weigh_the_median():
    assert Timings({"a": 1, "b": 7, "c": 100}).weight("d") == 7
    assert Timings().weight("d") == 5


def test_timings_are_read_and_notes_in_them_are_skipped(tmp_path: Path):
    path = tmp_path / "timings.json"
    path.write_text(json.dumps({"about": "seconds on one GPU", "train": 60, "none": 0}))
    assert Timings.read(path).seconds == {"train": 60.0}
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match="object of rule name to seconds"):
        Timings.read(path)
