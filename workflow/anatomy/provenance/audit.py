"""Was any result of a study touched, and would today's code, parameters and environment make it again?

The audit reads every byte anew. It trusts no modification time, size or cache: neither `snakemake -n` nor
`dvc status` notices one flipped bit behind an unchanged time stamp. Its anchor is the manifest; the digest
of that is in the report, to be held against the one committed or printed.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from anatomy.provenance.audit_documents import document_paths, judge_documents
from anatomy.provenance.audit_ledger import ledger_notes, withheld_paths
from anatomy.provenance.audit_report import AuditReport, Finding, Verdict, print_report, report_json
from anatomy.provenance.code import HOME, PACKAGE, rule_codes
from anatomy.provenance.digest import ArtifactError, Seen, files_under, sha256_files, short
from anatomy.provenance.ledger import is_hazard
from anatomy.provenance.manifest import (
    FILE_NAME,
    Entry,
    Manifest,
    entries_of,
    manifest_path,
    read_manifest,
    recorded_digests,
)
from anatomy.provenance.record import job_key, read_record
from anatomy.spec.layout import LAYOUT_FILE

__all__ = ["AuditReport", "Expected", "Finding", "Verdict", "audit", "print_report", "report_json"]

# Written while jobs run or for people to read; no number comes from them, and no two runs agree on them.
FREE_FOLDERS = {"logs", "notebooks"}
Problem = tuple[Verdict, str]


@dataclass(frozen=True)
class Expected:
    """What today's workflow would use; None: find out without it, as far as that goes.

    `code` and `spec_sha256` map a job (`record.job_key`) or a rule to a digest; what they do not name is not
    compared. Without `code`, a rule is compared with the stage module of its name. Without `lock`, the lock
    in the header of the manifest counts.
    """

    code: Mapping[str, str] | None = None
    spec_sha256: Mapping[str, str] | None = None
    lock: str | None = None


@dataclass(frozen=True)
class _Evidence:
    seen: Mapping[str, Seen]
    records: Mapping[str, dict[str, Any] | str]  # a text says why a record cannot be read
    made: Mapping[str, str]
    today: Expected
    withheld: frozenset[str]  # what a restore left out
    lines: dict[str, dict[str, Entry]] = field(default_factory=dict)  # record -> the manifest lines it stands for


def audit(study: str, *, root: Path = Path(), expected: Expected | None = None) -> AuditReport:
    """Re-hash every artefact, record and raw input of a study and judge each.

    `root` is the repository. Raises ArtifactError when the manifest itself cannot be read or is another's.
    """
    began = time.perf_counter()
    manifest = read_manifest(manifest_path(study, root))
    if manifest.study != study:
        raise ArtifactError(f"{manifest.path} is the manifest of the study {manifest.study!r}, not {study!r}")
    made = recorded_digests(manifest.entries)
    raw = _raw_inputs(manifest, made)
    hashed = sha256_files(root / name for name in [*made, *raw])
    seen = {name: hashed[root / name] for name in [*made, *raw]}
    records = {name: _read(root / name) for name in {entry["record"] for entry in manifest.entries}}
    today = _complete(expected or Expected(), manifest, root)
    evidence = _Evidence(seen, records, made, today, withheld_paths(study, root))
    documents, notes = judge_documents(manifest, _sound(evidence, manifest), root)
    findings = [
        *(_judge(entry, evidence) for entry in manifest.entries),
        *_judge_inputs(raw, seen),
        *documents,
        *_unrecorded(study, root, seen),
    ]
    return AuditReport(
        study=study,
        findings=tuple(findings),
        artefacts=len(manifest.entries),
        bytes=sum(one.bytes for one in seen.values()),
        seconds=time.perf_counter() - began,
        manifest_sha256=manifest.sha256,
        unchecked=_unchecked(expected, today, manifest),
        notes=(*notes, *ledger_notes(study, root)),
    )


def _complete(expected: Expected, manifest: Manifest, root: Path) -> Expected:
    """Fill in what is known without the workflow: the code of the stages and the manifest's own lock."""
    code = expected.code
    if code is None:
        home = root / "workflow" if (root / "workflow" / PACKAGE).is_dir() else HOME
        rules = sorted({entry["rule"] for entry in manifest.entries})
        code = rule_codes(rules, root=home, notebooks=root / "notebooks")
    return replace(expected, code=code, lock=expected.lock or manifest.lock)


def _unchecked(expected: Expected | None, today: Expected, manifest: Manifest) -> tuple[str, ...]:
    known = {job.partition("[")[0] for job in today.code or ()}
    rules = sorted({entry["rule"] for entry in manifest.entries} - known)
    notes = [f"code of {', '.join(rules)}"] if rules else []
    if expected is None or expected.spec_sha256 is None:
        notes.append("parameters (nothing says what they should be)")
    if today.lock is None:
        notes.append("environment (the manifest names no lock)")
    return tuple(notes)


def _read(path: Path) -> dict[str, Any] | str:
    try:
        return read_record(path)
    except ArtifactError as error:
        return str(error)


def _sound(evidence: _Evidence, manifest: Manifest) -> dict[str, dict[str, Any]] | None:
    """The records by path, when all of them are those that the manifest was built from."""
    digests = {entry["record"]: entry["record_sha256"] for entry in manifest.entries}
    if any(evidence.seen[name].sha256 != digest for name, digest in digests.items()):
        return None
    read = {name: record for name, record in evidence.records.items() if isinstance(record, dict)}
    return read if read.keys() == digests.keys() else None


