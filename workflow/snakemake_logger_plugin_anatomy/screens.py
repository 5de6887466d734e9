"""Where the lines go: a terminal that is redrawn, or a stream that only grows."""

import os
import sys
from collections.abc import Iterable
from typing import Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from snakemake_logger_plugin_anatomy import lines
from snakemake_logger_plugin_anatomy.estimate import Timings
from snakemake_logger_plugin_anatomy.lines import Line
from snakemake_logger_plugin_anatomy.progress import Job, Progress, Step

HEARTBEAT = 30.0  # seconds after which a stream hears of a job that is still at work
BAR_WIDTH = 12
STYLES = {"": "", "dim": "dim", "good": "green", "bad": "bold red", "warning": "yellow"}


class Screen(Protocol):
    """What the narrator asks of the place it writes to."""

    def say(self, said: Iterable[Line]) -> None:
        """Write lines that stay."""

    def began(self, progress: Progress) -> None:
        """The jobs are known."""

    def started(self, job: Job, progress: Progress) -> None:
        """A job starts."""

    def finished(self, job: Job, progress: Progress, now: float) -> None:
        """A job succeeded."""

    def tick(self, progress: Progress, now: float) -> None:
        """Time has passed."""

    def close(self) -> None:
        """The run is over; may be called twice."""


class StreamScreen:
    """Plain lines: no colour, nothing overwritten. For log files, pipes and CI."""

    def __init__(self, stream: TextIO, timings: Timings) -> None:
        self.stream = stream
        self.timings = timings

    def say(self, said: Iterable[Line]) -> None:
        self.stream.write("".join(f"{line.text}\n" for line in said))
        self.stream.flush()

    def began(self, progress: Progress) -> None:
        self.say([Line(lines.heading(progress))])

    def started(self, job: Job, progress: Progress) -> None:
        self.say([Line(lines.start_line(job, progress))])

    def finished(self, job: Job, progress: Progress, now: float) -> None:
        self.say([Line(lines.done_line(job, progress, self.timings, now))])

    def tick(self, progress: Progress, now: float) -> None:
        self.say(Line(lines.still_line(job, progress, now)) for job in progress.silent_for(HEARTBEAT, now))

    def close(self) -> None:
        """Nothing is held open."""


class QuietScreen(StreamScreen):
    """Errors and warnings only, for ``--quiet``."""

    def began(self, progress: Progress) -> None:
        """Not said."""

    def started(self, job: Job, progress: Progress) -> None:
        """Not said."""

    def finished(self, job: Job, progress: Progress, now: float) -> None:
        """Not said."""

    def tick(self, progress: Progress, now: float) -> None:
        """Not said."""


class TerminalScreen:
    """Lines scroll by above a display that shows the run and the jobs at work."""

    def __init__(self, stream: TextIO, timings: Timings, *, no_color: bool = False) -> None:
        # no_color=None leaves the decision to rich, which honours the NO_COLOR variable.
        self.console = Console(file=stream, force_terminal=True, no_color=no_color or None)
        self.timings = timings
        self.live: Live | None = None

    def say(self, said: Iterable[Line]) -> None:
        # A Text is printed as it is: brackets in it are no markup. Lines are not wrapped, so that a
        # command or a path can be copied in one piece.
        texts = [Text(line.text, style=STYLES[line.style]) for line in said]
        if texts:
            self.console.print(Text("\n").join(texts), soft_wrap=True)

    def began(self, progress: Progress) -> None:
        self.say([Line(lines.heading(progress), "dim")])

    def started(self, job: Job, progress: Progress) -> None:
        """The next tick shows it."""

    def finished(self, job: Job, progress: Progress, now: float) -> None:
        self.say([Line(lines.tick_line(job, progress, now), "good")])

    def tick(self, progress: Progress, now: float) -> None:
        if self.live is None:
            # What Python code prints to standard output would go to standard error along with the
            # display: take it over only where both are the terminal.
            out = sys.stdout.isatty()
            self.live = Live(console=self.console, auto_refresh=False, transient=True, redirect_stdout=out)
            self.live.start()
        self.live.update(self.picture(progress, now), refresh=True)

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()

    def picture(self, progress: Progress, now: float) -> Group:
        """The display: the run in one line, and a line for each job at work."""
        head = Text(lines.overall(progress, self.timings, now), style="bold", no_wrap=True, overflow="ellipsis")
        return Group(head, self._jobs(list(progress.running.values()), now))

    def _jobs(self, jobs: list[Job], now: float) -> Table:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(no_wrap=True, justify="right")
        if any(job.step for job in jobs):
            table.add_column(width=BAR_WIDTH)
            table.add_column(no_wrap=True, overflow="ellipsis", max_width=self.console.width // 3)
        for job in jobs:
            row: list[Text | ProgressBar] = [Text(f"  {job.message}"), Text(lines.clock(job.seconds(now)))]
            if job.step:
                row += [_bar(job.step), Text(lines.step_text(job.step))]
            table.add_row(*row)
        return table


def _bar(step: Step) -> ProgressBar:
    return ProgressBar(total=1.0, completed=step.fraction, width=BAR_WIDTH, complete_style="green")


def choose_screen(stream: TextIO, timings: Timings, *, quiet: bool, still: bool, no_color: bool) -> Screen:
    """The screen that fits the stream; ``still`` asks for no display (a dry run has nothing to redraw)."""
    if quiet:
        return QuietScreen(stream, timings)
    if stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb") and not still:
        return TerminalScreen(stream, timings, no_color=no_color)
    return StreamScreen(stream, timings)
