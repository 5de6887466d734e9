"""How long the run will still take: typical seconds per rule, corrected by what this run measured."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

from snakemake_logger_plugin_anatomy.progress import Job, Progress

GUESS = 5.0  # seconds for a job when no rule at all has a known duration
ENOUGH_FINISHED = 3  # without known durations, jobs to see before a total is guessed
STEP_BELIEVED_FROM = 0.05  # extrapolating a job's own progress from less than this is noise


@dataclass(frozen=True)
class Timings:
    """Typical seconds of one job, by rule name."""

    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Timings":
        """Read a JSON object of rule name to seconds; entries that are not positive numbers are notes.

        Raises OSError if the file cannot be read and ValueError if it is not a JSON object.
        """
        table = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(table, dict):
            raise ValueError("expected a JSON object of rule name to seconds")
        numbers = {rule: s for rule, s in table.items() if isinstance(s, int | float)}
        return cls({rule: float(s) for rule, s in numbers.items() if s > 0})

    @property
    def typical(self) -> float:
        """Seconds for a rule of which nothing is known."""
        return median(self.seconds.values()) if self.seconds else GUESS

    def weight(self, rule: str) -> float:
        """Seconds this rule is said to take."""
        return self.seconds.get(rule, self.typical)


@dataclass(frozen=True)
class Pace:
    """What the finished jobs of this run teach about the others."""

    timings: Timings
    measured: dict[str, float]  # mean seconds of the rules that finished at least once
    scale: float  # measured over said seconds: 2 on a machine half as fast

    @classmethod
    def of(cls, progress: Progress, timings: Timings) -> "Pace":
        """Compare the finished jobs with their timings."""
        by_rule: dict[str, list[float]] = defaultdict(list)
        for job in progress.done:
            by_rule[job.rule].append(job.seconds(0.0))
        measured = sum(sum(values) for values in by_rule.values())
        said = sum(timings.weight(job.rule) for job in progress.done)
        # One typical job counts as measured exactly as said, so that a first job which took a
        # tenth of a second does not promise that hours of training will be over at once.
        prior = timings.typical if timings.seconds else 0.0
        scale = (measured + prior) / (said + prior) if said + prior > 0 else 1.0
        return cls(timings, {rule: fmean(values) for rule, values in by_rule.items()}, scale)

    def knows(self, rule: str) -> bool:
        """Whether the duration of this rule is more than a guess."""
        return rule in self.measured or rule in self.timings.seconds

    def seconds(self, rule: str) -> float:
        """Expected seconds of a job of this rule: as measured in this run, else as said times the scale."""
        return self.measured.get(rule, self.timings.weight(rule) * self.scale)

    def seconds_left(self, job: Job, now: float) -> float:
        """Expected seconds until a running job ends."""
        elapsed = job.seconds(now)
        left = self.seconds(job.rule) - elapsed
        if self.knows(job.rule) and left > 0:
            return left
        fraction = job.step.fraction if job.step else 0.0
        if fraction >= STEP_BELIEVED_FROM:
            return elapsed * (1 - fraction) / fraction
        return max(left, 0.0)


def parallelism(progress: Progress, now: float) -> float:
    """How many jobs ran at a time so far, on average: between 1 and the number of cores."""
    jobs = [*progress.done, *progress.failed.values(), *progress.running.values()]
    wall = now - progress.first_start if progress.first_start is not None else 0.0
    at_once = sum(job.seconds(now) for job in jobs) / wall if wall > 0 else float(len(progress.running))
    return max(min(at_once, progress.cores or at_once), 1.0)


def seconds_left(progress: Progress, timings: Timings, now: float) -> float | None:
    """Expected seconds until the run is over, or None where a number would be nonsense."""
    pace = Pace.of(progress, timings)
    if not _sensible(progress, pace):
        return None
    running = [pace.seconds_left(job, now) for job in progress.running.values()]
    waiting = sum(n * pace.seconds(rule) for rule, n in progress.waiting.items())
    waiting += progress.unforeseen * timings.typical * pace.scale
    # The longest running job bounds the end from below, however many cores there are.
    left = max([(sum(running) + waiting) / parallelism(progress, now), *running])
    return left if left >= 1 else None


def _sensible(progress: Progress, pace: Pace) -> bool:
    """Most jobs that remain must be of known duration, or some have finished to judge by."""
    if len(progress.done) >= ENOUGH_FINISHED:
        return True
    rules = [job.rule for job in progress.running.values()] + list(progress.waiting.elements())
    known = sum(pace.knows(rule) for rule in rules)
    return known > 0 and known >= (len(rules) + progress.unforeseen) / 2
