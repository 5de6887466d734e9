"""Archiving a finished study with DVC, and Snakemake's metadata with it; `restore` is the way back."""

import base64
import gzip
import io
import json
import re
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

from anatomy.provenance.audit import audit
from anatomy.provenance.digest import ArtifactError, atomic_path
from anatomy.provenance.ledger import PHASES, ledger_path, render_ledger
from anatomy.spec.read import load_study
from anatomy.spec.study import Study

METADATA = Path(".snakemake/metadata")
RECORD_NAME = re.compile(r"metadata/[A-Za-z0-9_=-]+")


def archive_path(study: str) -> Path:
    """The archived Snakemake metadata of a study: digests of inputs, parameters and code of every job."""
    return Path("archive") / f"{study}.snakemake-metadata.tar.gz"


def archive(study: str) -> list[str]:
    """Bring dvc.lock level with results/<study>, archive Snakemake's metadata, push where a remote is set.

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
    # --no-relink: DVC would otherwise rewrite modification times, and Snakemake would want to train again.
    dvc("commit", "--force", "--no-relink", *PHASES)
    dvc("add", "--no-relink", str(archive_path(study)))
    done = [f"dvc.lock is level with results/{study}; metadata of {count} jobs' outputs is in {archive_path(study)}"]
    if dvc("remote", "list").strip():
        dvc("push", *PHASES, f"{archive_path(study)}.dvc")
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
    """A byte-stable tar of the metadata records whose output lies below results/<study>."""
    chosen = [p for p in sorted(METADATA.glob("*")) if _output_of(p).startswith(f"results/{study}/")]
    archive_path(study).parent.mkdir(exist_ok=True)
    with (
        atomic_path(archive_path(study)) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path in chosen:
            content = path.read_bytes()
            json.loads(content)  # a half-written record is not archived
            member = tarfile.TarInfo(f"metadata/{path.name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return len(chosen)


def unpack_metadata(packed: Path) -> None:
    """Put archived metadata records where Snakemake keeps them.

    An archive may come from anybody. Before anything is written, every member must be a plain file right in metadata/,
    named as Snakemake names records: no link, no device, no `..` and no other folder.

    Raises:
        ArtifactError: a member is something else, or the archive cannot be read. Nothing was written.
    """
    try:
        with tarfile.open(packed) as tar:
            for member in tar.getmembers():
                if not member.isreg() or not RECORD_NAME.fullmatch(member.name):
                    raise ArtifactError(
                        f"{packed}: refused, as it holds {member.name!r}, which is no record of Snakemake; nothing was "
                        "unpacked"
                    )
            tar.extractall(METADATA.parent, filter="data")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ArtifactError(f"{packed}: cannot be unpacked ({error})") from error


def _output_of(path: Path) -> str:
    """Snakemake names a metadata record by its output, base64-encoded (long names are nested and passed over)."""
    try:
        return base64.b64decode(path.name, altchars=b"-_").decode()
    except ValueError:
        return ""


def dvc(*words: str) -> str:
    """Run DVC; its error becomes ours."""
    done = subprocess.run([sys.executable, "-m", "dvc", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ArtifactError(f"dvc {words[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
