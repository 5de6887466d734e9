"""Which measurement rows a cell or a claim rests on: found by computing it again, never by guessing from names.

The run record of a table names the notebook, its measurement files and its parameters. Where all of these, and the
code, are still what they were, the function the notebook calls is called again on the same bytes, and what it puts
into a cell are the rows. In every other case the answer is that it cannot be told, and why.
"""

import ast
import contextlib
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from anatomy.metrics.measurement import read_parquet
from anatomy.provenance.code import rule_code
from anatomy.provenance.explain import Chain
from anatomy.provenance.lines import Line, Lines, key_of
from anatomy.provenance.record import read_record
from anatomy.report import tables
from anatomy.report.cells import CELL, READING
from anatomy.report.claims import claims_table, judge, read_claims
from anatomy.report.tables import Evidence, final_values, read_evidence, training_curves

CONDITIONS = ["experiment", "subject", "model", "variant", "control", "inputs", "site", "setting", "metric"]
ORIGIN = ["file", "line"]  # a measurement file, and the place of the row in it, from 0


@dataclass(frozen=True)
class Basis:
    """Measurement rows behind the lines that were asked for.

    Attributes:
        rows: `file`, `line`, the conditions, `seed` and `value`, one row per number; empty when it cannot be told. A
            row without a `file` was read off the training curves.
        differing: what the lines say, and what the same rows give now, where the two are not the same.
        problem: why it cannot be told; empty otherwise.
        read: the measurement files the job read.
    """

    rows: pd.DataFrame
    differing: tuple[str, ...]
    problem: str
    read: tuple[str, ...]


@dataclass
class _Attentive(Evidence):
    """Evidence that remembers which rows it handed out."""

    heard: list[pd.DataFrame] = field(default_factory=list)

    def of(self, *args: Any, **conditions: Any) -> pd.DataFrame:
        """As Evidence.of."""
        rows = super().of(*args, **conditions)
        self.heard.append(rows)
        return rows


class _CannotTell(Exception):
    """Why the rows cannot be told."""


def rows_behind(chain: Chain, picked: Lines, root: Path = Path()) -> Basis:
    """The measurement rows that the picked lines of a chain's target were computed from."""
    job = chain.jobs[chain.target]
    read = tuple(path for path in job.inputs if path.endswith(".parquet"))
    try:
        _require_unchanged(chain, root)
        record = read_record(root / job.record)
        if "id" in picked.columns and job.rule == "judge_claims":
            found = [_claim_rows(record, line, root) for line in picked.lines]
        else:
            found = _cell_rows(record, picked, root)
    except _CannotTell as error:
        return Basis(pd.DataFrame(columns=[*ORIGIN, *CONDITIONS, "seed", "value"]), (), str(error), read)
    rows = pd.concat([rows for rows, _ in found], ignore_index=True)
    return Basis(rows, tuple(text for _, text in found if text), "", read)


def _require_unchanged(chain: Chain, root: Path) -> None:
    """The same bytes, read by the same code: only then is computing it again the same computation."""
    job = chain.jobs[chain.target]
    if not job.record_intact:
        raise _CannotTell(f"{job.record} is not the record of the manifest")
    for path, digest in job.inputs.items():
        if chain.seen[path].sha256 != digest:
            raise _CannotTell(f"{path} is not what {job.name} read")
    if rule_code(job.rule, notebooks=root / "notebooks") != job.code:
        raise _CannotTell(f"the code of {job.rule} is not the code that made it")


def _cell_rows(record: dict[str, Any], picked: Lines, root: Path) -> list[tuple[pd.DataFrame, str]]:
    """Per picked line of a table: its rows, and how the number differs when it does."""
    inputs = {group: [file["path"] for file in files] for group, files in record["inputs"].items()}
    if Path(picked.path).parent.name != "tables" or not {"notebook", "published", "inputs"} <= set(inputs):
        raise _CannotTell("only the cells of tables and the claims can be followed to single rows")
    function, arguments = _table_call(root / inputs["notebook"][0], Path(picked.path).stem)
    evidence = _evidence(inputs["inputs"], inputs["published"][0], record["spec"]["confidence"], root)
    with _listening() as heard:
        again = _as_lines(getattr(tables, function)(evidence, *arguments))
    used = pd.concat(heard)
    found = []
    for line in picked.lines:
        own = used[(used[[*CELL, *READING]].astype(str) == [line[name] for name in [*CELL, *READING]]).all(axis=1)]
        # A table renames conditions (the unedited model belongs to each variant): the rows are shown as measured.
        source = evidence.measurements.merge(own[ORIGIN], on=ORIGIN)
        found.append((_shown(source), _difference(line, again)))
    return found


