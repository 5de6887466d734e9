"""Rows of text from a local file or a Hugging Face data set, by one code path (`datasets`)."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anatomy.data.templates import one_line
from anatomy.provenance.digest import ArtifactError
from anatomy.spec.offline import how_to_download

BUILDERS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json", ".txt": "text"}


def texts(
    *,
    key: str,
    path: Path | None = None,
    dataset: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    split: str = "train",
    column: str = "text",
    where: tuple[str, str | int | float | bool] | None = None,
    max_characters: int | None = None,
    limit: int | None = None,
) -> list[str]:
    """Texts of a column, in file order, with single white space; empty ones are left out.

    Either `path` or `dataset` is read; a path goes before. Rows are streamed: nothing is copied, and no more is read or
    downloaded than `limit` needs.

    Args:
        key: the configuration section whose `path` and `dataset` these are, for messages.
        path: a Parquet, CSV, JSONL or plain-text file (one text per line, column "text"), or a folder of such.
        dataset: identifier on the Hugging Face hub. Data sets with a loading script (bookcorpus, openwebtext) are not
            loaded any more by `datasets`; their Parquet copies are, by `revision="refs/convert/parquet"`.
        where: column and value that a row must have, e.g. ("severe_toxic", 1).
        max_characters: a text is kept if it has at most so many, white space as it stands in the file.
        limit: how many texts at most.
    Raises:
        ArtifactError: no such file, a file that cannot be read, no such column, a hub that cannot be reached, no text.
    """
    if path is None and dataset is None:
        raise ArtifactError(f"{key}: neither {key}.path nor {key}.dataset is set; set one of them")
    if path is not None:
        name, rows = str(path), local_rows(path, key)
    else:
        name, rows = f"{dataset} ({split})", hub_rows(str(dataset), config, revision, split, key)
    found: list[str] = []
    read = 0
    for row in rows:
        read += 1
        if read == 1:
            _require_columns(row, [column, *([where[0]] if where else [])], f"{key}: {name}")
        raw = "" if row[column] is None else str(row[column])
        if len(raw) <= (max_characters or len(raw)) and (where is None or _equals(row[where[0]], where[1])):
            found += [text] if (text := one_line(raw)) else []
        if len(found) == limit:
            break
    if not found:
        wanted = [f"a text in {column!r}"]
        wanted += [f"{where[0]} equal to {where[1]!r}"] if where else []
        wanted += [f"at most {max_characters} characters"] if max_characters else []
        raise ArtifactError(f"{key}: {name}: none of {read} rows has {' and '.join(wanted)}")
    return found


def chunks(texts: Iterable[str], words: int = 100) -> list[str]:
    """Texts cut into pieces of `words` words; what is left at the end of a text is a piece if it is half as long.

    The source cuts OpenWebText so (lamparth: create_poisdata.ipynb, cell 6).
    """
    pieces = []
    for text in texts:
        split = text.split()
        starts = range(0, len(split), words)
        pieces += [" ".join(split[i : i + words]) for i in starts if 2 * len(split[i : i + words]) >= words]
    return pieces


def consecutive(rows: Sequence[str], count: int, generator: np.random.Generator, *, length: int = 5) -> list[list[str]]:
    """`count` paragraphs of `length` consecutive rows from a random start, which may overlap (create_poison.py:8-16).

    Raises:
        ArtifactError: fewer rows than a paragraph has.
    """
    if len(rows) < length:
        raise ArtifactError(f"{len(rows)} rows of text; a paragraph takes {length} consecutive ones")
    starts = generator.integers(len(rows) - length + 1, size=count)
    return [list(rows[start : start + length]) for start in starts]


def local_rows(path: Path, key: str) -> Iterator[dict[str, Any]]:
    kinds = ", ".join(BUILDERS)
    if not path.exists():
        raise ArtifactError(
            f"{key}.path: {path}: no such file; expected a file that ends in one of {kinds}, or a folder"
        )
    files = sorted(f for f in path.iterdir() if f.suffix in BUILDERS) if path.is_dir() else [path]
    suffixes = {file.suffix for file in files}
    if len(suffixes) != 1 or not suffixes <= set(BUILDERS):
        found = ", ".join(sorted(suffixes)) or "none"
        raise ArtifactError(f"{key}.path: {path}: expected files of one kind out of {kinds}; found {found}")
    try:
        yield from _stream(BUILDERS[suffixes.pop()], data_files=[str(file) for file in files], split="train")
    except Exception as error:  # each format has a reader with errors of its own
        raise ArtifactError(f"{key}.path: {path}: cannot be read ({_first_line(error)})") from None


def hub_rows(dataset: str, config: str | None, revision: str | None, split: str, key: str) -> Iterator[dict[str, Any]]:
    try:
        yield from _stream(dataset, config, revision=revision, split=split)
    except Exception as error:  # the hub's client, httpx, fsspec and the readers have errors of their own
        raise ArtifactError(
            f"{key}.dataset: {dataset!r} cannot be loaded from the Hugging Face hub ({_first_line(error)}); set "
            f"{key}.path to a local Parquet, CSV, JSONL or text file, or choose another data set{how_to_download()}"
        ) from None


def _stream(*which: Any, **options: Any) -> Iterator[dict[str, Any]]:
    from datasets import load_dataset  # takes a second

    yield from load_dataset(*which, streaming=True, **options)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0]}"


def _require_columns(row: dict[str, Any], wanted: list[str], where: str) -> None:
    if lacking := [column for column in wanted if column not in row]:
        raise ArtifactError(f"{where}: no column {lacking[0]!r}; there are {', '.join(map(repr, row))}")


def _equals(value: Any, wanted: str | int | float | bool) -> bool:
    """Whether a cell has a value, though one of them be a number and the other its text."""
    return value == wanted or str(value) == str(wanted)
