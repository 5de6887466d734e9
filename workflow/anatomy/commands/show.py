"""`anatomy summary` and `anatomy inspect`: what came out, and what was asked for, on one screen each."""

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anatomy.spec.errors import SpecError

if TYPE_CHECKING:
    from rich.console import Console

    from anatomy.spec.study import Study

COLUMNS = ("item", "published", "measured", "verdict")
HEADINGS = ("claim or table cell", "published", "measured", "verdict")
STYLES = {
    "reproduced": "green",
    "partly": "yellow",
    "not reproduced": "red",
    "not testable at this scale": "dim",
}


def read_summary(study: str, root: Path = Path()) -> list[dict[str, str]]:
    """The rows of results/{study}/summary.csv.

    Raises:
        SpecError: it is not there yet, or not a table with the columns item, published, measured, verdict.
    """
    path = root / "results" / study / "summary.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            rows = list(table)
    except FileNotFoundError:
        raise SpecError(
            f"{path}: no summary yet, as the study has not run to its end: make reproduce STUDY={study}"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{path}: cannot be read ({error})") from None
    if missing := [column for column in COLUMNS if column not in (table.fieldnames or ())]:
        raise SpecError(f"{path}: not a summary: no column {', '.join(missing)}; delete it and run again")
    return rows


def report_path(study: str, root: Path = Path()) -> Path:
    """Where the report of a study stands."""
    return root / "results" / study / "report" / "index.html"


def print_summary(study: str, console: "Console") -> None:
    """Published beside measured, and where to read on."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*HEADINGS[:3], title=f"Study {study}", title_justify="left")
    table.add_column(HEADINGS[3], no_wrap=True)
    for row in read_summary(study):
        cells = [row[column] or "" for column in COLUMNS]
        table.add_row(*map(Text, cells[:3]), Text(cells[3], style=STYLES.get(cells[3], "")))
    console.print(table)
    report = report_path(study)
    where = str(report.absolute()) if report.exists() else f"not there yet ({report})"
    console.print(Text(f"Report: {where}"), soft_wrap=True)


def print_study(study: "Study", console: "Console") -> None:
    """The study as understood, defaults filled in: a line per section, whatever sections there are."""
    from rich.table import Table
    from rich.text import Text

    table = Table("section", "what it says", title=f"Study {study.study}: config/{study.study}.yaml, checked")
    table.title_justify = "left"
    values = study.model_dump(mode="json")
    for name, value in [*_sections(values), ("results", f"results/{study.study}/")]:
        table.add_row(Text(name, style="bold", no_wrap=True), Text(value, overflow="fold"))
    console.print(table)


def _sections(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """One line per section down to the second level; an arm's plain values stand on a line of their own."""
    plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
    deep = {key: value for key, value in values.items() if isinstance(value, dict)}
    if not prefix:
        arms = [line for key, value in deep.items() for line in _sections(value, key)]
        return [*((key, _plain(value)) for key, value in plain.items()), *arms]
    lines = [(prefix, _compact(plain))] if plain else []
    return [*lines, *((f"{prefix}.{key}", _compact(value)) for key, value in deep.items())]


def _compact(value: dict[str, Any]) -> str:
    """`a 1 · b [x, y] · c (d 2, e 3)`"""
    return " · ".join(f"{key} {_plain(item)}" for key, item in value.items()) or "none"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        inside = [f"{key} {_plain(item)}" for key, item in value.items() if item is not None]
        return f"({', '.join(inside)})"
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return value if isinstance(value, str) else json.dumps(value)
