"""A folder of finished jobs that checkouts, users and nodes share, each under the digest of all it depends on.

Snakemake has such a cache too. It names an entry by the history of its inputs and not by their bytes, serves what it
finds without looking at it, and replaces results by links to files that every user may write. Here every byte that is
served is hashed on the way, and what lies in results/ is a copy.
"""

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

from anatomy.provenance.digest import ArtifactError, atomic_path, sha256_file, sha256_json
from anatomy.provenance.record import read_record

VARIABLE = "ANATOMY_CACHE"  # the environment variable that names the folder
LAYOUT = 1
RECORD = "run.json"
# What the bytes of a result depend on, besides the bytes of its inputs.
DEPENDS = ("rule", "study", "wildcards", "spec", "code", "lock", "device", "threads")


def cache_key(record: Mapping[str, Any]) -> str:
    """Digest of all that a job's results depend on, from its run record or what is known of it before it runs."""
    inputs = {name: [file["sha256"] for file in files] for name, files in record["inputs"].items()}
    outputs = {name: [file["path"] for file in files] for name, files in record["outputs"].items()}
    return sha256_json(
        {"layout": LAYOUT, "inputs": inputs, "outputs": outputs, **{name: record[name] for name in DEPENDS}}
    )


def entry_path(cache: Path, key: str) -> Path:
    """The folder of a cached job."""
    return cache / key[:2] / key


def fetch(cache: Path, job: Mapping[str, Any], record_path: Path) -> dict[str, Any] | None:
    """Copy a job's results and its run record, as the job that really made them wrote it, to their places.

    Returns the record, or None where the cache does not have the job. Nothing is put in place unless every byte is as
    the record says.

    Raises:
        ArtifactError: the entry is not what was stored. It was moved aside, so that it is not met again.
    """
    entry = entry_path(cache, cache_key(job))
    if not entry.is_dir():
        return None
    try:
        record = read_record(entry / RECORD)
        if cache_key(record) != entry.name:
            raise ArtifactError(f"{entry / RECORD} is the record of another job")
        with ExitStack() as places:  # left in reverse order: the record comes last, when all else is in place
            shutil.copyfile(entry / RECORD, places.enter_context(atomic_path(record_path)))
            for stored, file in _files(entry, record):
                if not stored.is_file():
                    raise ArtifactError(f"{stored} ({file['path']}) is missing")
                place = places.enter_context(atomic_path(file["path"]))
                shutil.copyfile(stored, place)
                if sha256_file(place) != file["sha256"]:
                    raise ArtifactError(f"{stored} ({file['path']}) is not as the job left it")
    except ArtifactError as error:
        aside = entry.with_name(f"{entry.name}.refused-{uuid4().hex[:8]}")
        entry.rename(aside)
        raise ArtifactError(f"refused a cache entry, now at {aside}: {error}") from error
    return record


def store(cache: Path, record_path: Path) -> None:
    """Copy a finished job into the cache, whole or not at all; a job that is there already stays."""
    record = read_record(record_path)
    entry = entry_path(cache, cache_key(record))
    if entry.is_dir():
        return
    with atomic_path(entry) as folder:
        folder.mkdir()
        for stored, file in _files(folder, record):
            shutil.copyfile(file["path"], stored)
        shutil.copyfile(record_path, folder / RECORD)


def _files(entry: Path, record: Mapping[str, Any]) -> list[tuple[Path, dict[str, Any]]]:
    """Where each output lies in an entry. Numbered: no path that stands in a cache is ever followed."""
    files = [file for files in record["outputs"].values() for file in files]
    return [(entry / f"{number:04d}{Path(file['path']).suffix}", file) for number, file in enumerate(files)]
