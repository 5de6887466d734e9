"""Fetching an archived study, so that Snakemake accepts it as done. What was made here is never written over."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from anatomy.provenance.archive import (
    archive_path,
    attestations_path,
    dvc,
    pointer_path,
    read_attestations,
    study_of_ledger,
    unpack_attestations,
    unpack_metadata,
)
from anatomy.provenance.audit_ledger import LEDGER_LOCK, locked_digests, restored_mark
from anatomy.provenance.digest import ArtifactError, atomic_path, sha256_files, write_json_atomic
from anatomy.provenance.ledger import is_hazard, phase_outs, pushed_outs
from anatomy.provenance.manifest import Manifest, manifest_path, read_manifest, recorded_digests
from anatomy.spec.layout import has_artefacts
from anatomy.spec.study import Study


def restore(study: str) -> Manifest:
    """Fetch what the archive of a study holds, Snakemake's metadata and attestations too; a mark says "restored".

    Poisoned data and backdoored weights stay away unless the study says `archive.push_hazards`; what needs them makes
    them again. Returns the archived manifest.

    Raises:
        ArtifactError: dvc.yaml is another study's; there is no archive or no remote; results/<study> holds what the
            restore would write over; DVC fails; or what is packed is neither Snakemake's metadata nor an
            attestation. Nothing in results/ was touched, unless it came to that half-way.
    """
    spec = study_of_ledger(study)
    _refuse_without_archive(spec)
    restored = restored_mark(study).exists()
    if not restored and has_artefacts(Path("results") / study):
        raise ArtifactError(
            f"results/{study} holds results that were made here, and a restore would write over them; restore in "
            f"another checkout, or give them up first: make clean STUDY={study}"
        )
    archived = _archived_manifest(study)
    pointers = [pointer_path(packed) for packed in (archive_path(study), attestations_path(study))]
    if restored:
        _refuse_writing_over(study, archived)
    dvc("pull", *pushed_outs(spec), *(str(pointer) for pointer in pointers if pointer.exists()))
    unpack_metadata(archive_path(study))
    unpack_attestations(study)
    withheld = [entry["path"] for entry in archived.entries if is_hazard(entry["path"])]
    mark = restored_mark(study)
    mark.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(
        mark,
        {
            "study": study,
            "restored": datetime.now(UTC).isoformat(timespec="seconds"),
            "withheld": [] if spec.archive.push_hazards else withheld,
        },
    )
    return archived


def put_back_manifest(study: str) -> Manifest:
    """Put the archived manifest in the place of today's; nothing else is touched. Returns it.

    Results that are half made again are then held against the archive. It is as old as the restore, so that Snakemake
    makes it anew for whatever was made since.

    Raises:
        ArtifactError: dvc.yaml is another study's; there is no archive or no remote; or DVC fails.
    """
    _refuse_without_archive(study_of_ledger(study))
    archived = _archived_manifest(study)
    with atomic_path(manifest_path(study)) as temporary:
        shutil.copyfile(archived.path, temporary)
        shutil.copystat(restored_mark(study), temporary)
    return archived


def _refuse_without_archive(spec: Study) -> None:
    study = spec.study
    try:
        held = locked_digests()
    except FileNotFoundError:
        held = {}
    lacking = [out for phase in phase_outs(spec).values() for out in phase if out not in held]
    pointer = pointer_path(archive_path(study))
    if lacking or not pointer.exists():
        reason = f"{pointer} is not there" if not lacking else f"{LEDGER_LOCK} does not hold {lacking[0]}"
        raise ArtifactError(
            f"no archive of the study {study}: {reason}. `anatomy archive {study}` writes both where the study was "
            "made; commit them there"
        )
    if not dvc("remote", "list").strip():
        raise ArtifactError(
            "no DVC remote is set, so there is nowhere to fetch from; name the one that holds the archive: "
            "dvc remote add -d NAME URL"
        )


def _archived_manifest(study: str) -> Manifest:
    """The manifest as archived, out of DVC's cache: results/ is not touched for it."""
    path = manifest_path(study).as_posix()
    digest = locked_digests()[path]
    dvc("fetch", path)
    return read_manifest(Path(dvc("cache", "dir").strip()) / "files" / "md5" / digest[:2] / digest[2:])


def _refuse_writing_over(study: str, archived: Manifest) -> None:
    """Files that were restored may be there; those made again since are kept."""
    recorded = recorded_digests(archived.entries) | {manifest_path(study).as_posix(): archived.sha256}
    seen = sha256_files(Path(path) for path in recorded)
    changed = [path for path, digest in recorded.items() if seen[Path(path)].sha256 not in (None, digest)]
    pointer = pointer_path(attestations_path(study))
    if pointer.exists():
        dvc("pull", str(pointer))  # into archive/
    attested = read_attestations(study).items()
    changed += [str(path) for path, content in attested if path.exists() and path.read_bytes() != content]
    if changed:
        raise ArtifactError(
            f"results/{study}: {len(changed)} files are not those of the archive any more ({sorted(changed)[0]}, ...), "
            f"and a restore would write over them; go on with `anatomy run {study}`, or give them up: "
            f"make clean STUDY={study}"
        )
