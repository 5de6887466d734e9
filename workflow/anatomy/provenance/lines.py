"""One line of a result: a cell of a table, a row of a figure's data, a claim.

`FILE:WHAT` asks for it. WHAT is

- `ROW,COLUMN` or `ROW` where the file has the columns `row` and `column`. Names hold commas themselves, as in
  `p+t,(1.0, 1.0)`; so every comma is tried as the one between row and column, and the names of the file decide.
  A column without a name is an empty one: `full,`.
- the id where the file has the column `id` (claims.csv);
- `#N` in any CSV: the N-th line below the header.

One cell often has several lines: subjects, metrics, variants, controls, seeds. All of them are meant.
"""

import csv
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anatomy.provenance.digest import ArtifactError

if TYPE_CHECKING:
    from rich.console import Console

Line = dict[str, str]
# What tells the lines of one result apart; everything else in a line is its value. The second row: figures' data.
KEYS = (
    *("id", "table", "subject", "row", "column", "metric", "variant", "control", "seed"),
    *("panel", "phase", "frozen", "step", "model", "layer", "inputs", "index", "block"),
)
MOST_NAMES = 30  # names listed in an error


@dataclass(frozen=True)
class Lines:
    """The lines of a CSV that were asked for; `numbers` count from 1 below the header."""

    path: str
    wanted: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    numbers: tuple[int, ...]


def split_target(text: str, root: Path = Path()) -> tuple[str, str | None]:
    """`FILE:WHAT` as (FILE, WHAT), and `FILE` as (FILE, None).

    The colon is the first one with a file or folder to its left, as names of files may hold colons too; where
    nothing is there, the first behind `.csv`.
    """
    places = [i for i, letter in enumerate(text) if letter == ":"]
    if not places or (root / text).exists():
        return text, None
    there = [i for i in places if (root / text[:i]).exists()]
    named = [i for i in places if text[:i].endswith(".csv")]
    for place in [*there, *named]:
        return text[:place], text[place + 1 :]
    return text, None


def read_lines(path: str | Path, root: Path = Path()) -> list[Line]:
    """Every line of a CSV result as {column: text}; ArtifactError when it is not one that can be read."""
    if Path(path).suffix != ".csv":
        raise ArtifactError(f"{path}: only a CSV has rows to ask for; ask for the whole file")
    try:
        with (root / path).open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"{path}: cannot be read as CSV ({error})") from None
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ArtifactError(f"{path}, row {number}: {len(row)} values, and the header names {len(header)}")
    return [dict(zip(header, row, strict=True)) for row in rows]


def pick(path: str, wanted: str, root: Path = Path()) -> Lines:
    """The lines of a CSV that `wanted` names; ArtifactError, with the nearest names, when there are none."""
    every = read_lines(path, root)
    if not every:
        raise ArtifactError(f"{path} has no rows")
    columns = tuple(every[0])
    number = wanted.strip()[1:] if wanted.strip().startswith("#") else ""
    if number.isdecimal():
        chosen = [int(number) - 1] if 1 <= int(number) <= len(every) else []
        problem = f"{path} has no row #{number}: the rows are #1 to #{len(every)}"
    elif "id" in columns:
        chosen = [i for i, line in enumerate(every) if line["id"] == wanted.strip()]
        problem = f"{path} has no line with the id {wanted!r}. {_near(wanted, [line['id'] for line in every], 'ids')}"
    elif {"row", "column"} <= set(columns):
        chosen, problem = _cells(path, wanted, every)
    else:
        chosen, problem = [], f"{path} has no named rows: ask for one by its number, #1 to #{len(every)}"
    if not chosen:
        raise ArtifactError(problem)
    return Lines(path, wanted, columns, tuple(every[i] for i in chosen), tuple(i + 1 for i in chosen))


def key_of(line: Line) -> tuple[tuple[str, str], ...]:
    """What names a line among those of its file. `x` is a name in a figure of panels, and a coordinate elsewhere."""
    keys = (*KEYS, "x") if "panel" in line else KEYS
    return tuple((name, line[name]) for name in keys if name in line)


def _cells(path: str, wanted: str, every: list[Line]) -> tuple[list[int], str]:
    """Numbers of the lines of a cell or a whole row, and what to say when there are none."""
    pairs = [(wanted[:i].strip(), wanted[i + 1 :].strip()) for i, letter in enumerate(wanted) if letter == ","]
    whole = wanted.strip()
    cell = [i for i, line in enumerate(every) if (line["row"], line["column"]) in pairs]
    chosen = cell or [i for i, line in enumerate(every) if line["row"] == whole]
    rows, columns = ([line[name] for line in every] for name in ("row", "column"))
    problem = f"{path} has no cell {wanted!r}"
    for row, column in pairs:
        if row in rows:
            own = [line["column"] for line in every if line["row"] == row]
            return chosen, f"{problem}: its row {row!r} has no column {column!r}. {_near(column, own, 'columns')}"
    for row, column in pairs:
        if column in columns:
            own = [line["row"] for line in every if line["column"] == column]
            return chosen, f"{problem}: its column {column!r} has no row {row!r}. {_near(row, own, 'rows')}"
    row, column = pairs[0] if pairs else (whole, "")
    return chosen, f"{problem}. {_near(row, rows, 'rows')} {_near(column, columns, 'columns')}"


def _near(wanted: str, names: Iterable[str], what: str) -> str:
    known = list(dict.fromkeys(names))
    close = difflib.get_close_matches(wanted.strip(), known, n=3, cutoff=0.4)
    hint = f"Nearest: {_listed(close)}. " if close else ""
    more = f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
    return f"{hint}The {what} are: {_listed(known[:MOST_NAMES])}{more}."


def _listed(names: Iterable[str]) -> str:
    """Names in quotes, apart by semicolons: they hold commas and spaces."""
    return "; ".join(repr(name) for name in names)


def print_lines(picked: Lines, console: "Console") -> None:
    """Print what was asked for: one row per line of a cell, one line per field of anything else."""
    from rich.table import Table
    from rich.text import Text

    console.print(Text(f"{picked.path}: {picked.wanted}", style="bold"), soft_wrap=True)
    if not {"row", "column", "measured"} <= set(picked.columns):
        for line in picked.lines:
            for name, value in line.items():
                console.print(Text(f"  {name}: {value or '-'}"), soft_wrap=True)
        return
    # One cell: its row and column stand in the heading.
    several = {name for name in ("row", "column") if len({line[name] for line in picked.lines}) > 1}
    used = {name for name in KEYS if any(line.get(name) for line in picked.lines)} - {"row", "column"}
    names = [name for name in KEYS if name in used | several]
    table = Table(*names, "measured [interval]", "n", "published", "verdict")
    for line in picked.lines:
        values = [line[name] for name in names]
        values += [measured(line), *(line.get(name, "") or "-" for name in ("n", "published", "verdict"))]
        table.add_row(*(Text(value, overflow="fold") for value in values))
    console.print(table)


def measured(line: Line) -> str:
    """`0.45 [0.24, 0.66]` with the digits of the file; "-" where nothing was measured."""
    interval = f" [{line['ci_low']}, {line['ci_high']}]" if line.get("ci_low") and line.get("ci_high") else ""
    return f"{line['measured']}{interval}" if line.get("measured") else "-"
