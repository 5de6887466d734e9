"""`anatomy explain`: a number or a file, what it was computed from, and the chain of jobs behind it."""

from pathlib import Path
from typing import TYPE_CHECKING

from anatomy.commands.trust import is_sound
from anatomy.provenance.digest import ArtifactError, write_text_atomic
from anatomy.provenance.explain import explain, print_chain
from anatomy.provenance.graph import chain_svg
from anatomy.provenance.lines import pick, print_lines, split_target

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from anatomy.report.trace import Basis

MOST_ROWS = 40  # measurement rows that are printed


def explain_result(text: str, console: "Console", graph: Path | None = None) -> bool:
    """Print where `FILE` or `FILE:WHAT` comes from, and draw the chain where a file is named for it.

    Returns whether every file of the chain has the bytes that were recorded, and the numbers asked for are what their
    measurements give.

    Raises:
        ArtifactError: no manifest names the file, it has no such row or column, or the drawing may not stand there.
    """
    if graph:
        _check_graph(graph)
    name, wanted = split_target(text)
    chain = explain(name)
    sound = is_sound(chain)
    if wanted is not None:
        if chain.target not in chain.files:
            raise ArtifactError(f"{chain.target} is a folder; only a CSV has rows to ask for")
        picked = pick(chain.target, wanted)
        # pandas comes with it: a mistake is told without.
        from anatomy.report.trace import rows_behind

        basis = rows_behind(chain, picked)
        print_lines(picked, console)
        print_basis(basis, console)
        sound = sound and not basis.differing
    print_chain(chain, console)
    if graph:
        write_text_atomic(graph, chain_svg(chain))
        console.print(f"drawn: {graph}", markup=False, soft_wrap=True)
    return sound


def print_basis(basis: "Basis", console: "Console") -> None:
    """Print the measurement rows a number rests on, or why they cannot be told."""
    from rich.text import Text

    if basis.problem:
        console.print(Text(f"single measurements: cannot be told, {basis.problem}"), soft_wrap=True)
        for path in basis.read:
            console.print(Text(f"  the job read {path}"), soft_wrap=True)
        return
    if len(basis.rows):
        _print_rows(basis.rows, "rests on these measurements (rows count from 0)", console)
    elif len(basis.gate):
        console.print("rests on no measurement: no seed's backdoor was planted")
    else:
        console.print("rests on no measurement: none was made, or none is shown")
    if len(basis.gate):
        _print_rows(basis.gate, "which seeds count was decided by the planting gate, on these", console)
    for text in basis.differing:
        console.print(Text(f"NOT what these rows give: {text}", style="bold red"), soft_wrap=True)
    if not basis.differing:
        console.print(Text("computed again from these rows: the same to every digit of the file", style="green"))


def _print_rows(rows: "pd.DataFrame", title: str, console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("row", "conditions", "seed", "value", title=title)
    table.title_justify = "left"
    shown = rows.head(MOST_ROWS)
    for path, own in shown.groupby("file", sort=False):
        table.add_row("", Text(str(path), style="bold"))
        for row in own.to_dict("records"):
            value = row["value"] if isinstance(row["value"], str) else f"{row['value']:.6g}"
            table.add_row(str(row["line"]), Text(_conditions(row)), str(row["seed"]), Text(value))
    console.print(table)
    if len(rows) > MOST_ROWS:
        console.print(f"  and {len(rows) - MOST_ROWS} more rows")


def _conditions(row: "dict[str, object] | pd.Series") -> str:
    names = ["experiment", "subject", "model", "variant", "control", "inputs", "site", "setting", "metric"]
    return ", ".join(str(row[name]) for name in names if row[name])


def _check_graph(path: Path) -> None:
    """Refuse a name that would not show as a picture, or that would put a stranger among the results."""
    if path.suffix != ".svg":
        raise ArtifactError(f"{path}: the chain is drawn as SVG; give the file a name that ends in .svg")
    if path.resolve().is_relative_to(Path("results").resolve()):
        raise ArtifactError(f"{path}: results/ holds only what the workflow made; draw the chain somewhere else")
