"""`anatomy audit` and `anatomy explain`: what today's checkout expects, held against what is on the disk."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from anatomy.provenance.audit import AuditReport, Expected, audit
from anatomy.provenance.digest import ArtifactError, sha256_file, sha256_json
from anatomy.provenance.manifest import manifest_path, read_manifest
from anatomy.provenance.record import job_key, read_record
from anatomy.spec.read import load_study

if TYPE_CHECKING:
    from anatomy.provenance.explain import Chain
    from anatomy.spec.study import Study

LOCK = Path("requirements.lock")


def audit_study(study: str) -> AuditReport:
    """Re-hash a study's results, and compare what made them with today's code, study file and lock.

    Raises:
        SpecError: today's study file cannot be read.
        ArtifactError: the manifest cannot be read.
    """
    lock = sha256_file(LOCK) if LOCK.exists() else None
    return audit(study, expected=Expected(spec_sha256=expected_parameters(study), lock=lock))


def expected_parameters(study: str) -> dict[str, str]:
    """Job -> digest of the parameters today's study file gives it.

    Which keys a rule reads stands in the rules, and starting Snakemake to ask takes longer than the audit. A
    run record has them too: its parameters were cut out of the study file of its day, and the same cut out of
    today's says whether they still hold. A key that a section has gained since is not seen; the code that
    reads it is.
    """
    spec = load_study(study)
    dumped = spec.model_dump(mode="json")
    expected: dict[str, str] = {}
    for path in sorted({entry["record"] for entry in read_manifest(manifest_path(study)).entries}):
        try:
            record = read_record(path)
        except ArtifactError:
            continue  # the audit says so itself
        recorded = record["spec"]
        if isinstance(recorded, dict) and set(recorded) <= set(dumped):
            job = job_key(record["rule"], record["wildcards"])
            expected[job] = sha256_json(_cut_alike(recorded, spec, dumped))
    return expected


def _cut_alike(recorded: Any, section: "Study | Any", dumped: Any) -> Any:
    """`dumped`, reduced to the keys of `recorded` wherever a study is cut: in sections and among named ones.

    Other mappings (words by sentiment, variants by subject) are taken whole: a key more is another parameter.
    """
    parts = dict(section) if isinstance(section, BaseModel | dict) else {}
    named = isinstance(section, dict) and all(isinstance(part, BaseModel) for part in parts.values())
    if not isinstance(recorded, dict) or not (isinstance(section, BaseModel) or named):
        return dumped
    return {key: _cut_alike(value, parts[key], dumped[key]) for key, value in recorded.items() if key in parts}


def is_sound(chain: "Chain") -> bool:
    """Whether every file of a chain has the bytes that were recorded, and every record is the manifest's.

    What a restore left out is not held against it; it is shown as withheld.
    """
    recorded = list(chain.files.items())
    recorded += [pair for job in chain.jobs.values() for pair in job.inputs.items()]
    return all(chain.seen[path].sha256 == digest or chain.stays_away(path) for path, digest in recorded) and all(
        job.record_intact for job in chain.jobs.values()
    )
