"""The logger plugin: its state and its words on made-up events, and a real run of a small Snakefile."""

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.tests import MockOutputSettings, TestLogHandlerBase

from snakemake_logger_plugin_anatomy import LogHandler, LogHandlerSettings, lines
from snakemake_logger_plugin_anatomy.dryrun import PlannedJob, dry_run_lines, short_reason
from snakemake_logger_plugin_anatomy.estimate import Timings, parallelism, seconds_left
from snakemake_logger_plugin_anatomy.failures import INTERRUPTED, outcome
from snakemake_logger_plugin_anatomy.joblog import error_line, last_step, parse_step, tail
from snakemake_logger_plugin_anatomy.narrator import Narrator
from snakemake_logger_plugin_anatomy.progress import Job, Progress, Step
from snakemake_logger_plugin_anatomy.screens import StreamScreen, TerminalScreen

# --- the state ---------------------------------------------------------------------------------


def a_run(**stats: int) -> Progress:
    """A run of the given jobs by rule that began at second 0 on two cores."""
    progress = Progress(begun=0.0, cores=2)
    progress.plan({**stats, "total": sum(stats.values())})
    return progress


def start(progress: Progress, job_id: int, rule: str, now: float, **facts) -> Job:
    job = Job(id=job_id, rule=rule, message=f"Do {rule}", **facts)
    progress.start(job, now)
    return job


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


# --- the estimate ------------------------------------------------------------------------------


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


# --- logs and words ----------------------------------------------------------------------------


def test_a_progress_line_is_a_fraction_and_a_text():
    assert parse_step("progress: 1200/8910 loss 0.31") == Step(1200, 8910, "loss 0.31")
    assert parse_step("progress: 3/4") == Step(3, 4, "")
    assert parse_step("progress: 0/0 nothing") is None
    assert parse_step("made progress: 1/2") is None


def test_only_the_last_line_of_a_log_tells_how_far_it_is(tmp_path: Path):
    log = tmp_path / "job.log"
    log.write_text("progress: 1/3 a\nprogress: 2/3 b\n\n")
    assert last_step([tmp_path / "absent.log", log]) == Step(2, 3, "b")
    log.write_text("progress: 2/3 b\nwriting the table\n")
    assert last_step([log]) is None


def test_a_log_is_read_as_a_terminal_would_show_it(tmp_path: Path):
    log = tmp_path / "job.log"
    log.write_bytes(b"10%\r50%\r100%\n\x1b[31merror: red\x1b[0m\nbad byte \xff\r\n")
    assert tail(log) == ["100%", "error: red", "bad byte \ufffd"]
    assert error_line(tail(log)) == "error: red"


def test_durations_and_estimates_are_as_fine_as_they_deserve():
    assert [lines.clock(s) for s in (0, 83, 3723)] == ["0:00", "1:23", "1:02:03"]
    assert [lines.took(s) for s in (12.34, 59.99, 83)] == ["12.3 s", "0:59", "1:23"]
    assert [lines.about(s) for s in (1, 23, 59, 248, 8000)] == ["5 s", "25 s", "1:00", "4:10", "2 h 15 min"]


def test_how_a_command_ended():
    assert outcome("Command 'x' returned non-zero exit status 3.") == "exit status 3"
    assert outcome("Command 'x' returned non-zero exit status 137.").startswith("killed by SIGKILL")
    assert outcome("Command 'x' died with <Signals.SIGTERM: 15>.") == "killed by SIGTERM"
    assert outcome("Command 'x' died with <Signals.SIGINT: 2>.") == INTERRUPTED
    assert outcome("No rule to produce x") == ""


def test_reasons_in_few_words():
    assert short_reason("Missing output files: a, b, c, d") == "missing output files: a, b and 2 more"
    assert short_reason("Code has changed since last execution") == "code changed"
    assert short_reason("Forced execution") == "forced"
    params = "Params have changed since last execution: Union of exclusive params before and now "
    assert (
        short_reason(params + "across all output: before: 'a; b' now: 2 ") == "params changed (before: 'a; b', now: 2)"
    )
    follows = "Input files updated by another job: x"
    assert short_reason(follows) == "input comes from another of these jobs"
    assert short_reason(f"Missing output files: y; {follows}") == "missing output files: y"


def test_a_dry_run_lists_jobs_by_rule_and_stays_short():
    jobs = [PlannedJob("train", f"Train seed {i}", "Forced execution") for i in range(11, -1, -1)]
    text = [line.text for line in dry_run_lines(jobs, {"train": 12, "plot": 1})]
    assert text[:3] == ["13 jobs would run:", "train: 12 jobs", "  - Train seed 0  (forced)"]
    assert text[11:14] == ["  - Train seed 9  (forced)", "  - and 2 more", "plot: 1 job"]


# --- from records to lines ---------------------------------------------------------------------


def record(now: float, event: LogEvent | None = None, msg: str = "", level=logging.INFO, **facts):
    made = logging.LogRecord("snakemake", level, "workflow.py", 1, msg, (), None)
    made.created = now
    vars(made).update(facts, event=event)
    return made


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


