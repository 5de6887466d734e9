"""What a job says in its own log: how far it is, and why it failed."""

import re
from collections.abc import Iterable
from pathlib import Path

from snakemake_logger_plugin_anatomy.progress import Step

PROGRESS_LINE = re.compile(r"progress: (\d+)/(\d+)(?:\s+(.*))?$")
ERROR_PREFIX = "error: "
# Colours and cursor movements of a tool that believed it wrote to a terminal.
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b\x0c\x0e-\x1f]")

STEP_BYTES = 4096
REPORT_BYTES = 256 * 1024


def parse_step(line: str) -> Step | None:
    """Read ``progress: 1200/8910 free text``; None if the line is anything else."""
    match = PROGRESS_LINE.match(line)
    if not match or int(match[2]) == 0:
        return None
    return Step(int(match[1]), int(match[2]), (match[3] or "").strip())


def last_step(logs: Iterable[Path]) -> Step | None:
    """How far a job is: from the last line of its logs, if that line is a progress line."""
    for log in logs:
        lines = tail(log, STEP_BYTES)
        step = parse_step(lines[-1]) if lines else None
        if step:
            return step
    return None


def error_line(lines: list[str]) -> str:
    """The last line that begins with ``error: ``: the one clear message of a failing stage, or ""."""
    return next((line for line in reversed(lines) if line.startswith(ERROR_PREFIX)), "")


def tail(path: Path, size: int = REPORT_BYTES) -> list[str]:
    """The lines in the last ``size`` bytes of a file that are not blank; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            start = max(file.tell() - size, 0)
            file.seek(start)
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = [_as_seen(line) for line in text.split("\n")]
    return [line for line in lines[1 if start else 0 :] if line.strip()]


def written_since(path: Path, moment: float) -> bool:
    """Whether the log is from this attempt: a job that dies at once leaves the log of an earlier run."""
    try:
        return path.stat().st_mtime >= moment - 2  # some file systems keep whole or even seconds
    except OSError:
        return False


def _as_seen(line: str) -> str:
    """A line as a terminal would show it: what a carriage return overwrote is gone, and so are colours."""
    return ESCAPE.sub("", line.rstrip("\r").rsplit("\r", 1)[-1]).rstrip()
