"""Writing the statement of every phase of a finished study, and signing them where the user has a key."""

from pathlib import Path

from anatomy.provenance.audit import audit
from anatomy.provenance.crate import read_records
from anatomy.provenance.digest import ArtifactError, write_text_atomic
from anatomy.provenance.manifest import manifest_path, read_manifest
from anatomy.provenance.signature import KEY, sign, signature_path, signing_key
from anatomy.provenance.statement import FOLDER, build_statements, statement_path


def attest(study: str) -> list[str]:
    """Write results/<study>/attestations/, sign each statement where a key is set; what was done, in sentences.

    Raises:
        ArtifactError: the audit does not find the study intact (nothing is written then), or the key is refused.
    """
    folder = f"results/{study}/{FOLDER}/"
    # The statements of an earlier manifest are what this is to mend; anything else must be as it was made.
    wrong = [one for one in audit(study).findings if one.verdict != "intact" and not one.path.startswith(folder)]
    if wrong:
        raise ArtifactError(
            f"results/{study}: the audit does not find it intact, so nothing is attested; see `anatomy audit {study}`"
        )
    manifest = read_manifest(manifest_path(study))
    key = signing_key()
    done = []
    for phase, text in build_statements(manifest, read_records(manifest)).items():
        path = statement_path(study, phase)
        if not _holds(path, text):  # a signature of other bytes must not stand beside these
            signature_path(path).unlink(missing_ok=True)
            write_text_atomic(path, text)
        if key:
            sign(path, key)
        done.append(f"{path}: {'signed with ' + key if key else 'written'}")
    if not key:
        done.append(f"not signed: no key is set ({KEY}, or git's user.signingKey with gpg.format ssh)")
    return done


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_bytes() == text.encode()
