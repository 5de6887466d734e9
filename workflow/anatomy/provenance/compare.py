"""Two runs beside one another: which numbers moved, and what explains it.

The causes of a moved number are found by walking up its chain from file to file, and only along files whose recorded
digests differ between the runs: where a job read the same bytes, nothing above those bytes can have moved its result.
On the way, everything in which a job itself differs (parameters, code, lock, packages, machine, raw inputs) is a
cause. A number that moved in a file whose recorded digests are the same was not moved by any job.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from anatomy.provenance.digest import sha256_files
from anatomy.provenance.lines import Line, key_of, read_lines
from anatomy.provenance.runs import HOME, Difference, Run, job_differences, read_run

CLAIMS = f"{HOME}claims.csv"
FOLDERS = (f"{HOME}tables/", f"{HOME}figures/")  # of figures their data
# What of a cell or claim is a number or a verdict; of a table without `measured` everything but its key is.
VALUES = (
    *("measured", "ci_low", "ci_high", "n", "predicted_low", "predicted_high"),
    *("expected", "published", "verdict"),
)
NUMBERS = {"measured", "ci_low", "ci_high"}


@dataclass(frozen=True)
class Change:
    """One line that is not the same in both runs; `a` or `b` is None when only the other run has it.

    `beyond`: the number moved beyond its intervals, which do not meet (or there is no interval to cover it). A single
    seed's point has none and is never beyond: it is its mean that says whether something moved.
    """

    key: Mapping[str, str]
    a: Line | None
    b: Line | None
    fields: tuple[str, ...]
    beyond: bool


@dataclass(frozen=True)
class Cause:
    """One difference, with the jobs that have it."""

    difference: Difference
    jobs: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """A table, a figure's data, or the claims: its lines that moved, and why.

    `touched` names, per run, files that are not the bytes that were recorded; `unexplained` names files that the same
    code made from the same parameters and inputs, and that differ nevertheless.
    """

    name: str
    lines: int
    changes: tuple[Change, ...]
    causes: tuple[Cause, ...]
    touched: tuple[str, ...]
    unexplained: tuple[str, ...]

    @property
    def beyond(self) -> int:
        """How many lines moved beyond their intervals."""
        return sum(change.beyond for change in self.changes)

    @property
    def verdicts(self) -> int:
        """How many verdicts are not the same."""
        return sum("verdict" in change.fields for change in self.changes)


@dataclass(frozen=True)
class Comparison:
    """Both runs (folder, study, digest of the manifest), every table, figure and the claims, every differing job."""

    a: Mapping[str, str]
    b: Mapping[str, str]
    results: tuple[Result, ...]
    causes: tuple[Cause, ...]

    @property
    def equal(self) -> bool:
        """Whether every number and verdict is the same."""
        return not any(result.changes for result in self.results)


def compare(run_a: str, run_b: str, root: Path = Path()) -> Comparison:
    """Compare the tables, figures' data and claims of two runs, each a study or the path of a results folder.

    ArtifactError when a run, one of its records, or a table cannot be read.
    """
    a, b = read_run(run_a, root), read_run(run_b, root)
    differing = job_differences(a, b)
    keys = sorted(key for key in {*a.results, *b.results} if key == CLAIMS or _has_lines(key))
    return Comparison(_title(a), _title(b), tuple(_result(key, a, b, differing) for key in keys), _grouped(differing))


def _title(run: Run) -> dict[str, str]:
    return {
        "folder": run.folder.as_posix(),
        "study": run.manifest.study,
        "manifest_sha256": run.manifest.sha256,
    }


def _has_lines(key: str) -> bool:
    return key.startswith(FOLDERS) and key.endswith(".csv")


def _result(key: str, a: Run, b: Run, differing: Mapping[str, tuple[Difference, ...]]) -> Result:
    lines = {name: _lines(key, run) for name, run in (("a", a), ("b", b))}
    names = [*lines["a"], *(name for name in lines["b"] if name not in lines["a"])]
    compared = [_change(dict(name), lines["a"].get(name), lines["b"].get(name)) for name in names]
    jobs, unexplained = _walk(key, a, b, differing)
    return Result(
        name=key.removeprefix(HOME),
        lines=len(names),
        changes=tuple(change for change in compared if change),
        causes=_grouped({job: differing[job] for job in jobs if job in differing}),
        touched=(*_touched("A", a, key, jobs), *_touched("B", b, key, jobs)),
        unexplained=tuple(name.removeprefix(HOME) for name in unexplained),
    )


def _lines(key: str, run: Run) -> dict[tuple[tuple[str, str], ...], Line]:
    """The lines of a result by what names them; a name that stands twice is numbered."""
    if key not in run.results or not run.file(key).exists():
        return {}
    seen: Counter[tuple[tuple[str, str], ...]] = Counter()
    lines = {}
    for line in read_lines(run.file(key)):
        name = key_of(line)
        seen[name] += 1
        lines[name if seen[name] == 1 else (*name, ("occurrence", str(seen[name])))] = line
    return lines


def _change(key: dict[str, str], a: Line | None, b: Line | None) -> Change | None:
    if a is None or b is None:
        return Change(key, a, b, ("line",), True)
    plain = "measured" not in a or "measured" not in b
    names = [name for name in {**a, **b} if (name not in key if plain else name in VALUES)]
    fields = tuple(name for name in names if a.get(name) != b.get(name))
    moved = not a.get("seed") and (plain or bool(NUMBERS & set(fields)))
    return Change(key, a, b, fields, moved and not _intervals_meet(a, b)) if fields else None


def _intervals_meet(a: Line, b: Line) -> bool:
    try:
        low_a, high_a, low_b, high_b = (float(line[end]) for line in (a, b) for end in ("ci_low", "ci_high"))
    except (KeyError, ValueError):  # no interval
        return False
    return low_a <= high_b and low_b <= high_a


def _walk(key: str, a: Run, b: Run, differing: Mapping[str, tuple[Difference, ...]]) -> tuple[list[str], list[str]]:
    """The jobs on the way up along files that differ, and the files that differ though nothing else does."""
    jobs: dict[str, None] = {}
    unexplained = []
    pending, seen = [key], {key}
    while pending:
        path = pending.pop()
        if a.digest(path) == b.digest(path) and path in a.results:
            continue
        makers = {run.makers[path] for run in (a, b) if path in run.makers}
        jobs.update(dict.fromkeys(sorted(makers)))
        used = [run.jobs[job].inputs if job in run.jobs else {} for run in (a, b) for job in sorted(makers)]
        other = _other_inputs(used)
        pending.extend(name for name in sorted(other) if name not in seen and (name in a.makers or name in b.makers))
        if not other and not makers & set(differing):
            unexplained.append(path)
        seen |= other
    return list(jobs), unexplained


def _other_inputs(used: Iterable[Mapping[str, str]]) -> set[str]:
    """Inputs that were not the same bytes everywhere, or not there everywhere."""
    used = list(used)
    names = {name for inputs in used for name in inputs}
    return {name for name in names if len({inputs.get(name) for inputs in used}) > 1}


def _touched(label: str, run: Run, key: str, jobs: list[str]) -> list[str]:
    """The result, and the run records of its jobs, that are no longer what the manifest of a run says."""
    recorded = {run.file(key): run.results[key]["sha256"]} if key in run.results else {}
    recorded |= {run.folder / run.jobs[job].path: run.jobs[job].sha256 for job in jobs if job in run.jobs}
    now = sha256_files(recorded)
    return [
        f"{path.relative_to(run.folder)} of run {label} is not as recorded ({now[path].problem or 'edited?'})"
        for path, digest in recorded.items()
        if now[path].sha256 != digest
    ]


def _grouped(differing: Mapping[str, Iterable[Difference]]) -> tuple[Cause, ...]:
    """Each difference once, with its jobs."""
    jobs: dict[Difference, list[str]] = {}
    for job, differences in differing.items():
        for difference in differences:
            jobs.setdefault(difference, []).append(job)
    return tuple(Cause(difference, tuple(names)) for difference, names in jobs.items())