def _judge(entry: Entry, evidence: _Evidence) -> Finding:
    """The gravest verdict that holds for an artefact: exactly one."""
    for check in (_check_bytes, _check_record, _check_chain, _check_making):
        problem = check(entry, evidence)
        if problem:
            return Finding(entry["path"], *problem, entry["rule"])
    return Finding(entry["path"], "intact", "", entry["rule"])


def _check_bytes(entry: Entry, evidence: _Evidence) -> Problem | None:
    seen = evidence.seen[entry["path"]]
    if seen.sha256 is None:
        if entry["path"] in evidence.withheld and is_hazard(entry["path"]):
            return "withheld", "not fetched by the restore; what needs it makes it again"
        return "missing", seen.problem
    if seen.sha256 == entry["sha256"]:
        return None
    size = f"{entry['bytes']} bytes" + (f", now {seen.bytes}" if seen.bytes != entry["bytes"] else " as before")
    recorded = _line_from_record(entry, evidence)
    hint = "; its record agrees with the file: the manifest was edited"
    edited = isinstance(recorded, dict) and recorded["sha256"] == seen.sha256
    return (
        "changed",
        f"was {short(entry['sha256'])}, now {short(seen.sha256)} ({size}){hint if edited else ''}",
    )


def _check_record(entry: Entry, evidence: _Evidence) -> Problem | None:
    recorded = _line_from_record(entry, evidence)
    if isinstance(recorded, str):
        return "forged record", recorded
    fields = [name for name, value in recorded.items() if value != entry.get(name)]
    if fields:
        return "forged record", f"{entry['record']} and the manifest differ on: {', '.join(fields)}"
    return None


def _line_from_record(entry: Entry, evidence: _Evidence) -> Entry | str:
    """The manifest line that the record on the disk stands for, or why it stands for none."""
    name, seen, record = entry["record"], evidence.seen[entry["record"]], evidence.records[entry["record"]]
    if seen.sha256 is None:
        return f"the run record {name} is missing ({seen.problem})"
    if seen.sha256 != entry["record_sha256"]:
        return f"{name} was {short(entry['record_sha256'])} in the manifest, now {short(seen.sha256)}"
    if isinstance(record, str):
        return record
    if name not in evidence.lines:  # a job of many outputs is read once
        evidence.lines[name] = {line["path"]: line for line in entries_of(record, name, seen.sha256)}
    return evidence.lines[name].get(entry["path"], f"{name} does not name this file")


def _check_chain(entry: Entry, evidence: _Evidence) -> Problem | None:
    for used in entry["inputs"]:
        now = evidence.made.get(used["path"], used["sha256"])
        if now != used["sha256"]:
            return "changed input", f"made from {used['path']} {short(used['sha256'])}, recorded {short(now)}"
    return None


def _check_making(entry: Entry, evidence: _Evidence) -> Problem | None:
    """Code, parameters and environment against today's; the record is known to be sound here."""
    record, today = evidence.records[entry["record"]], evidence.today
    job = job_key(entry["rule"], record["wildcards"] if isinstance(record, dict) else {})
    wanted: list[tuple[Verdict, str | None, str | None]] = [
        ("made by other code", entry["code"], _find(today.code, job)),
        ("made with other parameters", entry["spec_sha256"], _find(today.spec_sha256, job)),
        ("made with another environment", entry["lock"], today.lock),
    ]
    for verdict, was, now in wanted:
        if now is not None and was != now:
            return verdict, f"digest {short(was)}, today {short(now)}"
    return None


def _find(table: Mapping[str, str] | None, job: str) -> str | None:
    return (table or {}).get(job) or (table or {}).get(job.partition("[")[0])


def _raw_inputs(manifest: Manifest, made: Mapping[str, str]) -> dict[str, dict[str, set[str]]]:
    """Path -> digest -> rules that read it so, for every input that the study did not make itself."""
    raw: dict[str, dict[str, set[str]]] = {}
    for entry in manifest.entries:
        for used in entry["inputs"]:
            if used["path"] not in made:
                raw.setdefault(used["path"], {}).setdefault(used["sha256"], set()).add(entry["rule"])
    return raw


def _judge_inputs(raw: Mapping[str, Mapping[str, set[str]]], seen: Mapping[str, Seen]) -> Iterable[Finding]:
    for path, readers in sorted(raw.items()):
        now = seen[path].sha256
        wrong = {digest: rules for digest, rules in readers.items() if digest != now}
        if not wrong:
            continue
        rules = ", ".join(sorted(set().union(*wrong.values())))
        if now is None:
            yield Finding(path, "missing input", seen[path].problem, rules)
        else:
            was = ", ".join(short(digest) for digest in wrong)
            yield Finding(path, "changed input", f"was {was} when read, now {short(now)}", rules)


def _unrecorded(study: str, root: Path, known: Mapping[str, Seen]) -> Iterable[Finding]:
    home = root / "results" / study
    documents = document_paths(study, root)
    for file in files_under(home):
        inside = file.relative_to(home).parts
        hidden = any(part.startswith(".") for part in inside)
        free = inside[0] in FREE_FOLDERS or inside in ((FILE_NAME,), (LAYOUT_FILE,)) or file in documents
        if not hidden and not free and file.relative_to(root).as_posix() not in known:
            yield Finding(file.relative_to(root).as_posix(), "unrecorded", "no run record names it", "")
