"""The audit of what is derived from the manifest: the RO-Crate, and the attestations with their signatures.

No result rests on them, so that their absence is only noted. But one that is there says what the manifest and the run
records say, to the byte: it is built again and compared.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from anatomy.provenance.audit_report import Finding
from anatomy.provenance.crate import CITATION, Agent, agent_of, build_crate, crate_path, read_citation
from anatomy.provenance.digest import ArtifactError
from anatomy.provenance.ledger import PHASES
from anatomy.provenance.manifest import Manifest
from anatomy.provenance.signature import allowed_signers, signature_path, verify
from anatomy.provenance.statement import FOLDER, build_statements, statement_path

Records = Mapping[str, Mapping[str, Any]]
Parts = Callable[[Any], dict[str, Any]]  # a document as named parts, so that it can be said which of them differ


def document_paths(study: str, root: Path = Path()) -> set[Path]:
    """The files that no run record names and that are none the less in their place."""
    statements = [statement_path(study, phase, root) for phase in PHASES]
    signatures = [signature_path(path) for path in statements if path.exists()]
    return {crate_path(study, root), *statements, *signatures}


def judge_documents(manifest: Manifest, records: Records | None, root: Path) -> tuple[list[Finding], list[str]]:
    """Findings about the crate and the attestations that are not as they should be, and notes about all of them.

    `records` are the manifest's, by path; None when not all are intact, so that nothing can be built from them.
    """
    findings: list[Finding] = []
    notes: list[str] = []
    crate = crate_path(manifest.study, root)
    if not crate.exists():
        notes.append(f"{crate.name}: not there (`anatomy run {manifest.study}` writes it)")
    elif records is None:
        notes.append(f"{crate.name}: not compared, as not all run records are intact")
    else:
        try:
            agent = _agent(crate)
            text = build_crate(manifest, records, read_citation(root / CITATION), agent)
        except ArtifactError as error:
            notes.append(f"{crate.name}: not compared ({error})")
        else:
            finding = _compare(crate, text, _entities, f"the manifest, the run records and {CITATION}", root)
            findings += [finding] if finding else []
            named = f"; that {agent.name} ran the jobs is said there alone" if agent else ""
            notes += [] if finding else [f"{crate.name}: agrees with the manifest{named}"]
    signed, said = _judge_statements(manifest, records, root)
    return findings + signed, notes + said


def _agent(crate: Path) -> Agent | None:
    try:
        return agent_of(json.loads(crate.read_bytes()))
    except ValueError:
        return None


def _judge_statements(manifest: Manifest, records: Records | None, root: Path) -> tuple[list[Finding], list[str]]:
    there = [phase for phase in PHASES if statement_path(manifest.study, phase, root).exists()]
    if not there:
        return [], [f"{FOLDER}: none (`anatomy attest {manifest.study}` writes them)"]
    findings, notes = [], []
    texts = build_statements(manifest, records) if records is not None else {}
    for phase in PHASES:
        path = statement_path(manifest.study, phase, root)
        if phase not in there:
            if phase in texts:
                notes.append(f"{FOLDER}/{path.name}: not there")
            continue
        signature = verify(path, allowed_signers())
        compared = "" if records is not None else ", not compared, as not all run records are intact"
        notes.append(f"{FOLDER}/{path.name}: {signature}{compared}")
        wrong = (
            _compare(path, texts.get(phase, ""), _parts, "the manifest and the run records", root) if texts else None
        )
        if signature.verdict == "bad signature":
            words = f"{signature.by}{'; ' + wrong.detail if wrong else ''}"
            wrong = Finding(path.relative_to(root).as_posix(), "bad signature", words, "")
        findings += [wrong] if wrong else []
    return findings, notes


def _compare(
    path: Path, wanted: str, parts: Callable[[Any], dict[str, Any]], source: str, root: Path
) -> Finding | None:
    found = path.read_bytes()
    if found == wanted.encode():
        return None
    try:
        now, then = parts(json.loads(found)), parts(json.loads(wanted or "{}"))
        names = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        where = f"on {', '.join(names[:3])}{more}" if names else "in its layout"
    except (ValueError, TypeError, AttributeError, KeyError):
        where = "altogether: it is no complete document of its kind"
    return Finding(path.relative_to(root).as_posix(), "changed", f"it differs from {source} {where}", "")


def _entities(crate: Any) -> dict[str, Any]:
    return {"@context": crate["@context"]} | {entity["@id"]: entity for entity in crate["@graph"]}


def _parts(statement: Any) -> dict[str, Any]:
    """The statement by its two-level names, with its subjects one by one."""
    predicate = statement.get("predicate", {})
    subjects = {subject["name"]: subject["digest"] for subject in statement.get("subject", [])}
    outer = {key: value for key, value in statement.items() if key not in ("predicate", "subject")}
    return outer | predicate | subjects
