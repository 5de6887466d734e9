"""A table's or figure's data made once more, as its notebook made it, and with it what each number was copied from.

The notebook says which function of `report` made the data and of what; that expression is evaluated, not the notebook
executed. To learn where numbers come from it is evaluated a second time, on tagged inputs: every number of every input
file is replaced by one that occurs nowhere else. A tag that comes out again is a number that was copied from its
place, and the tags among the rows that become one cell are the places it was averaged from.

The functions are pure and have no place to ask. Giving them one would change their code, and with it make every
finished study out of date.
"""

import ast
import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd

from anatomy.metrics.measurement import read_parquet
from anatomy.report.cells import estimate_cells
from anatomy.report.figures.dots import with_seeds
from anatomy.report.ranking import ranked, small_on_average
from anatomy.report.tables import Evidence, summarise_variants

REPORT = "anatomy.report."
WRITERS = {"tables": ("write_table", 0), "figures": ("save_figure", 1)}  # folder -> who writes it, and which argument
NUMBERS = ("value", "negativity", "mass", "validation_loss", "x", "y")  # the numbers of the input files
TEXTS = ("clean", "triggered")  # and their sequences of words
GATE = "planting gate"  # decides which seeds count; its values stay what they are


class CannotTell(Exception):
    """Why it cannot be told what a number was made of."""


@dataclass(frozen=True)
class Origin:
    """One number (or sequence) of an input file: the file, the row in it from 0, the column."""

    file: str
    line: int
    column: str


@dataclass
class Watch:
    """What was heard while tagged inputs were evaluated.

    Attributes:
        tags: tag -> where the number it stands for is.
        tables: the files as they are, untagged.
        cells, dots: rows that became estimates of cells, and rows beside the estimates that a figure shows.
        summarised: tables that were counted.
        gated: what was handed out of planted seeds only, so that the planting gate decided what is among it.
    """

    tags: dict[float | str, Origin] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    cells: list[pd.DataFrame] = field(default_factory=list)
    dots: list[pd.DataFrame] = field(default_factory=list)
    summarised: dict[str, pd.DataFrame] = field(default_factory=dict)
    gated: set[Origin] = field(default_factory=set)

    def tag(self, table: pd.DataFrame, file: str) -> pd.DataFrame:
        """The table with tags in place of its numbers: shares, so that whatever is done with a share still works."""
        self.tables[file] = table
        rng = np.random.default_rng(len(self.tags))
        tagged = table.copy()
        kept = table.experiment == GATE if "experiment" in table else pd.Series(False, index=table.index)
        for column in [name for name in NUMBERS if name in table]:
            numbers = table[column].to_numpy(float)
            free = np.isfinite(numbers) & ~kept.to_numpy()
            tags = rng.random(len(table))
            self.tags.update({tags[i]: Origin(file, int(i), column) for i in np.flatnonzero(free)})
            tagged[column] = np.where(free, tags, numbers)
        for column in [name for name in TEXTS if name in table]:
            marks = [f"{len(self.tables)}/{column}/{i}" for i in range(len(table))]
            self.tags.update({mark: Origin(file, i, column) for i, mark in enumerate(marks)})
            tagged[column] = [" ".join([mark] * len(t.split())) for mark, t in zip(marks, table[column], strict=True)]
        return tagged

    def true(self, value: float) -> float:
        """The number that a tag stands for; of any other number, the number."""
        origin = self.tags.get(value)
        return self.tables[origin.file][origin.column].iloc[origin.line] if origin else value


def replay(notebook: Path, path: Path, parameters: Mapping[str, Any]) -> pd.DataFrame:
    """What the notebook wrote to a CSV at `path`, computed again from the same files.

    Before `watching`, this is to be called once without: modules that are imported in between would stay watched.

    Raises:
        CannotTell: the notebook makes it in a way that is not understood.
    """
    modules, wanted = _expression(notebook, path, parameters)
    known: dict[int, Any] = {}  # an expression that two names stand for is evaluated once

    def value(node: ast.expr) -> Any:
        if id(node) not in known:
            known[id(node)] = compute(node)
        return known[id(node)]

    def compute(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=constant):
                return constant
            case ast.Name(id=parameter) if parameter in parameters:
                return parameters[parameter]
            case ast.List(elts=elements):
                return [value(one) for one in elements]
            case ast.Subscript(value=whole, slice=ast.Constant(value=int(place))):
                return value(whole)[place]
            case ast.Attribute(value=evidence, attr="measurements"):
                return value(evidence).measurements
            case ast.Call(func=ast.Name(id=function), args=arguments, keywords=keywords):
                if modules.get(function, "").startswith(REPORT):
                    named = {word.arg: value(word.value) for word in keywords if word.arg}
                    call = getattr(importlib.import_module(modules[function]), function)
                    return call(*[value(one) for one in arguments], **named)
        raise CannotTell(f"{notebook.name} makes {path.stem} with `{ast.unparse(node)}`, which is not followed")

    return value(wanted)


