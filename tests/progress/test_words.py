"""The logger plugin's words: steps in logs, durations, reasons, how a command ended, a dry run's list."""

from pathlib import Path

from snakemake_logger_plugin_anatomy import lines
from snakemake_logger_plugin_anatomy.dryrun import PlannedJob, dry_run_lines, short_reason
from snakemake_logger_plugin_anatomy.failures import INTERRUPTED, outcome
from snakemake_logger_plugin_anatomy.joblog import error_line, last_step, parse_step, tail
from snakemake_logger_plugin_anatomy.progress import Step


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
