"""What a run has done so far: a plain state that takes events and knows nothing of Snakemake or of screens.

Times are seconds on one clock (``time.time()`` in the plugin, made-up numbers in the tests) and are
always passed in.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

# By convention the first rule of a Snakefile: it asks for the results and does nothing itself.
TARGET_RULE = "all"


@dataclass(frozen=True)
class Step:
    """How far a job is inside itself, as its log says: ``progress: 1200/8910 text``."""

    done: int
    total: int
    text: str = ""

    @property
    def fraction(self) -> float:
        """Share of the job that is done, between 0 and 1."""
        return min(max(self.done / self.total, 0.0), 1.0) if self.total > 0 else 0.0


@dataclass
class Job:
    """One job of the run. ``number`` is its place in the order of starting: the k of "job k of n"."""

    id: int
    rule: str
    message: str
    logs: list[Path] = field(default_factory=list)
    command: str | None = None
    does_work: bool = True  # false for a target rule, which only collects the results of others
    number: int = 0
    started: float = 0.0
    ended: float | None = None
    last_line: float = 0.0  # when a line about this job was last written
    step: Step | None = None
    outcome: str = ""  # how a failed job ended: "exit status 3"
    error: str = ""  # the one clear message a failed job left in its log

    def seconds(self, now: float) -> float:
        """How long the job took, or has taken until now."""
        return max((now if self.ended is None else self.ended) - self.started, 0.0)


@dataclass
class Progress:
    """The state of a run. Target rules are not counted: n is the number of jobs that do work."""

    begun: float
    cores: int | None = None
    total: int = 0
    waiting: Counter[str] = field(default_factory=Counter)  # jobs not started yet, by rule
    unforeseen: int = 0  # jobs a checkpoint added: their rules are not known before they start
    running: dict[int, Job] = field(default_factory=dict)
    done: list[Job] = field(default_factory=list)
    failed: dict[int, Job] = field(default_factory=dict)
    stopped: list[Job] = field(default_factory=list)  # ended by the person's Ctrl-C, not by a fault
    first_start: float | None = None
    last_number: int = 0
    targets: int = 0

    def plan(self, stats: dict[str, int]) -> None:
        """Take Snakemake's job counts by rule (with their sum under ``total``)."""
        self.waiting = Counter({r: n for r, n in stats.items() if r not in ("total", TARGET_RULE)})
        self.targets = stats.get(TARGET_RULE, 0)
        self.total = sum(self.waiting.values())

    def grow(self, total: int) -> None:
        """Take a new number of all jobs, targets included: checkpoints add jobs while the run goes on."""
        extra = total - self.targets - self.total
        if extra > 0:
            self.total += extra
            self.unforeseen += extra

    def start(self, job: Job, now: float) -> bool:
        """Note that a job starts; false if it is a target rule, of which nothing need be said."""
        if not job.does_work:
            self._drop_target(job.rule)
            return False
        again = self.failed.pop(job.id, None)
        job.number = again.number if again else self._next_number(job.rule)
        job.started = job.last_line = now
        self.first_start = now if self.first_start is None else self.first_start
        self.running[job.id] = job
        return True

    def finish(self, job_id: int, now: float) -> Job | None:
        """Note a success; None if the job is not one we follow (a target rule)."""
        job = self._end(job_id, now)
        if job:
            self.done.append(job)
        return job

    def fail(self, job_id: int, now: float, *, outcome: str = "", error: str = "") -> Job | None:
        """Note a failure, how the job ended and what it said; None if the job never started here."""
        job = self._end(job_id, now)
        if job:
            job.outcome, job.error = outcome, error
            self.failed[job_id] = job
        return job

    def stop(self, job_id: int, now: float) -> None:
        """Note a job that ended because the person stopped the run."""
        job = self._end(job_id, now)
        if job:
            self.stopped.append(job)

    def silent_for(self, seconds: float, now: float) -> list[Job]:
        """The running jobs of which no line was written for so long; they count as mentioned now."""
        silent = [job for job in self.running.values() if now - job.last_line >= seconds]
        for job in silent:
            job.last_line = now
        return silent

    @property
    def not_run(self) -> int:
        """Jobs that were planned and never started, or were stopped."""
        return max(self.total - len(self.done) - len(self.failed), 0)

    def _next_number(self, rule: str) -> int:
        if self.waiting[rule] > 0:
            self.waiting[rule] -= 1
        elif self.unforeseen > 0:
            self.unforeseen -= 1
        else:  # not counted yet: a checkpoint's job that came before its number, or an "all" that does work
            self.total += 1
            self.targets -= rule == TARGET_RULE
        self.last_number += 1
        return self.last_number

    def _drop_target(self, rule: str) -> None:
        """A target rule of another name was counted as work: take it out of the count."""
        if self.waiting[rule] > 0:
            self.waiting[rule] -= 1
            self.total -= 1
            self.targets += 1

    def _end(self, job_id: int, now: float) -> Job | None:
        job = self.running.pop(job_id, None)
        if job:
            job.ended = now
            job.step = None
        return job
