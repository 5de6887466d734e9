"""The logger plugin as Snakemake loads it, and a real run of a small Snakefile."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.tests import MockOutputSettings, TestLogHandlerBase

from snakemake_logger_plugin_anatomy import LogHandler, LogHandlerSettings

from .conftest import record


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
