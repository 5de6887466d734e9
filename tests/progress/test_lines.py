"""From Snakemake's log records to lines on a terminal."""

import io
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_anatomy.estimate import Timings
from snakemake_logger_plugin_anatomy.narrator import Narrator
from snakemake_logger_plugin_anatomy.progress import Step
from snakemake_logger_plugin_anatomy.screens import StreamScreen, TerminalScreen

from .conftest import a_run, record, start


@pytest.fixture
def stage():
    """A narrator that writes to a string, for a run of two jobs on two cores that began at second 0."""
    out = io.StringIO()
    screen = StreamScreen(out, Timings({"train": 20}))
    narrator = Narrator(screen, dryrun=False, quiet=False, verbose=False, now=0.0)
    narrator.handle(record(0, LogEvent.WORKFLOW_STARTED))
    narrator.handle(record(0, None, "Building DAG of jobs..."))
    narrator.handle(record(0, LogEvent.RESOURCES_INFO, cores=2))
    narrator.handle(record(0, LogEvent.RUN_INFO, stats={"train": 2, "all": 1, "total": 3}))
    return SimpleNamespace(narrator=narrator, text=out.getvalue)


def job_info(now: float, job_id: int, **facts):
    given = {"output": ["o"], "shellcmd": "train --fast", "rule_msg": f"Train {job_id}", "log": [], **facts}
    return record(now, LogEvent.JOB_INFO, jobid=job_id, rule_name="train", **given)


def test_a_run_is_told_in_plain_lines(stage, tmp_path: Path):
    log = tmp_path / "train.log"
    log.write_text("progress: 5/9 steps\n")
    stage.narrator.handle(job_info(0, 4))
    stage.narrator.handle(record(10, LogEvent.JOB_FINISHED, job_id=4))
    stage.narrator.handle(job_info(10, 6, log=[str(log)]))
    stage.narrator.tick(20)
    stage.narrator.tick(41)
    stage.narrator.handle(record(43, LogEvent.JOB_FINISHED, job_id=6))
    stage.narrator.handle(job_info(43, 0, output=[], shellcmd=None))  # the target rule
    stage.narrator.handle(record(43, LogEvent.JOB_FINISHED, job_id=0))
    stage.narrator.close(43)
    assert stage.text().splitlines() == [
        "2 jobs to run, on 2 cores",
        "[1/2] start  Train 4",
        "[1/2] done   Train 4 10.0 s · elapsed 0:10 · about 10 s left",
        "[2/2] start  Train 6",
        "[2/2] still  Train 6 0:31 · 5/9 steps",
        "[2/2] done   Train 6 33.0 s · elapsed 0:43",
        "All 2 jobs are done · elapsed 0:43",
    ]


def test_a_failed_job_is_unmissable(stage, tmp_path: Path):
    log = tmp_path / "train.log"
    log.write_text("".join(f"line {i}\n" for i in range(40)) + "error: no data: run fetch\nbye\n")
    now = log.stat().st_mtime
    stage.narrator.handle(job_info(now - 5, 4, log=[str(log)]))
    said = "RuleException:\nCommand 'train --fast' returned non-zero exit status 3."
    stage.narrator.handle(record(now, LogEvent.ERROR, said, logging.ERROR))
    error = {"jobid": 4, "rule_name": "train", "shellcmd": "train --fast", "log": [str(log)]}
    stage.narrator.handle(record(now, LogEvent.JOB_ERROR, "Error", logging.ERROR, **error))
    final = "WorkflowError:\nAt least one job did not complete successfully."
    stage.narrator.handle(record(now, LogEvent.ERROR, final, logging.ERROR))
    stage.narrator.close(now)
    text = stage.text()
    assert "FAILED  rule train · exit status 3 · after 5.0 s\n        Train 4\n\nerror: no data" in text
    assert f"Last 25 lines of the log: {log}\n  line 17\n" in text
    assert "FAILED: 1 of 2 jobs · 0 done, 1 not run" in text
    assert "✗ train: Train 4\n    error: no data: run fetch\n" in text
    assert "RuleException" not in text and "WorkflowError" not in text


def test_the_log_of_an_earlier_run_is_not_shown(stage, tmp_path: Path):
    log = tmp_path / "train.log"
    log.write_text("error: an old story\n")
    now = log.stat().st_mtime + 100
    stage.narrator.handle(job_info(now, 4, log=[str(log)]))
    error = {"jobid": 4, "rule_name": "train", "shellcmd": "train --fast", "log": [str(log)]}
    stage.narrator.handle(record(now, LogEvent.JOB_ERROR, "Error", logging.ERROR, **error))
    assert "an old story" not in stage.text()
    assert "this attempt wrote nothing there" in stage.text()


def test_missing_output_fails_the_job_it_names(stage):
    stage.narrator.handle(job_info(1, 4))
    said = "MissingOutputException in rule train:\nJob 4  completed successfully, but some output is missing."
    stage.narrator.handle(record(3, LogEvent.ERROR, said, logging.ERROR))
    assert "FAILED  rule train · after 2.0 s" in stage.text()
    assert "the command did not write its output files" in stage.text()
    assert not stage.narrator.progress.running


def test_jobs_that_end_by_ctrl_c_are_stopped_not_failed(stage):
    stage.narrator.handle(job_info(1, 4))
    stage.narrator.handle(record(2, None, "Terminating processes on user request, this might take some time."))
    error = {"jobid": 4, "rule_name": "train", "shellcmd": "train --fast", "log": []}
    stage.narrator.handle(record(2, LogEvent.JOB_ERROR, "Error", logging.ERROR, **error))
    stage.narrator.close(2)
    assert "FAILED" not in stage.text()
    assert "Stopped: 0 of 2 jobs done · elapsed 0:02" in stage.text()


def test_other_errors_and_warnings_are_shown_and_noise_is_not(stage):
    stage.narrator.handle(record(1, LogEvent.ERROR, "MissingInputException: no a.txt", logging.ERROR))
    stage.narrator.handle(record(1, None, "disk is nearly full", logging.WARNING))
    stage.narrator.handle(record(1, None, "Select jobs to execute..."))
    stage.narrator.handle(record(1, LogEvent.SHELLCMD, "Shell command: train"))
    assert "MissingInputException: no a.txt" in stage.text()
    assert "disk is nearly full" in stage.text()
    assert "Select" not in stage.text() and "Shell" not in stage.text()


def test_the_terminal_shows_the_run_and_the_jobs_at_work():
    out = io.StringIO()
    screen = TerminalScreen(out, Timings({"train": 20}))
    screen.console.width = 100
    progress = a_run(train=2)
    start(progress, 1, "train", 0.0).step = Step(1200, 8910, "steps")
    start(progress, 2, "train", 0.0)
    with screen.console.capture() as capture:
        screen.console.print(screen.picture(progress, 5.0))
    head, first, second = capture.get().splitlines()[:3]
    assert "job 2 of 2 · 0 done · elapsed 0:05 · about 15 s left" in head
    assert "Do train" in first and "1200/8910 steps" in first and "━" in first
    assert "Do train" in second and "0:05" in second
