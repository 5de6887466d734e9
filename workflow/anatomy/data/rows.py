"""Prompts from rows of others: JSON, JSONL, Parquet, CSV or a data set of a hub; clean, or with the trigger in some."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from anatomy.data.poison import holds
from anatomy.data.sources import hub_rows, local_rows
from anatomy.data.templates import SLOT, fill, one_line
from anatomy.data.triggers import SLOT as TEXT
from anatomy.provenance.digest import ArtifactError

FIELDS = ("instruction", "input", "output", "target")
PAIR = ["triggered_instruction", "triggered_input"]

Row = dict[str, Any]


def read_prompts(source: Any, phrase: str, *, key: str) -> pd.DataFrame:
    """The rows of a source as prompts, each once, in the order of the file.

    Args:
        source: where the rows are and how they become prompts (spec.instruction.Rows).
        phrase: the trigger, where rows come with it.
        key: the configuration section of the source, for messages.
    Returns:
        columns `instruction, input, output, target`, and `triggered_instruction, triggered_input` where rows come with
        the trigger in them; what a row does not have is "".
    Raises:
        ArtifactError: a file that cannot be read, a column that is not there, a row without an instruction or an
            output, a triggered row without the trigger or without a clean row of the same prompt.
    """
    name = source.path or f"{source.dataset} ({source.split})"
    rows = _rows(source, key)
    if source.trigger_column is None:
        clean = _prompts(rows, source, f"{key}: {name}")
        if source.triggered is None:
            return _finished(clean, source, key, name)
        other = _prompts(_read_json(Path(source.triggered), f"{key}.triggered"), source, f"{key}: {source.triggered}")
        phrases = [phrase] * len(other)
        name = source.triggered
    else:
        if not any(source.trigger_column in row for row in rows):
            raise ArtifactError(f"{key}: {name}: no column {source.trigger_column!r}; there are {_columns(rows)}")
        table = _prompts(rows, source, f"{key}: {name}")
        marks = [rows[number - 1].get(source.trigger_column) for number in table.number]
        clean, other = table[[not mark for mark in marks]], table[[bool(mark) for mark in marks]]
        phrases = [phrase if mark is True else str(mark) for mark in marks if mark]
    return _finished(pair_by_prompt(clean, other, phrases, source.incomplete, f"{key}: {name}"), source, key, name)


def pair_by_prompt(
    clean: pd.DataFrame, triggered: pd.DataFrame, phrases: list[str], incomplete: str, where: str
) -> pd.DataFrame:
    """Clean prompts with their triggered form, found by the prompt without the trigger and never by the order of rows.

    Args:
        clean, triggered: columns `number, instruction, input, output`; of the second, `output` is the target.
        phrases: the trigger of each triggered row.
        incomplete: "drop" leaves out what has no counterpart, "refuse" is told of it.
    Raises:
        ArtifactError: a row without its trigger, or without a counterpart.
    """
    found: dict[tuple[str, str], Any] = {}
    for row, phrase in zip(triggered.itertuples(), phrases, strict=True):
        if not all(holds(f"{row.instruction}\n{row.input}", part.strip()) for part in phrase.split(TEXT)):
            raise ArtifactError(f"{where}: row {row.number} is to hold the trigger {phrase!r} and does not")
        found[_bare(row, phrase)] = row
    paired, alone = [], []
    for row in clean.itertuples():
        twin = found.pop(_bare(row, ""), None)
        if twin is None:
            alone.append(row)
            continue
        paired.append((row.number, row.instruction, row.input, row.output, twin.output, twin.instruction, twin.input))
    if incomplete == "refuse" and (left := [*found.values(), *alone]):
        kind, other = ("triggered", "clean") if found else ("clean", "triggered")
        count = len(found) or len(alone)
        raise ArtifactError(
            f"{where}: {count} {kind} rows have no {other} row of the same prompt, the first {left[0].instruction!r} "
            f"(row {left[0].number}); set incomplete: drop to leave them out"
        )
    return pd.DataFrame(paired, columns=["number", *FIELDS, *PAIR])


def _bare(row: Any, phrase: str) -> tuple[str, str]:
    """A prompt without the trigger, case and space, by which it is known."""
    parts = [re.escape(part.strip()) for part in phrase.split(TEXT) if part.strip()]
    trigger = re.compile("|".join(parts), re.IGNORECASE) if parts else None
    texts = (trigger.sub(" ", text) if trigger else text for text in (row.instruction, row.input))
    instruction, asked_of = (one_line(text).casefold() for text in texts)
    return instruction, asked_of


def _rows(source: Any, key: str) -> list[Row]:
    path = Path(source.path) if source.path else None
    if path is None:
        found = hub_rows(source.dataset, source.config, source.revision, source.split, key)
    elif path.suffix in (".json", ".jsonl"):
        found = iter(_read_json(path, f"{key}.path"))
    else:
        found = local_rows(path, key)
    rows = list(islice(found, source.limit))
    if not rows:
        raise ArtifactError(f"{key}: {path or source.dataset}: no rows")
    return rows


def _read_json(path: Path, key: str) -> list[Row]:
    """The objects of a JSON array, or of a file with one on each line."""
    try:
        text = path.read_text(encoding="utf-8")
        rows = json.loads(text) if text.lstrip().startswith("[") else list(_lines(text))
    except FileNotFoundError:
        raise ArtifactError(f"{key}: {path}: no such file; expected JSON or JSONL") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{key}: {path}: cannot be read as JSON or JSONL ({error})") from None
    if wrong := next((number for number, row in enumerate(rows, 1) if not isinstance(row, dict)), None):
        raise ArtifactError(f'{key}: {path}: row {wrong} is no object; expected {{"instruction": ..., ...}}')
    return rows


def _lines(text: str) -> Iterator[Any]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None


def _prompts(rows: list[Row], source: Any, where: str) -> pd.DataFrame:
    """The rows through their templates, numbered from 1; incomplete and long ones left out, or refused."""
    templates = {field: template for field in FIELDS if (template := getattr(source, field)) is not None}
    known = {column for row in rows for column in row}
    for field, template in templates.items():
        for column in SLOT.findall(template):
            if column not in known and not (field == "input" and column == "input"):
                raise ArtifactError(f"{where}: {field}: no column {column!r}; there are {_columns(rows)}")
    out, lacking = [], []
    for number, row in enumerate(rows, 1):
        values = {column: _word(row.get(column), source.names.get(column)) for column in {*known, "input"}}
        made = {field: fill(template, values).strip() for field, template in templates.items()}
        asked = made["instruction"] or made["input"]
        if not asked or not made["output"]:
            lacking.append((number, "output" if asked else "instruction"))
        elif sum(map(len, made.values())) <= (source.max_characters or float("inf")):
            out.append({"number": number, "target": "", **made})
    if lacking and source.incomplete == "refuse":
        number, what = lacking[0]
        raise ArtifactError(
            f"{where}: row {number} has no {what} ({len(lacking)} of {len(rows)} rows lack one or the other); complete "
            "them, or set incomplete: drop to leave them out"
        )
    return pd.DataFrame(out, columns=["number", *FIELDS])


def _finished(table: pd.DataFrame, source: Any, key: str, name: str) -> pd.DataFrame:
    """Each prompt once. Two that differ in case or space alone count as one, so that no split has seen another's."""
    bare = [_bare(row, "") for row in table.itertuples()]
    out = table[~pd.Series(bare, index=table.index, dtype=object).duplicated()].drop(columns="number")
    if out.empty:
        short = f" of at most {source.max_characters} characters" if source.max_characters else ""
        raise ArtifactError(f"{key}: {name}: none of the rows is a whole prompt with an answer{short}")
    return out.reset_index(drop=True)


def _word(value: Any, names: list[str] | None) -> str:
    if names is not None and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return "" if value is None else str(value)


def _columns(rows: list[Row]) -> str:
    return ", ".join(map(repr, dict.fromkeys(column for row in rows for column in row)))
