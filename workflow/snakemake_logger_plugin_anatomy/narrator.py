"""From Snakemake's log records to what a person reads."""

import logging
import re
from pathlib import Path

from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_anatomy import failures
from snakemake_logger_plugin_anatomy.dryrun import PlannedJob, dry_run_lines
from snakemake_logger_plugin_anatomy.joblog import last_step
from snakemake_logger_plugin_anatomy.lines import UP_TO_DATE, Line
from snakemake_logger_plugin_anatomy.progress import Job, Progress
from snakemake_logger_plugin_anatomy.screens import Screen

NOTHING = "Nothing to be done"
STOPPING = "Terminating processes on user request"
FULL_LOG = "Complete log(s): "
# Snakemake says these at level INFO without an event, and they matter while jobs run.
WORTH_SAYING = (STOPPING, "Will exit after finishing", "Trying to restart job", "Waiting at most")
# And these before the run begins, every time. Anything else there is an answer the person asked
# for (--unlock, --lint, --cleanup-metadata ...) or a message of the Snakefile itself.
ROUTINE = (
    "Building DAG of jobs",
    "Assuming unrestricted shared filesystem",
    "Multiple includes of",
    "Updating checkpoint dependencies",
    "MinJobAge",
)
# The Slurm plugin says this for every job where no account is named; then the cluster's default holds.
NO_ACCOUNT = ("No SLURM account given", "No account was given", "Unable to guess SLURM account")
# Our own summary says it better.
SAID_AT_THE_END = ("Exiting because a job execution failed", "At least one job did not complete")
OUTPUT_MISSING = re.compile(r"^Job (\d+)\s+completed successfully, but", re.MULTILINE)


