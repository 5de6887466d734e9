"""What a person reads when something went wrong."""

import re
import signal

from snakemake_logger_plugin_anatomy.joblog import error_line, tail, written_since
from snakemake_logger_plugin_anatomy.lines import Line, clock, plural, took
from snakemake_logger_plugin_anatomy.progress import Job, Progress

TAIL_LINES = 25
BAR = "=" * 80
CONTINUE = "What is done is kept: the same command continues from here."
INTERRUPTED = "stopped by the keyboard (SIGINT)"


def outcome(text: str) -> str:
    """How a shell command ended, from the text of Python's CalledProcessError; "" if it does not say."""
    died = re.search(r"died with <Signals\.(\w+):", text)
    if died:
        return _signal(died[1])
    status = re.search(r"returned non-zero exit status (\d+)", text)
    if not status:
        return ""
    code = int(status[1])
    # A shell reports a command that a signal ended as 128 + the number of the signal.
    try:
        return _signal(signal.Signals(code - 128).name)
    except ValueError:
        return f"exit status {code}"


def _signal(name: str) -> str:
    if name == "SIGINT":
        return INTERRUPTED
    return f"killed by {name}" + (" (often: the memory ran out)" if name == "SIGKILL" else "")


def said_error(job: Job) -> str:
    """The ``error: `` line in the logs of this attempt, or ""."""
    found = (error_line(tail(log)) for log in job.logs if written_since(log, job.started))
    return next((line for line in found if line), "")


def failure_block(job: Job, note: str, now: float) -> list[Line]:
    """The report of one failed job; ``note`` is what Snakemake said, shown where no log tells more."""
    ended = f" · {job.outcome}" if job.outcome else ""
    lines = [
        Line(BAR, "bad"),
        Line(f"FAILED  rule {job.rule}{ended} · after {took(job.seconds(now))}", "bad"),
    ]
    if job.message != job.rule:  # a rule without a message goes by its name
        lines.append(Line(f"        {job.message}", "bad"))
    if job.error:
        lines += [Line(""), Line(job.error, "bad")]
    logs = _log_lines(job)
    if note and not (logs and job.outcome):
        lines += [Line(""), *(Line(text) for text in note.splitlines())]
    lines += logs
    if job.command:
        lines += [Line(""), Line(f"The command was: {' '.join(job.command.split())}", "dim")]
    return [*lines, Line(BAR, "bad")]


def _log_lines(job: Job) -> list[Line]:
    """The end of each log of the job, under its path."""
    lines: list[Line] = []
    for log in job.logs:
        text = tail(log)[-TAIL_LINES:] if written_since(log, job.started) else []
        if text:
            head = "Log" if len(text) < TAIL_LINES else f"Last {TAIL_LINES} lines of the log"
            lines += [Line(""), Line(f"{head}: {log}", "warning")]
            lines += [Line(f"  {line}", "dim") for line in text]
        else:
            lines += [Line(""), Line(f"Log: {log} (this attempt wrote nothing there)", "warning")]
    return lines


def summary(progress: Progress, now: float, *, counts: bool, stopped: bool, full_log: str) -> list[Line]:
    """The last word of a run. ``counts`` is false where finished jobs were not reported to us (--quiet)."""
    elapsed = f"elapsed {clock(now - progress.begun)}"
    standing = f" · {len(progress.done)} done, {progress.not_run} not run · {elapsed}" if counts else ""
    if progress.failed:
        head = f"FAILED: {len(progress.failed)} of {plural(progress.total, 'job')}{standing}"
        return [Line(""), Line(head, "bad"), *_each(progress), *_ending(full_log)]
    if not counts:
        return []
    if stopped or progress.not_run:
        head = f"Stopped: {len(progress.done)} of {plural(progress.total, 'job')} done · {elapsed}"
        return [Line(""), Line(head, "warning"), Line(CONTINUE)]
    noun = "The job is" if progress.total == 1 else f"All {progress.total} jobs are"
    return [Line(f"{noun} done · {elapsed}", "good")]


def _each(progress: Progress) -> list[Line]:
    """One line for each failed job, and what it said."""
    lines = []
    for job in progress.failed.values():
        name = job.rule if job.message == job.rule else f"{job.rule}: {job.message}"
        lines.append(Line(f"  ✗ {name}", "bad"))
        reason = job.error or job.outcome
        if reason:
            lines.append(Line(f"    {reason}", "bad"))
        lines += [Line(f"    log: {log}") for log in job.logs]
    return lines


def _ending(full_log: str) -> list[Line]:
    own = [Line(f"Snakemake's own log: {full_log}", "dim")] if full_log else []
    return [*own, Line(CONTINUE)]
