"""Archiving a finished study with DVC, with Snakemake's metadata and the attestations; `restore` is the way back.

Neither is an output of a rule, and attestations need not be there at all, where DVC wants every out of a stage to be.
So both are packed, and DVC carries what they are packed in by a pointer of its own.
"""

import base64
import gzip
import io
import json
import re
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from anatomy.provenance.audit import audit
from anatomy.provenance.audit_documents import document_paths
from anatomy.provenance.digest import ArtifactError, atomic_path
from anatomy.provenance.ledger import PHASES, ledger_path, render_ledger
from anatomy.provenance.signature import SUFFIX as SIGNATURE
from anatomy.provenance.statement import FOLDER, SUFFIX
from anatomy.spec.read import load_study
from anatomy.spec.study import Study

METADATA = Path(".snakemake/metadata")
RECORD_NAME = re.compile(r"metadata/[A-Za-z0-9_=-]+")
TRANSFERS = ("push", "pull", "fetch")
HINT = "Can the remote be reached (`dvc remote list`), and does the environment hold what opens it?"
STATEMENT_NAME = re.compile(rf"{FOLDER}/({'|'.join(PHASES)}){re.escape(SUFFIX)}({re.escape(SIGNATURE)})?")


def archive_path(study: str) -> Path:
    """The archived Snakemake metadata of a study: digests of inputs, parameters and code of every job."""
    return Path("archive") / f"{study}.snakemake-metadata.tar.gz"


def attestations_path(study: str) -> Path:
    """The archived attestations of a study with their signatures; not there when it had none."""
    return Path("archive") / f"{study}.attestations.tar.gz"


def pointer_path(packed: Path) -> Path:
    """The file by which DVC finds a packed one; it is committed."""
    return packed.with_name(f"{packed.name}.dvc")


def archive(study: str) -> list[str]:
    """Bring dvc.lock level with results/<study>, archive Snakemake's metadata and the attestations, push to a remote.

    Returns what was done, in sentences.

    Raises:
        ArtifactError: dvc.yaml is another study's, the audit does not find the study intact or files of it were left
            out by a restore (nothing is archived then), or DVC fails.
    """
    spec = study_of_ledger(study)
    report = audit(study)
    if not report.ok:
        raise ArtifactError(
            f"results/{study}: the audit does not find it intact, so it is not archived; see `anatomy audit {study}`"
        )
    if withheld := report.counts.get("withheld"):
        raise ArtifactError(
            f"results/{study}: {withheld} files were left out when it was restored, so this would be an archive of a "
            f"part; archive it where it was made, or make them first: anatomy run {study} train"
        )
    count = _pack_metadata(study)
    attested = _pack_attestations(study)
    packed = [archive_path(study), *([attestations_path(study)] if attested else [])]
    # --no-relink: DVC would otherwise rewrite modification times, and Snakemake would want to train again.
    dvc("commit", "--force", "--no-relink", *PHASES)
    dvc("add", "--no-relink", *map(str, packed))
    done = [f"dvc.lock is level with results/{study}; metadata of {count} jobs' outputs is in {archive_path(study)}"]
    done += [f"{attested} files of attestations are in {attestations_path(study)}"] if attested else []
    if dvc("remote", "list").strip():
        dvc("push", *PHASES, *(str(pointer_path(path)) for path in packed))
        hazards = "are among it: archive.push_hazards" if spec.archive.push_hazards else "stay here"
        done.append(f"pushed to the default remote (poisoned data and backdoored weights {hazards})")
    else:
        done.append("no DVC remote is set (`dvc remote add -d NAME URL`), so nothing was pushed")
    return done


def study_of_ledger(study: str) -> Study:
    """The study, where dvc.yaml is its ledger; ArtifactError otherwise."""
    spec = load_study(study)
    if ledger_path().read_text(encoding="utf-8") != render_ledger(spec):
        raise ArtifactError(
            f"{ledger_path()} is not the ledger of the study {study}, so DVC would archive something else; write it "
            f"for this study: anatomy schema --ledger {study}"
        )
    return spec


