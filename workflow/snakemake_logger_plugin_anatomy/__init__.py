"""A Snakemake logger that tells a person what is going on: ``snakemake --logger anatomy``.

Snakemake finds the package by its name. The parts: ``progress`` is the state of a run, ``estimate``
how long it will take, ``joblog`` what jobs write in their logs, ``lines``, ``failures`` and ``dryrun``
the words, ``screens`` the two ways to show them, ``narrator`` the translation of Snakemake's events.

A job tells how far it is by writing ``progress: 1200/8910 free text`` as a line of its log, and why it
gave up by writing ``error: what was wrong and what to do``.
"""

import contextlib
import logging
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

from snakemake_logger_plugin_anatomy.dryrun import write_plan
from snakemake_logger_plugin_anatomy.estimate import Timings
from snakemake_logger_plugin_anatomy.lines import Line
from snakemake_logger_plugin_anatomy.narrator import Narrator
from snakemake_logger_plugin_anatomy.screens import choose_screen

DEFAULT_TIMINGS = Path("docs/timings.json")
TICK = 0.5  # seconds between two looks at the logs of the running jobs


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """Command-line settings: the field ``timings`` is ``--logger-anatomy-timings``, and so on."""

    timings: Path | None = field(
        default=None,
        metadata={
            "help": "JSON file of rule name to typical seconds, for the estimate of the time left. "
            f"Default: {DEFAULT_TIMINGS}, if it exists.",
            "type": Path,
            "metavar": "PATH",
        },
    )
    plan: Path | None = field(
        default=None,
        metadata={
            "help": "In a dry run: write the jobs that would run, with why and what they ask for, to this JSON file.",
            "type": Path,
            "metavar": "PATH",
        },
    )


class LogHandler(LogHandlerBase):
    """The handler Snakemake calls. An error in here costs some lines of output, never the run."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True  # the narrator decides what is shown
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        common = self.common_settings
        quiet = {str(kind).rsplit(".", 1)[-1].lower() for kind in common.quiet or ()}
        # Under --quiet progress (and a bare --quiet) Snakemake does not tell that jobs finish.
        silent = bool(quiet & {"progress", "all"})
        timings, complaint = self._timings()
        self._screen = choose_screen(sys.stderr, timings, quiet=silent, still=common.dryrun, no_color=common.nocolor)
        self._narrator = Narrator(
            self._screen, dryrun=common.dryrun, quiet=silent, verbose=common.verbose, now=time.time()
        )
        self._over = threading.Event()
        self._warned = False
        if complaint:
            self._screen.say([Line(complaint, "warning")])
        threading.Thread(target=self._keep_ticking, name="anatomy-progress", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Handle one record; the caller, ``Handler.handle``, holds the lock."""
        try:
            self._narrator.handle(record)
        except Exception as fault:  # whatever it is, the workflow goes on
            self._stumble(fault)
            if record.levelno >= logging.ERROR:
                self._write(record.getMessage())

    def close(self) -> None:
        """Say how the run ended. Snakemake calls this, and Python once more at exit."""
        self.acquire()
        try:
            if not self._over.is_set():
                self._over.set()
                self._narrator.close(time.time())
                plan = self.settings.plan if isinstance(self.settings, LogHandlerSettings) else None
                if plan and self.common_settings.dryrun:
                    write_plan(plan, self._narrator.planned)
        except Exception as fault:
            self._stumble(fault)
        finally:
            self.release()
        super().close()

    def _keep_ticking(self) -> None:
        while not self._over.wait(TICK):
            self.acquire()
            try:
                if not self._over.is_set():
                    self._narrator.tick(time.time())
            except Exception as fault:
                self._stumble(fault)
            finally:
                self.release()

    def _timings(self) -> tuple[Timings, str]:
        """The timings, and what to complain about."""
        asked = self.settings.timings if isinstance(self.settings, LogHandlerSettings) else None
        path = asked or DEFAULT_TIMINGS
        if not asked and not path.exists():
            return Timings(), ""
        try:
            return Timings.read(path), ""
        except (OSError, ValueError) as fault:
            return Timings(), f"warning: no estimate from {path}: {fault}"

    def _stumble(self, fault: Exception) -> None:
        """Warn once that the display is not to be trusted any more."""
        if not self._warned:
            self._warned = True
            self._write(
                f"warning: the progress display failed ({type(fault).__name__}: {fault}); "
                "the workflow goes on, and .snakemake/log/ has everything it says"
            )

    @staticmethod
    def _write(text: str) -> None:
        with contextlib.suppress(Exception):  # standard error itself may be gone
            sys.stderr.write(f"{text}\n")