class Narrator:
    """Takes records one at a time (from one thread at a time) and tells the screen what they mean."""

    def __init__(self, screen: Screen, *, dryrun: bool, quiet: bool, verbose: bool, now: float) -> None:
        self.screen = screen
        self.progress = Progress(begun=now)
        self.dryrun, self.quiet, self.verbose = dryrun, quiet, verbose
        self.running = False  # between Snakemake's "workflow has started" and the end
        self.stopping = False
        self.full_log = ""
        self.planned: list[PlannedJob] = []
        # Texts of commands that failed; the event of the job they belong to follows.
        self.unclaimed: list[str] = []

    def handle(self, record: logging.LogRecord) -> None:
        """Tell what one record means; most mean nothing to a person."""
        event = getattr(record, "event", None)
        match event:
            case LogEvent.WORKFLOW_STARTED:
                self.progress.begun = record.created
                self.running = True
            case LogEvent.RESOURCES_INFO:
                self.progress.cores = getattr(record, "cores", self.progress.cores)
            case LogEvent.RUN_INFO:
                self._plan(record)
            case LogEvent.JOB_INFO:
                self._start(record)
            case LogEvent.JOB_FINISHED:
                self._finish(record)
            case LogEvent.PROGRESS:
                self.progress.grow(getattr(record, "total", 0))
            case LogEvent.JOB_ERROR:
                self._fail(record)
            case LogEvent.ERROR:
                self._error(record)
            case None:
                self._message(record)

    def tick(self, now: float) -> None:
        """Look how far the running jobs are, and show it."""
        if not self.running or self.dryrun or self.quiet:
            return
        for job in self.progress.running.values():
            job.step = last_step(job.logs)
        self.screen.tick(self.progress, now)

    def close(self, now: float) -> None:
        """Say how it ended."""
        self.screen.close()
        self.screen.say(Line(text, "bad") for text in self.unclaimed)
        if self.dryrun and self.progress.total:
            self.screen.say(dry_run_lines(self.planned, dict(+self.progress.waiting)))
        elif self.progress.total:
            self.screen.say(
                failures.summary(
                    self.progress,
                    now,
                    counts=not self.quiet,
                    stopped=self.stopping,
                    full_log=self.full_log,
                )
            )

    def _plan(self, record: logging.LogRecord) -> None:
        if self.dryrun and self.progress.total:
            return  # a dry run says it again at its end
        self.progress.plan(getattr(record, "stats", {}))
        if not self.dryrun and self.progress.total:
            self.screen.began(self.progress)

    def _start(self, record: logging.LogRecord) -> None:
        job = job_of(record)
        if self.dryrun:
            if job.does_work:
                self.planned.append(planned_job(job, record))
            else:
                self.progress.start(job, record.created)
        elif self.progress.start(job, record.created):
            self.screen.started(job, self.progress)

    def _finish(self, record: logging.LogRecord) -> None:
        job = self.progress.finish(getattr(record, "job_id", -1), record.created)
        if job:
            self.screen.finished(job, self.progress, record.created)

    def _fail(self, record: logging.LogRecord) -> None:
        unknown = job_of(record)
        running = self.progress.running.get(unknown.id)
        note = self._claim(unknown.command)
        outcome = failures.outcome(note)
        if self.stopping or outcome == failures.INTERRUPTED:
            self.stopping = True
            self.progress.stop(unknown.id, record.created)
            return
        error = failures.said_error(running or unknown)
        job = self.progress.fail(unknown.id, record.created, outcome=outcome, error=error) or unknown
        self.screen.say(failures.failure_block(job, note, record.created))

    def _claim(self, command: str | None) -> str:
        """The text of the exception a failed job raised: that which names its command, else the last."""
        mine = [text for text in self.unclaimed if command and command in text]
        if not mine and not command:
            mine = self.unclaimed[-1:]
        for text in mine:
            self.unclaimed.remove(text)
        return mine[0] if mine else ""

    def _error(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        missing = OUTPUT_MISSING.search(text)
        if any(known in text for known in SAID_AT_THE_END):
            return
        if failures.outcome(text):
            self.unclaimed.append(text)
        elif missing and (job := self._fail_without_output(int(missing[1]), record.created)):
            self.screen.say(failures.failure_block(job, text, record.created))
        else:
            self.screen.say([Line(failures.BAR, "bad"), Line(text, "bad"), Line(failures.BAR, "bad")])

    def _fail_without_output(self, job_id: int, now: float) -> Job | None:
        """Snakemake sends no job event for a command that succeeded without writing its output."""
        return self.progress.fail(job_id, now, outcome="", error="the command did not write its output files")

    def _message(self, record: logging.LogRecord) -> None:
        """A record without an event: prose."""
        text = record.getMessage()
        if text.startswith(FULL_LOG):
            self.full_log = text.removeprefix(FULL_LOG)
        elif text.startswith(NOTHING):
            self.screen.say([Line(UP_TO_DATE, "good")])
        elif record.levelno >= logging.WARNING:
            if not text.startswith(NO_ACCOUNT) and not any(known in text for known in SAID_AT_THE_END):
                self.screen.say([Line(text, "bad" if record.levelno >= logging.ERROR else "warning")])
        elif self._worth_saying(text):
            self.stopping |= text.startswith(STOPPING)
            self.screen.say([Line(text, "warning" if self.running else "")])

    def _worth_saying(self, text: str) -> bool:
        if self.verbose:
            return True
        if self.quiet or not text:
            return False
        return text.startswith(WORTH_SAYING) if self.running else not text.startswith(ROUTINE)


def planned_job(job: Job, record: logging.LogRecord) -> PlannedJob:
    """The job a JOB_INFO record of a dry run is about, with what it asks for."""
    facts = vars(record)
    resources = {
        name: value
        for name, value in dict(facts.get("resources") or {}).items()
        # Names with an underscore are Snakemake's own; what is not known before the job runs is no number.
        if not name.startswith("_") and type(value) in (int, str)
    }
    return PlannedJob(
        job.rule,
        job.message,
        facts.get("reason") or "",
        wildcards=dict(facts.get("wildcards") or {}),
        threads=facts.get("threads") or 1,
        resources=resources,
        outputs=[str(path) for path in facts.get("output") or []],
    )


def job_of(record: logging.LogRecord) -> Job:
    """The job a JOB_INFO or JOB_ERROR record is about."""
    facts = vars(record)
    rule = facts.get("rule_name") or "job"
    message = " ".join((facts.get("rule_msg") or "").split())
    command = facts.get("shellcmd")
    wildcards = ", ".join(f"{name}={value}" for name, value in (facts.get("wildcards") or {}).items())
    return Job(
        id=facts.get("jobid", -1),
        rule=rule,
        message=message or f"{rule} {wildcards}".strip(),
        logs=[Path(log) for log in facts.get("log") or []],
        command=command,
        # A target rule has inputs only. (So has a `run:` block without output, which ours never are.)
        does_work=bool(facts.get("output") or command),
        started=record.created,
    )
