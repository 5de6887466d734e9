"""The run record: one JSON file per job, beside its results, saying what went in, what came out, and how.

The record names its files relative to the repository root (the working directory of every job), so that a
record made in one checkout is true in another.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

from threadpoolctl import threadpool_info

from anatomy.provenance.digest import ArtifactError, files_under, sha256_file, write_json_atomic

SCHEMA = 1
TOOL = "backdoor-anatomy"
RECORD_SUFFIX = "run.json"
# What the code names itself; the full list stands in the lock, whose digest is in the record too.
DISTRIBUTIONS = (
    *("torch", "transformers", "tokenizers", "safetensors", "datasets", "scikit-learn", "optuna"),
    *("numpy", "pandas", "pyarrow", "scipy", "snakemake", "dvc", "papermill", "matplotlib"),
)
FIELDS = {
    *("schema", "tool", "job", "rule", "study", "wildcards", "spec", "seeds", "code", "lock"),
    *("inputs", "outputs", "device", "threads", "started", "wall_s", "cpu_s", "peak_rss_mb"),
    *("environment", "git"),
}

Paths = Mapping[str, Sequence[str | Path]]


@dataclass(frozen=True)
class Artifact:
    """One file as it was: its path from the repository root (absolute when outside), digest and size."""

    path: str
    sha256: str
    bytes: int


def describe(paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """Hash files for a record; a folder stands for the files below it, the hidden ones excepted.

    Records inside a folder are left out: the time they hold differs on every run, and they are no part of
    the result. ArtifactError when a path is not there.
    """
    return [asdict(_artifact(file)) for path in paths for file in _expand(Path(path))]


def environment() -> dict[str, Any]:
    """Python, platform, kernels, and the installed versions of the main packages (None: not installed)."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "kernels": kernels(),
        "packages": {name: _version(name) for name in DISTRIBUTIONS},
    }


def kernels() -> list[str]:
    """The kernels this process multiplies matrices with, as NumPy's BLAS and torch name them; they decide rounding."""
    found = {
        f"{lib['internal_api']} {lib.get('architecture', '')}" for lib in threadpool_info() if "blas" in lib["user_api"]
    }
    torch = sys.modules.get("torch")  # not to be loaded for its name
    return sorted(found | ({f"torch {torch.backends.cpu.get_cpu_capability()}"} if torch else set()))


def git_state() -> dict[str, Any]:
    """The commit and whether anything differs from it (new files count); None where git cannot tell."""
    status = _git("status", "--porcelain")
    return {
        "commit": _git("rev-parse", "--verify", "HEAD"),
        "dirty": None if status is None else bool(status),
    }


def job_key(rule: str, wildcards: Mapping[str, str]) -> str:
    """The name of a job within a study: `train_clean[model=toy,seed=1]`, or the rule alone."""
    values = ",".join(f"{name}={value}" for name, value in sorted(wildcards.items()))
    return f"{rule}[{values}]" if values else rule


def write_record(
    path: str | Path,
    *,
    rule: str,
    study: str,
    wildcards: Mapping[str, str],
    spec: Any,
    seeds: Mapping[str, int] | Sequence[int],
    code: str,
    lock: str | None,
    inputs: Paths,
    outputs: Paths,
    device: str,
    threads: int,
    started: datetime,
    wall_s: float,
    cpu_s: float,
    peak_rss_mb: float,
) -> dict[str, Any]:
    """Hash the inputs and outputs of a finished job, write its record and return it.

    `spec` is the part of the study the job read (plain JSON values), `code` its code digest, `lock` the
    digest of the environment lock; times in seconds, memory in MiB. The record's own path may stand among
    the outputs, as it does in a rule, and is skipped. ArtifactError: a file is missing, or no output is left.
    """
    made = {name: describe(_without(Path(path), paths)) for name, paths in outputs.items()}
    if not any(made.values()):
        raise ArtifactError(f"{path}: the rule {rule} names no output file, so there is nothing to record")
    if not str(path).endswith(RECORD_SUFFIX):
        raise ArtifactError(f"{path}: the name of a run record ends in {RECORD_SUFFIX}, so that it is known as one")
    record = {
        "schema": SCHEMA,
        "tool": f"{TOOL} {_version(TOOL) or 'unknown'}",
        "job": uuid4().hex,
        "rule": rule,
        "study": study,
        "wildcards": dict(wildcards),
        "spec": spec,
        "seeds": seeds,
        "code": code,
        "lock": lock,
        "inputs": {name: describe(paths) for name, paths in inputs.items()},
        "outputs": {name: files for name, files in made.items() if files},
        "device": device,
        "threads": threads,
        "started": started.astimezone(UTC).isoformat(timespec="seconds"),
        "wall_s": round(wall_s, 3),
        "cpu_s": round(cpu_s, 3),
        "peak_rss_mb": round(peak_rss_mb, 1),
        "environment": environment(),
        "git": git_state(),
    }
    write_json_atomic(path, record)
    return record