@contextlib.contextmanager
def watching(names: Mapping[str, str]) -> Iterator[Watch]:
    """Tag what is read and hear what becomes of it. `names`: the path that is read -> what the records call it."""
    watch = Watch()

    def read(path: Path) -> pd.DataFrame:
        return watch.tag(read_parquet(path), names[str(path)])

    def estimate(rows: pd.DataFrame, confidence: float) -> pd.DataFrame:
        watch.cells.append(rows)
        return estimate_cells(rows, confidence)

    def beside(cells: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
        watch.dots.append(rows)
        return with_seeds(cells, rows)

    def summarise(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
        watch.summarised.update(tables)
        return summarise_variants(tables)

    def rank(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
        # By the true values: what is shown must be what was shown.
        true = [watch.true(value) for value in rows.value]
        return rows.assign(rank=ranked(rows.assign(value=true), by)["rank"])

    def small(rows: pd.DataFrame, by: str, most: float) -> list[str]:
        return small_on_average(rows.assign(value=[watch.true(value) for value in rows.value]), by, most)

    select = Evidence.of

    def of(
        evidence: Evidence, experiment: str | list[str], *, planted_only: bool = True, **conditions: Any
    ) -> pd.DataFrame:
        rows = select(evidence, experiment, planted_only=planted_only, **conditions)
        if planted_only:
            watch.gated.update(watch.tags[value] for value in rows.value if value in watch.tags)
        return rows

    heard: list[tuple[Callable, Callable]] = [
        (read_parquet, read),
        (estimate_cells, estimate),
        (with_seeds, beside),
        (summarise_variants, summarise),
        (ranked, rank),
        (small_on_average, small),
    ]
    with contextlib.ExitStack() as restored:

        def put(place: Any, name: str, substitute: Callable) -> None:
            restored.callback(setattr, place, name, getattr(place, name))
            setattr(place, name, substitute)

        put(Evidence, "of", of)
        for module in [m for n, m in list(sys.modules.items()) if n.startswith(REPORT) and n != __name__]:
            for name, real in list(vars(module).items()):
                if substitute := next((ours for theirs, ours in heard if real is theirs), None):
                    put(module, name, substitute)
        yield watch


class _Expand(ast.NodeTransformer):
    """Puts in place of each name what it stands for where the statement is."""

    def __init__(self, bound: Mapping[str, ast.expr]) -> None:
        self.bound = bound

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Names of functions and parameters stay, and so do names that are given a value."""
        return self.bound.get(node.id, node) if isinstance(node.ctx, ast.Load) else node


def _expression(notebook: Path, path: Path, parameters: Mapping[str, Any]) -> tuple[dict[str, str], ast.expr]:
    """Where a notebook's functions are from, and the expression whose value it writes to `path`."""
    if path.parent.name not in WRITERS:
        raise CannotTell("only tables, figures' data and claims can be followed to single rows")
    writer, place = WRITERS[path.parent.name]
    cells = [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    modules: dict[str, str] = {}
    bound: dict[str, ast.expr] = {}
    for statement in (one for source in cells for one in ast.parse(source).body):
        expanded = _Expand({n: value for n, value in bound.items() if n not in parameters}).visit(statement)
        match expanded:
            case ast.ImportFrom(module=str(module), names=names):
                modules |= {alias.asname or alias.name: module for alias in names}
            case ast.Assign(targets=[target], value=value):
                targets = target.elts if isinstance(target, ast.Tuple) else None
                several = enumerate(targets or [])
                parts: dict[str, ast.expr] = {
                    t.id: ast.Subscript(value, ast.Constant(i)) for i, t in several if isinstance(t, ast.Name)
                }
                bound |= parts or ({target.id: value} if isinstance(target, ast.Name) else {})
        for call in ast.walk(expanded):
            match call:
                case ast.Call(func=ast.Name(id=function), args=arguments) if function == writer:
                    if any(isinstance(one, ast.Constant) and one.value == path.stem for one in arguments):
                        return modules, arguments[place]
    raise CannotTell(f"{notebook.name} does not write {path.stem} in a way that is understood")
