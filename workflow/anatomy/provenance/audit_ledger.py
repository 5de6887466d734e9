"""The audit's look at DVC: is this the study that dvc.lock holds, and was it computed here or fetched?

dvc.lock is committed, and it names the manifest's digest; the manifest names everything else. So one comparison ties
all results to a commit.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from anatomy.provenance.digest import ArtifactError
from anatomy.provenance.manifest import manifest_path

LEDGER_LOCK = "dvc.lock"
# The same rules in C, ten times as fast, where PyYAML was built with it: the file names every output of the study.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def ledger_notes(study: str, root: Path = Path()) -> list[str]:
    """What dvc.lock and the mark of a restore say about the results of a study, in sentences."""
    return [_held(study, root), *_restored(study, root)]


def locked_digests(root: Path = Path()) -> dict[str, str]:
    """Path -> MD5 of every out that dvc.lock holds; a folder's ends in `.dir`.

    Raises:
        FileNotFoundError: there is no dvc.lock.
        ArtifactError: it cannot be read.
    """
    try:
        lock = LOADER((root / LEDGER_LOCK).read_text(encoding="utf-8")).get_single_data()
        outs = [out for stage in lock["stages"].values() for out in stage.get("outs", [])]
        return {out["path"]: out["md5"] for out in outs}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, yaml.YAMLError, TypeError, AttributeError, KeyError):
        raise ArtifactError(f"{LEDGER_LOCK}: cannot be read") from None


def _held(study: str, root: Path) -> str:
    wanted = manifest_path(study).as_posix()
    try:
        digests = locked_digests(root)
    except FileNotFoundError:
        return f"{LEDGER_LOCK}: not there (`anatomy archive {study}` writes it)"
    except ArtifactError as error:
        return str(error)
    if wanted not in digests:
        return f"{LEDGER_LOCK}: holds another study (`anatomy schema --ledger {study}` changes that)"
    # MD5 is what DVC keeps; it finds a mistake, not a forger. The manifest's own SHA-256 is for that.
    content = (root / wanted).read_bytes()
    if digests[wanted] == hashlib.md5(content, usedforsecurity=False).hexdigest():
        return f"{LEDGER_LOCK}: holds this manifest, and with it these results"
    return f"{LEDGER_LOCK}: holds the manifest of another run (`anatomy archive {study}` brings it level)"


def restored_mark(study: str, root: Path = Path()) -> Path:
    """The file that says that the results of a study were fetched and not computed here."""
    return root / "results" / study / "logs" / "restored.json"


def withheld_paths(study: str, root: Path = Path()) -> frozenset[str]:
    """The files of a study that a restore left out, by its mark; none where nothing was restored."""
    paths = _mark(study, root).get("withheld")
    return frozenset(path for path in paths if isinstance(path, str)) if isinstance(paths, list) else frozenset()


def _mark(study: str, root: Path) -> dict[str, Any]:
    try:
        value = json.loads(restored_mark(study, root).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _restored(study: str, root: Path) -> list[str]:
    if not restored_mark(study, root).exists():
        return []
    when = _mark(study, root).get("restored", "at a time that its mark does not tell")
    return [f"restored from an archive ({when}); what was made again since has a later record"]
