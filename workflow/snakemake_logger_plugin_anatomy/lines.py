"""Every line a person reads while jobs run: plain text, with the name of a style beside it."""

from typing import NamedTuple

from snakemake_logger_plugin_anatomy.estimate import Timings, seconds_left
from snakemake_logger_plugin_anatomy.progress import Job, Progress, Step

UP_TO_DATE = "Nothing to be done: every result is up to date."


class Line(NamedTuple):
    """A line and its style: "", "dim", "good", "bad" or "warning". Only a terminal shows the style."""

    text: str
    style: str = ""


def clock(seconds: float) -> str:
    """1:23, or 2:01:23 from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def took(seconds: float) -> str:
    """The duration of one job: 12.3 s, or a clock from a minute on."""
    return f"{seconds:.1f} s" if seconds < 59.95 else clock(seconds)


def about(seconds: float) -> str:
    """An estimate, no finer than it deserves: 25 s, 4:10, 2 h 15 min."""
    if seconds < 57.5:
        return f"{max(round(seconds / 5) * 5, 5)} s"
    if seconds < 3595:
        return clock(round(seconds / 10) * 10)
    hours, minutes = divmod(round(seconds / 300) * 5, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def plural(n: int, noun: str) -> str:
    """1 job, 2 jobs."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def timing(progress: Progress, timings: Timings, now: float) -> str:
    """elapsed 1:23 · about 4:10 left; the second half only where an estimate makes sense."""
    left = seconds_left(progress, timings, now)
    elapsed = f"elapsed {clock(now - progress.begun)}"
    return elapsed if left is None else f"{elapsed} · about {about(left)} left"


def overall(progress: Progress, timings: Timings, now: float) -> str:
    """The one line about the whole run."""
    if not progress.total:
        return f"finding out what needs to run · elapsed {clock(now - progress.begun)}"
    parts = [f"job {progress.last_number} of {progress.total}", f"{len(progress.done)} done"]
    if progress.failed:
        parts.append(f"{len(progress.failed)} FAILED")
    return " · ".join([*parts, timing(progress, timings, now)])


def heading(progress: Progress) -> str:
    """What the run is going to be."""
    on = f", on {plural(progress.cores, 'core')}" if progress.cores else ""
    return f"{plural(progress.total, 'job')} to run{on}"


def tag(job: Job, total: int) -> str:
    """[ 3/31], as wide for every job."""
    return f"[{job.number:>{len(str(total))}}/{total}]"


def start_line(job: Job, progress: Progress) -> str:
    """A job begins."""
    return f"{tag(job, progress.total)} start  {job.message}"


def done_line(job: Job, progress: Progress, timings: Timings, now: float) -> str:
    """A job succeeded, and how the run stands."""
    return (
        f"{tag(job, progress.total)} done   {job.message} {took(job.seconds(now))} · {timing(progress, timings, now)}"
    )


def still_line(job: Job, progress: Progress, now: float) -> str:
    """A job is at work for long, and how far it is."""
    step = f" · {step_text(job.step)}" if job.step else ""
    return f"{tag(job, progress.total)} still  {job.message} {clock(job.seconds(now))}{step}"


def tick_line(job: Job, progress: Progress, now: float) -> str:
    """A job succeeded: the line that scrolls by on a terminal."""
    return f"✓ {tag(job, progress.total)} {job.message} ({took(job.seconds(now))})"


def step_text(step: Step) -> str:
    """1200/8910 text"""
    return f"{step.done}/{step.total} {step.text}".rstrip()