def _claim_rows(record: dict[str, Any], line: Line, root: Path) -> tuple[pd.DataFrame, str]:
    """The same for one claim, put together as the stage judge_claims does."""
    inputs = {group: [file["path"] for file in files] for group, files in record["inputs"].items()}
    evidence = _evidence(inputs["measurements"], inputs["published"][0], record["spec"]["confidence"], root)
    emergence = record["spec"]["toy"]["evaluation"]["emergence"]
    curves = training_curves(root / path for path in inputs["curves"])
    final = final_values(curves, evidence.of("behaviour", planted_only=False), emergence=emergence)
    evidence.measurements = pd.concat([evidence.measurements, final], ignore_index=True)
    claims = {claim.id: claim for claim in read_claims(root / inputs["claims"][0])}
    if line["id"] not in claims:
        raise _CannotTell(f"{inputs['claims'][0]} has no claim {line['id']!r}")
    evidence.heard.clear()
    again = _as_lines(claims_table([judge(claims[line["id"]], evidence)]))
    return _shown(pd.concat(evidence.heard)), _difference(line, again)


def _evidence(paths: list[str], published: str, confidence: float, root: Path) -> _Attentive:
    """The evidence a job had, each row with the file and the place it stands at."""
    plain = read_evidence([root / path for path in paths], root / published, confidence)
    frames = [read_parquet(root / path) for path in paths]
    marked = [frame.assign(file=path, line=range(len(frame))) for path, frame in zip(paths, frames, strict=True)]
    return _Attentive(pd.concat(marked, ignore_index=True), plain.published, confidence, plain.all_seeds)


def _table_call(notebook: Path, name: str) -> tuple[str, list[Any]]:
    """The function of `report.tables` and its further arguments with which a notebook makes the table `name`.

    Only the plain form is understood: `table = table_x(evidence, ...)`, `write_table(table, tables, "name", ...)`.
    """
    cells = [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    made: dict[str, ast.expr] = {}
    for statement in (one for source in cells for one in ast.parse(source).body):
        match statement:
            case ast.Assign(targets=[ast.Name(id=target)], value=value):
                made[target] = value
            case ast.Expr(
                value=ast.Call(
                    func=ast.Name(id="write_table"), args=[ast.Name(id=table), _, ast.Constant(value=to), *_]
                )
            ) if to == name:
                match made.get(table), made.get("evidence"):
                    case (
                        ast.Call(func=ast.Name(id=function), args=[ast.Name(id="evidence"), *rest], keywords=[]),
                        ast.Call(func=ast.Name(id="read_evidence")),
                    ) if function.startswith("table_") and all(isinstance(a, ast.Constant) for a in rest):
                        return function, [ast.literal_eval(argument) for argument in rest]
    raise _CannotTell(f"{notebook.name} makes {name} from whole files, not from single measurements")


@contextlib.contextmanager
def _listening() -> Iterator[list[pd.DataFrame]]:
    """Hear the rows that the table functions turn into cells.

    They are pure functions of the evidence and have no place to ask. Giving them one would change their code, and with
    it make every finished study out of date.
    """
    heard: list[pd.DataFrame] = []
    real = tables.estimate_cells

    def listen(rows: pd.DataFrame, confidence: float) -> pd.DataFrame:
        heard.append(rows)
        return real(rows, confidence)

    tables.estimate_cells = listen
    try:
        yield heard
    finally:
        tables.estimate_cells = real


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[[*ORIGIN, *CONDITIONS, "seed", "value"]].sort_values(["seed", *ORIGIN], kind="stable")


def _as_lines(table: pd.DataFrame) -> list[Line]:
    """A table as the lines of the file that tables and claims are written to."""
    text = table.to_csv(index=False, float_format="%.6g")
    return list(csv.DictReader(io.StringIO(text)))


def _difference(line: Line, again: list[Line]) -> str:
    """What a line says and what was computed again says, when they are not the same to the last digit."""
    now = next((other for other in again if key_of(other) == key_of(line)), None)
    name = ", ".join(value for _, value in key_of(line) if value)
    if now is None:
        return f"{name}: computed again, there is no such line"
    fields = [
        f"{field} {value or '-'}, computed again {now.get(field) or '-'}"
        for field, value in line.items()
        if now.get(field) != value
    ]
    return f"{name}: {'; '.join(fields)}" if fields else ""
