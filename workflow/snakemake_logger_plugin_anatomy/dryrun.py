"""What a dry run (``-n``) answers: which jobs would run, and why."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from snakemake_logger_plugin_anatomy.lines import UP_TO_DATE, Line, plural

JOBS_PER_RULE = 10
FILES_SHOWN = 2
PARAMS_SHOWN = 80

# Snakemake's sentences and ours. A sentence ends where the next begins: values may contain "; ".
SENTENCES = {
    "Missing output files": "missing output files",
    "Incomplete output files": "incomplete output files",
    "Updated input files": "input files changed",
    "Input files updated by another job": "input comes from another of these jobs",
    "Set of input files has changed since last execution": "set of input files changed",
    "Code has changed since last execution": "code changed",
    "Params have changed since last execution": "params changed",
    "Software environment definition has changed since last execution": "software environment changed",
    "Forced execution": "forced",
}
FOLLOWS = "input comes from another of these jobs"
BOUNDARY = re.compile("; (?=" + "|".join(re.escape(sentence) for sentence in SENTENCES) + ")")


@dataclass(frozen=True)
class PlannedJob:
    """A job a dry run lists."""

    rule: str
    message: str
    reason: str  # as Snakemake words it
    wildcards: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    resources: dict[str, int | str] = field(default_factory=dict)  # mem_mb, runtime (minutes), gpu ...
    outputs: list[str] = field(default_factory=list)


def write_plan(path: Path, jobs: list[PlannedJob]) -> None:
    """The jobs as JSON, for a program that reckons with them."""
    path.write_text(json.dumps([asdict(job) for job in jobs]), encoding="utf-8")


def read_plan(path: Path) -> list[PlannedJob]:
    """What `write_plan` wrote."""
    return [PlannedJob(**job) for job in json.loads(path.read_text(encoding="utf-8"))]


def short_reason(reason: str) -> str:
    """Snakemake's reason for a job in few words: ``params changed``, ``missing output files: a.txt``."""
    parts = [_short_part(part) for part in BOUNDARY.split(reason.strip()) if part]
    # That the input comes from a job before this one is news only if nothing else is to be said.
    own = [part for part in parts if part != FOLLOWS]
    return "; ".join(own or parts)


def _short_part(part: str) -> str:
    sentence, _, rest = part.partition(": ")
    short = SENTENCES.get(sentence)
    if short is None:
        return part
    if short == FOLLOWS or not rest:
        return short
    if short == "params changed":
        changed = " ".join(rest.partition("across all output: ")[2].split()).replace(" now: ", ", now: ")
        changed = changed if len(changed) <= PARAMS_SHOWN else changed[:PARAMS_SHOWN] + "…"
        return f"{short} ({changed})" if changed else short
    return f"{short}: {_some(rest.split(', '))}"


def _some(files: list[str]) -> str:
    more = len(files) - FILES_SHOWN
    return ", ".join(files[:FILES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def dry_run_lines(jobs: list[PlannedJob], counts: dict[str, int]) -> list[Line]:
    """The jobs by rule, each with its reason; ``counts`` (jobs by rule) orders the rules and is complete."""
    total = sum(counts.values())
    if not total:
        return [Line(UP_TO_DATE, "good")]
    lines = [Line(f"{plural(total, 'job')} would run:", "good")]
    for rule, n in counts.items():
        lines.append(Line(f"{rule}: {plural(n, 'job')}"))
        of_rule = sorted((job for job in jobs if job.rule == rule), key=_natural)
        lines += [Line(f"  - {_item(job)}") for job in of_rule[:JOBS_PER_RULE]]
        if len(of_rule) > JOBS_PER_RULE:
            lines.append(Line(f"  - and {len(of_rule) - JOBS_PER_RULE} more"))
    return [*lines, Line("This was a dry run: nothing was run.", "dim")]


def _natural(job: PlannedJob) -> list[tuple[int, str]]:
    """Sorts seed 2 before seed 10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", job.message)]


def _item(job: PlannedJob) -> str:
    reason = short_reason(job.reason)
    return f"{job.message}  ({reason})" if reason else job.message
