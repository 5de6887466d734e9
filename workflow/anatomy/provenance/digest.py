"""SHA-256 of files and values, and files that appear whole or not at all."""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

BLOCK = 1 << 20  # bytes per read: hashing is then bound by the disk or by SHA-256, not by system calls
SHORT = 12  # hex digits shown to people; files keep all 64
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
TEMPORARY = re.compile(r"\.\d+-[0-9a-f]{8}-.+", re.DOTALL)  # as `_beside` names them


class ArtifactError(Exception):
    """A result, record or manifest that cannot be written, read or trusted. The text is for the user."""


@dataclass(frozen=True)
class Seen:
    """What stands on the disk now: the SHA-256 and size, or `sha256=None` and the reason it has none."""

    sha256: str | None
    bytes: int
    problem: str = ""


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks; OSError when it cannot be read."""
    with io.BufferedReader(io.FileIO(path), buffer_size=BLOCK) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """Hex SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_json(obj: Any) -> str:
    """Hex SHA-256 of a value as canonical JSON: keys sorted, no spaces, ASCII.

    A tuple counts as a list and an integer key as its text, as they do once they went through a file.
    NaN and infinities are a ValueError: JSON has no word for them.
    """
    # The round trip comes first: {9: ..., 10: ...} sorts by number before it and by text after it.
    plain = json.loads(json.dumps(obj, allow_nan=False))
    return sha256_text(json.dumps(plain, sort_keys=True, separators=(",", ":")))


def sha256_files(paths: Iterable[Path]) -> dict[Path, Seen]:
    """Hash many files at once, every byte read anew, one thread per core (hashlib releases the GIL)."""
    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return dict(zip(unique, pool.map(_look, unique), strict=True))


def _look(path: Path) -> Seen:
    if not path.exists():
        return Seen(None, 0, "no such file")
    if not path.is_file():  # a folder, or a pipe that would block for ever
        return Seen(None, 0, "not a regular file")
    try:
        return Seen(sha256_file(path), path.stat().st_size)
    except OSError as error:
        return Seen(None, 0, f"cannot be read: {error.strerror}")


def short(digest: str | None) -> str:
    """The first digits of a digest, for people."""
    return digest[:SHORT] if digest else "none"


def files_under(folder: Path) -> list[Path]:
    """Every file below a folder, sorted. Links to folders are entered once (Snakemake's cache makes them)."""
    found: list[Path] = []
    entered: set[str] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(here) in entered:
            folders.clear()
            continue
        folders.sort()
        entered.add(os.path.realpath(here))
        found.extend(Path(here) / name for name in names)
    return sorted(found)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is written there (a file or a folder) then takes its place.

    The temporary name is hidden, differs per call and ends like `path`, as many writers choose the format
    by the suffix. On any exception it is removed and an earlier `path` stays as it was. A full disk becomes
    an ArtifactError.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        yield temporary
        if not temporary.exists():
            raise ArtifactError(f"{path}: nothing was written to its temporary path {temporary}")
        _flush(temporary)
        _move(temporary, path)
    except Exception as error:
        if not _is_disk_full(error):
            raise
        written = _size(temporary)
        _remove(temporary)
        raise ArtifactError(_disk_full_message(path, written)) from error
    finally:
        _remove(temporary)
    with contextlib.suppress(OSError):  # the new name must survive a power cut too; not every disk can
        _fsync(path.parent)


def remove_unfinished(folder: Path) -> tuple[int, int]:
    """Remove from a folder what killed writers left under temporary names; returns how many and their bytes.

    Only where nobody writes: what a writer still works at looks the same.
    """
    left: list[Path] = []
    for here, folders, names in os.walk(folder):
        own = [name for name in (*folders, *names) if TEMPORARY.fullmatch(name)]
        folders[:] = [name for name in folders if name not in own]
        left.extend(Path(here) / name for name in own)
    written = sum(map(_size, left))
    for path in left:
        _remove(path)
    return len(left), written


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8, newlines as given) whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)


def write_json_atomic(path: str | Path, obj: Any) -> None:
    """Write a value as indented JSON whole or not at all; ValueError for NaN and infinities."""
    try:
        text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: {error} (write None for a number that is not there)") from error
    write_text_atomic(path, text + "\n")


def _beside(path: Path) -> Path:
    # 180 characters keep the name below the 255 most file systems allow.
    return path.with_name(f".{os.getpid()}-{uuid4().hex[:8]}-{path.name[-180:]}")


def _flush(path: Path) -> None:
    for file in files_under(path) if path.is_dir() else [path]:
        _fsync(file)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _move(temporary: Path, path: Path) -> None:
    if not (temporary.is_dir() and os.path.lexists(path)):
        temporary.replace(path)
        return
    aside = _beside(path)  # a rename cannot overwrite a folder that holds files
    path.rename(aside)
    try:
        temporary.replace(path)
    except BaseException:
        aside.rename(path)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    files = files_under(path) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.exists())


def _is_disk_full(error: Exception) -> bool:
    # safetensors and tokenizers (Rust) raise their own classes and keep the reason in the text only.
    return getattr(error, "errno", None) in DISK_FULL or os.strerror(errno.ENOSPC) in str(error)


def _disk_full_message(path: Path, written: int) -> str:
    free = shutil.disk_usage(path.parent).free
    return (
        f"disk full: {path} could not be written. It stopped after {written / 1e6:.1f} MB; with the "
        f"unfinished file removed, {free / 1e6:.1f} MB are free on that disk. Earlier results are untouched. "
        "Free some room, or move results/ to a larger disk, and give the same command again: finished jobs "
        "are kept."
    )
