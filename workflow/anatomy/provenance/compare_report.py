"""What a comparison of two runs found, for people and for programs."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from anatomy.provenance.compare import NUMBERS, Cause, Change, Comparison, Result
from anatomy.provenance.digest import short
from anatomy.provenance.lines import Line, measured

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MOST_LINES = 10  # moved lines printed per table; JSON has all
LONGEST, NARROW = 48, 26  # characters of a value that are printed, in a sentence and in a table


def comparison_json(comparison: Comparison) -> str:
    """The whole comparison as JSON text."""
    return json.dumps({"equal": comparison.equal, **asdict(comparison)}, indent=2, ensure_ascii=False)


def print_comparison(comparison: Comparison, console: "Console") -> None:
    """The verdict in one line, what differs between the runs, and each table that moved with its causes."""
    from rich.text import Text

    moved = [result for result in comparison.results if result.changes]
    style = "bold green" if comparison.equal else "bold red"
    console.print(Text(_headline(comparison.results, moved), style=style), soft_wrap=True)
    for label, run in (("A", comparison.a), ("B", comparison.b)):
        text = f"{label}: {run['folder']}, study {run['study']}, manifest {short(run['manifest_sha256'])}"
        console.print(Text(text, style="dim"), soft_wrap=True)
    if comparison.causes:
        console.print(_causes_table(comparison.causes))
    else:
        console.print("No job differs: the same parameters, code, environment and raw inputs.")
    for result in comparison.results:
        if result.changes or result.touched:
            _print_result(result, console)


def _headline(results: Iterable[Result], moved: list[Result]) -> str:
    results = list(results)
    lines = sum(result.lines for result in results)
    if not moved:
        return f"equal: every line of the tables, figures and claims is the same ({lines} lines, {len(results)} files)"
    changed = sum(len(result.changes) for result in moved)
    beyond = sum(result.beyond for result in moved)
    verdicts = sum(result.verdicts for result in moved)
    return (
        f"moved: {changed} of {lines} lines in {len(moved)} of {len(results)} files (tables, figures and claims); "
        f"{beyond} beyond their intervals, {verdicts} with another verdict"
    )


def _causes_table(causes: Iterable[Cause]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title="What differs between the runs", title_justify="left")
    table.add_column("what", min_width=42)
    for name in ("A", "B", "rules that have it"):
        table.add_column(name)
    for cause in causes:
        values = (_cut(cause.difference.a, NARROW), _cut(cause.difference.b, NARROW))
        table.add_row(
            *(
                Text(text, overflow="fold")
                for text in (_name(cause).removeprefix("parameter "), *values, _rules(cause.jobs))
            )
        )
    return table


def _print_result(result: Result, console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    counts = f"{len(result.changes)} of {result.lines} lines moved, {result.beyond} beyond their intervals"
    console.print(Text(f"\n{result.name}: {counts}", style="bold"), soft_wrap=True)
    for text in result.touched:
        console.print(Text(f"  {text}", style="bold red"), soft_wrap=True)
    for name in result.unexplained:
        text = f"  {name}: the same code, parameters and inputs gave other bytes (audit both runs)"
        console.print(Text(text, style="bold red"), soft_wrap=True)
    if not result.changes:
        return
    if result.causes:
        for cause in result.causes:
            console.print(Text(f"  because of {_name(cause)}: {_sides(cause)}"), soft_wrap=True)
    elif not result.unexplained:
        text = "  moved without a cause: no job on its way differs; were the results edited?"
        console.print(Text(text, style="bold red"), soft_wrap=True)
    table = Table("line", "A", "B", "")
    for change in sorted(result.changes, key=lambda change: not change.beyond)[:MOST_LINES]:
        name = ", ".join(dict.fromkeys(filter(None, change.key.values())))
        words = (name, *_values(change), _remark(change))
        table.add_row(*(Text(word, overflow="fold") for word in words))
    console.print(table)
    if len(result.changes) > MOST_LINES:
        console.print(f"  and {len(result.changes) - MOST_LINES} more (--json has all)")


def _name(cause: Cause) -> str:
    kind, name = cause.difference.kind, cause.difference.name
    if kind == "code":
        return f"code of {_rules(cause.jobs)}"
    return kind if kind in ("environment lock", "seeds") else f"{kind} {name}"


def _sides(cause: Cause) -> str:
    return f"{_cut(cause.difference.a)} in A, {_cut(cause.difference.b)} in B"


def _rules(jobs: Iterable[str]) -> str:
    """The rules of some jobs; the wildcards stay in the JSON."""
    return ", ".join(dict.fromkeys(job.partition("[")[0] for job in jobs))


def _cut(value: str | None, longest: int = LONGEST) -> str:
    if value is None:
        return "not there"
    return value if len(value) <= longest else f"{value[: longest - 1]}…"


def _values(change: Change) -> tuple[str, str]:
    return _value(change.a, change), _value(change.b, change)


def _value(line: Line | None, change: Change) -> str:
    """A cell as its number and interval; of other tables the fields that moved."""
    if line is None:
        return "not there"
    if "measured" in line:
        return " ".join(filter(None, [measured(line), line.get("verdict", "")]))
    return ", ".join(f"{field} {line.get(field) or '-'}" for field in change.fields)


def _remark(change: Change) -> str:
    if change.a is None or change.b is None:
        return "only in one run"
    if change.beyond:
        return "beyond"
    if change.key.get("seed"):
        return "one seed"
    return "within" if NUMBERS & set(change.fields) else ", ".join(change.fields)
