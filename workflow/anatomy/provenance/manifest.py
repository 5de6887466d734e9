"""The manifest: one line per result of a study, binding its digest to rule, code, parameters and inputs.

Snakemake keeps no digest of any output. The manifest does: it is what the audit compares the disk with, and
its own digest is what a paper or a commit has to state.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypedDict

from anatomy.provenance.digest import (
    ArtifactError,
    Seen,
    sha256_file,
    sha256_files,
    sha256_json,
    short,
    write_text_atomic,
)
from anatomy.provenance.record import from_root, read_record

FORMAT = 1
FILE_NAME = "manifest.jsonl"


class Input(TypedDict):
    """A file a job read, with the digest it had then."""

    path: str
    sha256: str


class Entry(TypedDict):
    """One artefact. Paths are relative to the repository root; `code` and `lock` are digests."""

    path: str
    sha256: str
    bytes: int
    rule: str
    job: str
    code: str
    spec_sha256: str
    lock: str | None
    inputs: list[Input]
    environment_sha256: str
    record: str
    record_sha256: str


@dataclass(frozen=True)
class Manifest:
    """A manifest as read: its own digest, the study, the environment lock it was built under, its lines."""

    path: Path
    sha256: str
    study: str
    lock: str | None
    entries: tuple[Entry, ...]


def manifest_path(study: str, root: Path = Path()) -> Path:
    """Where the manifest of a study stands."""
    return root / "results" / study / FILE_NAME


def studies_with_manifest(root: Path = Path()) -> list[str]:
    """The studies under results/ that have a manifest, sorted."""
    return sorted(path.parent.name for path in root.glob(f"results/*/{FILE_NAME}"))


def build_manifest(records: Iterable[Path], withheld: Collection[str] = ()) -> list[Entry]:
    """The lines of the manifest from the run records of one study, sorted by path; every output is re-hashed.

    Of outputs that a restore left out (`withheld`), the digest is the one in their record, which came with the archive.

    ArtifactError when an output is missing or is not what its record says, when two records claim one path,
    when a job read another version of a file than the one recorded by its maker, or when studies are mixed.
    """
    loaded = {from_root(path): (read_record(path), sha256_file(path)) for path in records}
    _refuse_mixed_studies({path: record["study"] for path, (record, _) in loaded.items()})
    claims: dict[str, Entry] = {}
    for path, (record, digest) in loaded.items():
        for entry in entries_of(record, path, digest):
            _refuse_second_claim(claims.get(entry["path"]), entry)
            claims[entry["path"]] = entry
    entries = [claims[path] for path in sorted(claims)]
    made = recorded_digests(entries)
    seen = sha256_files(Path(path) for path in claims)
    for entry in entries:
        if entry["path"] not in withheld or seen[Path(entry["path"])].sha256:
            _refuse_difference(entry, seen[Path(entry["path"])])
        _refuse_stale_input(entry, made)
    return entries


def entries_of(record: Mapping[str, Any], path: str, digest: str) -> list[Entry]:
    """The manifest lines that one record stands for; `path` and `digest` are those of the record itself."""
    read = {file["path"]: file["sha256"] for group in record["inputs"].values() for file in group}
    made = {file["path"]: file for group in record["outputs"].values() for file in group}
    return [
        Entry(
            path=file["path"],
            sha256=file["sha256"],
            bytes=file["bytes"],
            rule=record["rule"],
            job=record["job"],
            code=record["code"],
            spec_sha256=sha256_json(record["spec"]),
            lock=record["lock"],
            inputs=[Input(path=name, sha256=read[name]) for name in sorted(read)],
            environment_sha256=sha256_json(record["environment"]),
            record=path,
            record_sha256=digest,
        )
        for file in made.values()
    ]


def recorded_digests(entries: Sequence[Entry]) -> dict[str, str]:
    """Path -> digest of everything the study made: its artefacts and their records."""
    records = {entry["record"]: entry["record_sha256"] for entry in entries}
    return records | {entry["path"]: entry["sha256"] for entry in entries}


def write_manifest(path: str | Path, entries: Sequence[Entry], *, study: str, lock: str | None) -> None:
    """Write the header line and one JSON line per artefact, sorted by path.

    `lock` is the digest of the environment lock now: the audit holds each artefact's own against it.
    """
    header = {"manifest": FORMAT, "study": study, "artifacts": len(entries), "lock": lock}
    lines = [header, *sorted(entries, key=lambda entry: entry["path"])]
    write_text_atomic(path, "".join(json.dumps(line) + "\n" for line in lines))


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest; ArtifactError, with the line, when it is missing, cut short, edited or foreign."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        others = ", ".join(studies_with_manifest(path.parent.parent.parent)) or "none"
        raise ArtifactError(
            f"{path} cannot be read ({error.strerror}). The manifest is written when a study has run to its "
            f"end; studies that have one: {others}."
        ) from error
    lines = content.splitlines()
    header = _parse(path, 1, lines[0] if lines else b"")
    if header.get("manifest") != FORMAT or not {"study", "artifacts", "lock"} <= set(header):
        raise ArtifactError(f'{path}, line 1: not the header of a manifest, {{"manifest": {FORMAT}, ...}}')
    entries = tuple(_entry(path, number, line) for number, line in enumerate(lines[1:], start=2))
    for number, (before, entry) in enumerate(pairwise(entries), start=3):
        if entry["path"] <= before["path"]:
            raise ArtifactError(f"{path}, line {number}: {entry['path']} is out of order or there twice")
    if len(entries) != header["artifacts"]:
        raise ArtifactError(
            f"{path}, line {len(lines)}: the file ends after {len(entries)} artefacts, its header promises "
            f"{header['artifacts']}. It was cut short or edited; delete it and run the workflow again."
        )
    return Manifest(path, hashlib.sha256(content).hexdigest(), header["study"], header["lock"], entries)


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ArtifactError(
            f"{path}, line {number}: not complete JSON. The file was cut short or edited; delete it and run "
            "the workflow again: it is rebuilt from the run records."
        ) from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}, line {number}: not a JSON object")
    return value


def _entry(path: Path, number: int, line: bytes) -> Entry:
    value = _parse(path, number, line)
    wanted = set(Entry.__annotations__)
    if set(value) != wanted:
        odd = sorted(set(value) ^ wanted)
        raise ArtifactError(f"{path}, line {number}: not a line of a manifest (missing or unknown: {odd})")
    return Entry(**value)  # type: ignore[typeddict-item]


def _refuse_mixed_studies(study_of: Mapping[str, str]) -> None:
    if not study_of:
        raise ArtifactError("no run records were given, so there is nothing to put into a manifest")
    first, study = next(iter(study_of.items()))
    for path, other in study_of.items():
        if other != study:
            raise ArtifactError(f"a manifest holds one study: {first} belongs to {study!r}, {path} to {other!r}")


def _refuse_second_claim(first: Entry | None, second: Entry) -> None:
    if first and first["record"] != second["record"]:
        raise ArtifactError(
            f"two run records claim {second['path']}: {first['record']} (rule {first['rule']}) and "
            f"{second['record']} (rule {second['rule']}). Delete the record left over from an earlier "
            "run; if both are new, two rules write one file."
        )


def _refuse_difference(entry: Entry, seen: Seen) -> None:
    path, rule = entry["path"], entry["rule"]
    if seen.sha256 == entry["sha256"]:
        return
    found = f"its digest is {seen.sha256}" if seen.sha256 else seen.problem
    raise ArtifactError(
        f"{path} is not what the rule {rule} made: {entry['record']} says {entry['sha256']}, now {found}. "
        f"Something else wrote or removed it. To make it again: delete {path} and run the workflow."
    )


def _refuse_stale_input(entry: Entry, made: Mapping[str, str]) -> None:
    for used in entry["inputs"]:
        now = made.get(used["path"], used["sha256"])
        if now != used["sha256"]:
            raise ArtifactError(
                f"{entry['path']} (rule {entry['rule']}) was made from an earlier {used['path']}: it read "
                f"{short(used['sha256'])}, the record of that file says {short(now)}. "
                f"Make it again: snakemake --forcerun {entry['rule']}"
            )
