"""What the logger plugin knows of a run: its jobs, their numbers, which are at work and which have ended."""

import pytest

from snakemake_logger_plugin_anatomy.progress import Job

from .conftest import a_run, start


def test_jobs_are_numbered_as_they_start_and_counted_as_they_end():
    progress = a_run(train=2, measure=1, all=1)
    assert progress.total == 3  # "all" does nothing itself
    first, second = start(progress, 7, "train", 1.0), start(progress, 5, "train", 2.0)
    assert (first.number, second.number) == (1, 2)
    assert progress.finish(5, 4.5) is second
    assert second.seconds(100.0) == 2.5
    assert list(progress.running) == [7]
    assert progress.waiting["measure"] == 1
    assert progress.not_run == 2


def test_a_target_rule_of_any_name_is_not_a_job():
    progress = a_run(train=1, figures=1)
    assert not progress.start(Job(id=0, rule="figures", message="figures", does_work=False), 1.0)
    assert progress.total == 1
    assert progress.finish(0, 2.0) is None


def test_a_rule_called_all_that_does_work_is_a_job():
    progress = a_run(train=1, all=1)
    start(progress, 1, "train", 0.0)
    assert start(progress, 0, "all", 1.0).number == 2
    assert progress.total == 2


@pytest.mark.parametrize("number_comes_first", [True, False])
def test_a_checkpoint_makes_the_run_longer(number_comes_first: bool):
    progress = a_run(split=1, gather=1, all=1)
    start(progress, 1, "split", 0.0)
    progress.finish(1, 1.0)
    if number_comes_first:
        progress.grow(5)
        start(progress, 8, "part", 2.0)
    else:
        start(progress, 8, "part", 2.0)
        progress.grow(5)
    start(progress, 9, "part", 2.0)
    assert progress.total == 4
    assert progress.unforeseen == 0
    assert progress.waiting["gather"] == 1


def test_a_job_tried_again_keeps_its_number_and_is_no_failure():
    progress = a_run(train=2)
    start(progress, 1, "train", 0.0)
    progress.fail(1, 1.0, outcome="exit status 1")
    assert len(progress.failed) == 1
    assert start(progress, 1, "train", 2.0).number == 1
    assert not progress.failed
    assert start(progress, 2, "train", 2.0).number == 2


def test_a_long_job_is_mentioned_every_thirty_seconds():
    progress = a_run(train=1)
    job = start(progress, 1, "train", 0.0)
    assert progress.silent_for(30, 29.0) == []
    assert progress.silent_for(30, 30.5) == [job]
    assert progress.silent_for(30, 59.0) == []
    assert progress.silent_for(30, 61.0) == [job]