# --- the plugin --------------------------------------------------------------------------------


def make_handler(**settings) -> LogHandler:
    return LogHandler(common_settings=MockOutputSettings(), settings=LogHandlerSettings(**settings))


class TestPlugin(TestLogHandlerBase):
    """Snakemake's own conformance tests."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def _close(self):
        self.handlers: list[LogHandler] = []
        yield
        for handler in self.handlers:
            handler.close()

    def get_log_handler_cls(self):
        return LogHandler

    def get_log_handler_settings(self):
        return LogHandlerSettings()

    def _create_handler(self):
        self.handlers.append(make_handler())
        return self.handlers[-1]


def test_a_fault_of_the_display_warns_once_and_goes_on(capsys, monkeypatch):
    handler = make_handler()

    def broken(record):
        raise RuntimeError("boo")

    monkeypatch.setattr(handler._narrator, "handle", broken)
    handler.handle(record(1, None, "hello"))
    handler.handle(record(1, LogEvent.ERROR, "the real error", logging.ERROR))
    handler.close()
    text = capsys.readouterr().err
    assert text.count("the progress display failed (RuntimeError: boo)") == 1
    assert "the real error" in text  # an error is never lost


def test_timings_that_cannot_be_read_are_a_warning(capsys, tmp_path: Path):
    make_handler(timings=tmp_path / "absent.json").close()
    assert "warning: no estimate from" in capsys.readouterr().err


def test_a_guessed_account_is_not_worth_a_line_per_job(capsys):
    handler = make_handler()
    for text in ("No SLURM account given, trying to guess.", "Unable to guess SLURM account. Trying to proceed."):
        handler.handle(record(1, None, text, logging.WARNING))
    handler.handle(record(1, None, "SLURM account used up", logging.WARNING))
    handler.close()
    told = capsys.readouterr().err
    assert "guess" not in told and "SLURM account used up" in told


# --- a real run --------------------------------------------------------------------------------

SNAKEFILE = """
rule all:
    input: "report.txt"

rule train:
    output: "model_{seed}.txt"
    log: "logs/train_{seed}.log"
    message: "Train the model, seed {wildcards.seed}"
    shell: "(echo 'progress: 1/2 steps'; sleep 0.3; echo 'progress: 2/2 steps') > {log}; touch {output}"

rule measure:
    input: "model_1.txt", "model_2.txt"
    output: "asr.txt"
    log: "logs/measure.log"
    params: break_it=config.get("break_it", "no")
    message: "Measure the attack success rate"
    shell: "(echo start; [ {params.break_it} = no ] || {{ echo 'error: no trigger given'; exit 3; }}) > {log}"
           " && touch {output}"

rule report:
    input: "asr.txt"
    output: "report.txt"
    shell: "cp {input} {output}"
"""


@pytest.fixture
def snakemake(tmp_path: Path):
    """Runs Snakemake with this logger in an empty folder; gives the exit status and what it wrote."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    environment = {k: v for k, v in os.environ.items() if k not in ("SNAKEMAKE_PROFILE", "FORCE_COLOR")}

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "snakemake", "--logger", "anatomy", "--cores", "2", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert "\x1b" not in done.stderr and "\r" not in done.stderr
        return done.returncode, done.stderr

    return run


def test_a_real_run_from_dry_run_to_nothing_to_be_done(snakemake):
    status, text = snakemake("--dry-run")
    assert status == 0
    assert "4 jobs would run:" in text
    assert "  - Train the model, seed 2  (missing output files: model_2.txt)" in text

    status, text = snakemake()
    said = text.splitlines()
    assert status == 0
    assert said[0] == "4 jobs to run, on 2 cores"
    assert {said[1], said[2]} <= {f"[{k}/4] start  Train the model, seed {s}" for k in (1, 2) for s in (1, 2)}
    assert "[3/4] start  Measure the attack success rate" in said
    assert "[4/4] done   report" in said[-2]
    assert said[-1].startswith("All 4 jobs are done · elapsed 0:0")
    assert len(said) == 10  # and no noise

    assert snakemake() == (0, "Nothing to be done: every result is up to date.\n")
    assert "params changed (before: 'no', now: 'yes')" in snakemake("-n", "--config", "break_it=yes")[1]


def test_a_real_failure_shows_what_the_job_said(snakemake):
    status, text = snakemake("--keep-going", "--config", "break_it=yes")
    assert status == 1
    assert "FAILED  rule measure · exit status 3" in text
    assert "\nerror: no trigger given\n\nLog: logs/measure.log\n  start\n" in text
    assert "FAILED: 1 of 4 jobs · 2 done, 1 not run" in text

    status, text = snakemake("--rerun-incomplete")
    assert status == 0
    assert text.startswith("2 jobs to run, on 2 cores\n[1/2] start  Measure")


def test_quiet_leaves_only_the_failure(snakemake):
    status, text = snakemake("--quiet", "--config", "break_it=yes")
    assert status == 1
    assert text.startswith("=" * 80 + "\nFAILED  rule measure · exit status 3")
    assert snakemake("--quiet") == (0, "")
