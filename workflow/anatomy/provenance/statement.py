"""What a phase made, from what and how, as an in-toto Statement v1 with a SLSA provenance v1 predicate.

One statement per phase, with nothing in it that is not in the manifest and the run records: the same two give the
same bytes, which a person may sign (`signature`) and another verify without any of this code.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from anatomy.provenance.crate_job import Job
from anatomy.provenance.ledger import PHASES, phase_of
from anatomy.provenance.manifest import Entry, Manifest
from anatomy.provenance.record import job_key

FOLDER = "attestations"
SUFFIX = ".intoto.json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD = "urn:backdoor-anatomy:phase:v1"
# Whoever types `anatomy run` is the builder: nothing keeps them from changing a job while it runs.
BUILDER = "urn:backdoor-anatomy:run-by-hand"

Json = dict[str, Any]


def statement_path(study: str, phase: str, root: Path = Path()) -> Path:
    """Where the statement about a phase stands."""
    return root / "results" / study / FOLDER / f"{phase}{SUFFIX}"


def build_statements(manifest: Manifest, records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Phase -> text of its statement, for every phase that made a file. `records` are the manifest's, by path."""
    entries: dict[str, list[Entry]] = {phase: [] for phase in PHASES}
    for entry in manifest.entries:
        entries[phase_of(entry["path"])].append(entry)
    return {
        phase: json.dumps(_statement(manifest, phase, of_phase, records), indent=1, sort_keys=True) + "\n"
        for phase, of_phase in entries.items()
        if of_phase
    }


def _statement(manifest: Manifest, phase: str, entries: list[Entry], records: Mapping[str, Mapping[str, Any]]) -> Json:
    home = f"results/{manifest.study}/"
    subjects = {entry["path"]: entry["sha256"] for entry in entries}
    if phase == "render":  # the last phase: its statement binds the manifest, and through it all the others
        subjects[f"{home}{manifest.path.name}"] = manifest.sha256
    jobs = [Job(path, records[path], home) for path in sorted({entry["record"] for entry in entries})]
    return {
        "_type": STATEMENT,
        "subject": _resources(subjects.items()),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD,
                "externalParameters": {
                    "study": manifest.study,
                    "phase": phase,
                    "spec_sha256": {_key(entry, records): entry["spec_sha256"] for entry in entries},
                },
                "internalParameters": {
                    "code": {_key(entry, records): entry["code"] for entry in entries},
                    "lock": {_key(entry, records): entry["lock"] for entry in entries},
                    "environment_sha256": {_key(entry, records): entry["environment_sha256"] for entry in entries},
                },
                "resolvedDependencies": [
                    *_resources(_inputs(entries)),
                    *({"name": "git", "digest": {"gitCommit": commit}} for commit in _commits(jobs)),
                ],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": _versions(jobs)},
                "metadata": {
                    "startedOn": _timestamp(min(job.record["started"] for job in jobs)),
                    "finishedOn": _timestamp(max(job.ended for job in jobs)),
                },
                "byproducts": _resources({entry["record"]: entry["record_sha256"] for entry in entries}.items()),
            },
        },
    }


def _key(entry: Entry, records: Mapping[str, Mapping[str, Any]]) -> str:
    return job_key(entry["rule"], records[entry["record"]]["wildcards"])


def _inputs(entries: list[Entry]) -> set[tuple[str, str]]:
    """What the phase read and did not make itself."""
    own = {entry["path"] for entry in entries} | {entry["record"] for entry in entries}
    return {(used["path"], used["sha256"]) for entry in entries for used in entry["inputs"] if used["path"] not in own}


def _resources(digests: Iterable[tuple[str, str]]) -> list[Json]:
    return [{"name": path, "digest": {"sha256": digest}} for path, digest in sorted(digests)]


def _commits(jobs: list[Job]) -> list[str]:
    """The commits the jobs ran at; one that had uncommitted changes beside it stands for no source."""
    states = [job.record["git"] for job in jobs]
    return sorted({state["commit"] for state in states if state["commit"] and state["dirty"] is False})


def _versions(jobs: list[Job]) -> dict[str, str]:
    found: dict[str, set[str]] = {"snakemake": set()}
    for job in jobs:
        name, _, version = job.record["tool"].partition(" ")
        found.setdefault(name, set()).add(version)
        found["snakemake"].add(job.record["environment"]["packages"].get("snakemake") or "unknown")
    return {name: ", ".join(sorted(versions)) for name, versions in found.items()}


def _timestamp(time: str) -> str:
    return time.replace("+00:00", "Z")
