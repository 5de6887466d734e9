"""A finished run of a study as it stands in a folder, and how the jobs of two runs differ."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from anatomy.provenance.digest import ArtifactError, short
from anatomy.provenance.explain import flatten
from anatomy.provenance.manifest import FILE_NAME, Entry, Manifest, read_manifest, studies_with_manifest
from anatomy.provenance.record import job_key, read_record

Kind = Literal["parameter", "seeds", "code", "environment lock", "package", "machine", "raw input", "job"]
# Two runs have two names; this one stands for both in the paths of what they made.
HOME = "results/*/"


@dataclass(frozen=True)
class Difference:
    """One thing in which a job of run A is not as in run B; None: it is not there."""

    kind: Kind
    name: str
    a: str | None
    b: str | None


@dataclass(frozen=True)
class JobRun:
    """One finished job; inputs and outputs map a path (results under HOME) to its recorded digest."""

    record: Mapping[str, Any]
    path: str
    sha256: str  # of the record, as the manifest has it
    inputs: Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """A run: its folder, its manifest, its jobs by name, and what made each of its results."""

    folder: Path
    manifest: Manifest
    jobs: Mapping[str, JobRun]
    results: Mapping[str, Entry] = field(repr=False)
    makers: Mapping[str, str] = field(repr=False)

    def file(self, key: str) -> Path:
        """Where a result stands now."""
        return self.folder / key.removeprefix(HOME)

    def digest(self, key: str) -> str | None:
        """The recorded digest of a result; None when this run did not make it."""
        return self.results[key]["sha256"] if key in self.results else None


def read_run(text: str, root: Path = Path()) -> Run:
    """The run of a study under results/, or of a folder results/{study} anywhere.

    Raises ArtifactError when neither is there, or its manifest or a record cannot be read.
    """
    folder = root / "results" / text
    if not folder.is_dir():
        folder = root / text
    if not folder.is_dir():
        known = ", ".join(studies_with_manifest(root)) or "none"
        raise ArtifactError(
            f"{text}: no study under results/, and no such folder. Studies that can be compared: {known}"
        )
    manifest = read_manifest(folder / FILE_NAME)
    inside = f"results/{manifest.study}/"
    jobs: dict[str, JobRun] = {}
    makers: dict[str, str] = {}
    names: dict[str, str] = {}  # record -> job
    for entry in manifest.entries:
        if entry["record"] not in names:
            record = read_record(folder / entry["record"].removeprefix(inside))
            job = job_key(record["rule"], record["wildcards"])
            if job in jobs:  # a record that an earlier form of the rule left behind
                job = f"{job} ({entry['record'].removeprefix(inside)})"
            names[entry["record"]] = job
            inputs = {_key(used["path"], inside): used["sha256"] for used in entry["inputs"]}
            jobs[job] = JobRun(record, entry["record"].removeprefix(inside), entry["record_sha256"], inputs)
            makers[_key(entry["record"], inside)] = job
        makers[_key(entry["path"], inside)] = names[entry["record"]]
    results = {_key(entry["path"], inside): entry for entry in manifest.entries}
    return Run(folder, manifest, jobs, results, makers)


def _key(path: str, inside: str) -> str:
    return HOME + path.removeprefix(inside) if path.startswith(inside) else path


def job_differences(a: Run, b: Run) -> dict[str, tuple[Difference, ...]]:
    """Job -> all in which it is not the same in both runs; jobs without a difference are left out.

    What another job made is no difference of its own: that job has it.
    """
    names = [*a.jobs, *(job for job in b.jobs if job not in a.jobs)]
    found = {job: tuple(_differences(job, a, b)) for job in names}
    return {job: differences for job, differences in found.items() if differences}


def _differences(job: str, a: Run, b: Run) -> list[Difference]:
    if job not in a.jobs or job not in b.jobs:
        return [Difference("job", job, *("run" if job in run.jobs else None for run in (a, b)))]
    one, two = a.jobs[job].record, b.jobs[job].record
    found = _pairs("parameter", dict(flatten(one["spec"])), dict(flatten(two["spec"])))
    if not any(difference.name == "seeds" for difference in found):
        found += _pairs("seeds", dict(flatten(one["seeds"], "seeds")), dict(flatten(two["seeds"], "seeds")))
    found += _pairs("code", {"code": short(one["code"])}, {"code": short(two["code"])})
    found += _pairs("environment lock", {"lock": short(one["lock"])}, {"lock": short(two["lock"])})
    found += _pairs("package", one["environment"]["packages"], two["environment"]["packages"])
    found += _pairs("machine", _machine(one), _machine(two))
    raw = [{p: short(d) for p, d in run.jobs[job].inputs.items() if p not in run.makers} for run in (a, b)]
    return found + _pairs("raw input", *raw)


def _machine(record: Mapping[str, Any]) -> dict[str, str]:
    environment = {name: str(value) for name, value in record["environment"].items() if name != "packages"}
    return {**environment, "device": record["device"], "threads": str(record["threads"])}


def _pairs(kind: Kind, one: Mapping[str, str | None], two: Mapping[str, str | None]) -> list[Difference]:
    names = [*one, *(name for name in two if name not in one)]
    return [Difference(kind, n, one.get(n), two.get(n)) for n in names if one.get(n) != two.get(n)]