def read_record(path: str | Path) -> dict[str, Any]:
    """Read a run record; ArtifactError when it is missing, cut short, foreign or of another schema."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(f"{path}: the run record cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ArtifactError(
            f"{path} is not a complete run record ({error}). Delete it together with the outputs beside it "
            "and run the workflow again: the job is then repeated."
        ) from error
    _validate(path, record)
    return record


def _validate(path: str | Path, record: Any) -> None:
    if not isinstance(record, dict) or not str(record.get("tool", "")).startswith(f"{TOOL} "):
        raise ArtifactError(
            f"{path} is not a run record of {TOOL}: some other program wrote it. Names that end in "
            f"{RECORD_SUFFIX} are kept for run records under results/; give that file another name."
        )
    if record.get("schema") != SCHEMA:
        raise ArtifactError(
            f"{path} has record schema {record.get('schema')!r}, this version reads {SCHEMA}. "
            f"Read it with the version that wrote it: {record['tool']}."
        )
    missing, unknown = sorted(FIELDS - set(record)), sorted(set(record) - FIELDS)
    if missing or unknown:
        raise ArtifactError(f"{path} is not a whole run record: missing {missing}, unknown {unknown}")
    if not (isinstance(record["rule"], str) and isinstance(record["wildcards"], dict)):
        raise ArtifactError(f"{path}: rule must be a text and wildcards a mapping")
    for side in ("inputs", "outputs"):
        if not _are_artifacts(record[side]):
            raise ArtifactError(f"{path}: {side} must map a name to a list of files, each with path, sha256 and bytes")


def _are_artifacts(groups: Any) -> bool:
    if not isinstance(groups, dict) or not all(isinstance(files, list) for files in groups.values()):
        return False
    files = [file for group in groups.values() for file in group]
    kinds = {"path": str, "sha256": str, "bytes": int}
    return all(isinstance(f, dict) and {k: type(v) for k, v in f.items()} == kinds for f in files)


def _artifact(file: Path) -> Artifact:
    try:
        return Artifact(from_root(file), sha256_file(file), file.stat().st_size)
    except FileNotFoundError as error:
        raise ArtifactError(f"{file} was to be recorded but is not there: did the job finish?") from error


def _expand(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = [f for f in files_under(path) if not f.name.startswith(".") and not f.name.endswith(RECORD_SUFFIX)]
    if not files:
        raise ArtifactError(f"{path} was to be recorded but is an empty folder")
    return files


def _without(record: Path, paths: Sequence[str | Path]) -> list[Path]:
    """The paths without the record itself, which is not written yet."""
    return [Path(path) for path in paths if from_root(Path(path)) != from_root(record)]


def from_root(path: Path) -> str:
    """The name of a file in records: relative to the working directory, absolute when outside of it."""
    absolute = Path(os.path.normpath(Path.cwd() / path))
    return (absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute).as_posix()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _git(*words: str) -> str | None:
    # Without --no-optional-locks, many jobs at once would fight for the lock of the index.
    command = ["git", "--no-optional-locks", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