def _pack_metadata(study: str) -> int:
    """Pack the metadata records whose output lies below results/<study>; how many."""
    chosen = [p for p in sorted(METADATA.glob("*")) if _output_of(p).startswith(f"results/{study}/")]
    contents = {f"metadata/{path.name}": path.read_bytes() for path in chosen}
    for content in contents.values():
        json.loads(content)  # a half-written record is not archived
    _pack(archive_path(study), contents)
    return len(contents)


def _pack_attestations(study: str) -> int:
    """Pack the statements and signatures of a study; how many files, and where there is none, no archive of them."""
    there = sorted(path for path in document_paths(study) if path.parent.name == FOLDER and path.exists())
    packed = attestations_path(study)
    if there:
        _pack(packed, {f"{FOLDER}/{path.name}": path.read_bytes() for path in there})
    else:  # those of an earlier archive are about another manifest
        for path in (packed, pointer_path(packed)):
            path.unlink(missing_ok=True)
    return len(there)


def _pack(path: Path, contents: Mapping[str, bytes]) -> None:
    """A byte-stable tar of files by their names."""
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def unpack_metadata(packed: Path) -> None:
    """Put archived metadata records where Snakemake keeps them.

    Raises:
        ArtifactError: a member is something else, or the archive cannot be read. Nothing was written.
    """
    _open(packed, RECORD_NAME, "record of Snakemake", METADATA.parent)


def read_attestations(study: str) -> dict[Path, bytes]:
    """The archived statements and signatures of a study, by where they belong; none where it was archived without.

    Raises:
        ArtifactError: a member is something else, or the archive cannot be read.
    """
    packed = attestations_path(study)
    if not pointer_path(packed).exists():
        return {}
    contents = _open(packed, STATEMENT_NAME, "statement or signature")
    return {Path("results", study, name): content for name, content in contents.items()}


def unpack_attestations(study: str) -> None:
    """Put the archived statements and signatures of a study into its results; raises as `read_attestations` does."""
    if pointer_path(attestations_path(study)).exists():
        _open(attestations_path(study), STATEMENT_NAME, "statement or signature", Path("results", study))


def _open(packed: Path, names: re.Pattern[str], kind: str, to: Path | None = None) -> dict[str, bytes]:
    """The files of an archive by name; with `to` they are written below that folder too.

    An archive may come from anybody. Before anything is written, every member must be a plain file with a name that
    `names` allows: no link, no device, no `..` and no other folder.
    """
    try:
        with tarfile.open(packed) as tar:
            contents = {}
            for member in tar.getmembers():
                file = tar.extractfile(member) if member.isreg() and names.fullmatch(member.name) else None
                if file is None:
                    raise ArtifactError(
                        f"{packed}: refused, as it holds {member.name!r}, which is no {kind}; nothing was unpacked"
                    )
                contents[member.name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ArtifactError(f"{packed}: cannot be unpacked ({error})") from error
    if to:
        _write_below(to, contents, packed)
    return contents


def _write_below(to: Path, contents: Mapping[str, bytes], packed: Path) -> None:
    # Not by tarfile: its own guard against links that are there already came with Python 3.11.4.
    for name in contents:
        if not (to / name).resolve().is_relative_to(to.resolve()):
            raise ArtifactError(f"{packed}: cannot be unpacked ({to / name} leads out of {to}); nothing was written")
    try:
        for name, content in contents.items():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes(content)
    except OSError as error:
        raise ArtifactError(f"{packed}: cannot be unpacked ({error})") from error


def _output_of(path: Path) -> str:
    """Snakemake names a metadata record by its output, base64-encoded (long names are nested and passed over)."""
    try:
        return base64.b64decode(path.name, altchars=b"-_").decode()
    except ValueError:
        return ""


def dvc(*words: str) -> str:
    """Run DVC; its error becomes ours, on one line."""
    done = subprocess.run([sys.executable, "-m", "dvc", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        told = [line.strip() for line in (done.stderr.strip() or done.stdout.strip()).splitlines()]
        errors = [
            line.removeprefix("ERROR: ").removeprefix("unexpected error - ") for line in told if "ERROR: " in line
        ]
        hint = f" {HINT}" if words[0] in TRANSFERS else ""
        raise ArtifactError(f"dvc {words[0]} failed: {'; '.join(errors or told)}.{hint}")
    return done.stdout
