"""Which measurement rows a number rests on: found by computing it again, never by guessing from names.

The run record of a table or figure names the notebook, its input files and its parameters. Where all of these, and the
code, are still what they were, the data are computed again (`replay`), and what goes into a line are its rows. In every
other case the answer is that it cannot be told, and why.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from anatomy.provenance.code import rule_code
from anatomy.provenance.explain import Chain
from anatomy.provenance.lines import Line, Lines, key_of
from anatomy.provenance.record import read_record
from anatomy.report.cells import CELL, READING
from anatomy.report.claims import Claim, Judged, about, claims_table, judge, read_claims
from anatomy.report.gate import gate_behind, places, subject_of
from anatomy.report.replay import GATE, CannotTell, Origin, Watch, replay, watching
from anatomy.report.tables import Evidence, final_values, read_evidence, training_curves

CONDITIONS = ["experiment", "subject", "model", "variant", "control", "inputs", "site", "setting", "metric"]
ORIGIN = ["file", "line"]  # an input file, and the place of the row in it, from 0
# Read off a whole course: where a run first reached the threshold rests on all of its looks.
OF_COURSES = ("emerged", "steps_to_emerge")


@dataclass(frozen=True)
class Basis:
    """Rows of input files behind the lines that were asked for.

    Attributes:
        rows: `file`, `line`, the conditions, `seed` and `value`, one row per number; empty when it cannot be told, and
            where a line holds no measurement. A row of a training curve has its step in `setting`.
        gate: in the same columns, the rows of the planting gate that decided which seeds count, or that none does, and
            the p+t rows they were decided by; empty where all seeds count, planted or not.
        differing: what the lines say, and what the same rows give now, where the two are not the same.
        problem: why it cannot be told; empty otherwise.
        read: the measurement files the job read.
    """

    rows: pd.DataFrame
    gate: pd.DataFrame
    differing: tuple[str, ...]
    problem: str
    read: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """What is behind one line: its rows, the gate's, and how the number differs when it does."""

    rows: pd.DataFrame
    gate: pd.DataFrame
    differing: str


@dataclass
class _Attentive(Evidence):
    """Evidence that remembers which rows it handed out."""

    heard: list[pd.DataFrame] = field(default_factory=list)

    def of(self, *args: Any, **conditions: Any) -> pd.DataFrame:
        """As Evidence.of."""
        rows = super().of(*args, **conditions)
        self.heard.append(rows)
        return rows


def rows_behind(chain: Chain, picked: Lines, root: Path = Path()) -> Basis:
    """The rows that the picked lines of a chain's target were computed from."""
    job = chain.jobs[chain.target]
    read = tuple(path for path in job.inputs if path.endswith(".parquet"))
    try:
        _require_unchanged(chain, root)
        record = read_record(root / job.record)
        claims = "id" in picked.columns and job.rule == "judge_claims"
        found = (_claim_rows if claims else _data_rows)(record, picked, root)
    except CannotTell as error:
        nothing = _shown((), Watch())
        return Basis(nothing, nothing, (), str(error), read)
    rows = pd.concat([one.rows for one in found], ignore_index=True)
    gate = pd.concat([one.gate for one in found], ignore_index=True).drop_duplicates(ORIGIN, ignore_index=True)
    return Basis(rows, gate, tuple(one.differing for one in found if one.differing), "", read)


def _require_unchanged(chain: Chain, root: Path) -> None:
    """The same bytes, read by the same code: only then is computing it again the same computation."""
    job = chain.jobs[chain.target]
    if not job.record_intact:
        raise CannotTell(f"{job.record} is not the record of the manifest")
    for path, digest in job.inputs.items():
        if chain.seen[path].sha256 != digest:
            raise CannotTell(f"{path} is not what {job.name} read")
    if rule_code(job.rule, notebooks=root / "notebooks") != job.code:
        raise CannotTell(f"the code of {job.rule} is not the code that made it")


def _data_rows(record: dict[str, Any], picked: Lines, root: Path) -> list[_Found]:
    """What is behind each picked line of a table, or of a figure's data."""
    inputs = _inputs(record)
    if not {"notebook", "published", "inputs"} <= set(inputs):
        raise CannotTell("only tables, figures' data and claims can be followed to single rows")
    notebook, path = root / inputs["notebook"][0], Path(picked.path)
    parameters = {
        "inputs": [str(root / path) for path in inputs["inputs"]],
        "published": str(root / inputs["published"][0]),
        "confidence": record["spec"]["confidence"],
        "emergence": record["spec"]["toy"]["evaluation"]["emergence"],
        **record["spec"].get("language", {}),
    }
    again = _as_lines(replay(notebook, path, parameters))
    with watching({str(root / path): path for path in inputs["inputs"]}) as watch:
        # With a threshold that every run reaches, no line is lost for the tags it is made of.
        tagged = replay(notebook, path, parameters | {"emergence": 0.0}).to_dict("records")
    found = []
    for line, number in zip(picked.lines, picked.numbers, strict=True):
        place = _place(line, number, again)
        copied = tagged[place] if place is not None and len(tagged) == len(again) else {}
        origins = _copied(copied, watch) or _of_rows(_rows_of(line, watch), watch)
        if "emerged_at" in line:
            origins += _looks(line["subject"], _run_name(line["frozen"]), int(line["seed"]), watch)
        gate = _as_table(gate_behind(line, origins, watch), watch)
        found.append(_Found(_shown(origins, watch), gate, _difference(line, again, place)))
    return found


def _claim_rows(record: dict[str, Any], picked: Lines, root: Path) -> list[_Found]:
    """The same for claims, put together as the stage judge_claims does."""
    inputs, found = _inputs(record), []
    corpus = record["spec"].get("language", {}).get("main", "")
    claims = {claim.id: about(claim, corpus) for path in inputs["claims"] for claim in read_claims(root / path)}
    for line in picked.lines:
        if line["id"] not in claims:
            raise CannotTell(f"{', '.join(inputs['claims'])}: no claim {line['id']!r}")
        emergence = record["spec"]["toy"]["evaluation"]["emergence"]
        again = _as_lines(claims_table([_judged(claims[line["id"]], record, root, emergence)[0]]))
        with watching({str(root / path): path for path in [*inputs["measurements"], *inputs["curves"]]}) as watch:
            heard = _judged(claims[line["id"]], record, root, emergence=0.0)[1]
        origins = _of_rows(heard, watch)
        gate = _as_table(gate_behind(line, origins, watch, of_planted=claims[line["id"]].seeds == "planted"), watch)
        found.append(_Found(_shown(origins, watch), gate, _difference(line, again, 0)))
    return found


def _judged(claim: Claim, record: dict[str, Any], root: Path, emergence: float) -> tuple[Judged, pd.DataFrame]:
    """A claim with what was measured, and the rows it selected."""
    inputs = _inputs(record)
    plain = read_evidence(
        [root / path for path in inputs["measurements"]], root / inputs["published"][0], record["spec"]["confidence"]
    )
    evidence = _Attentive(plain.measurements, plain.published, plain.confidence, plain.all_seeds)
    curves = training_curves(root / path for path in inputs["curves"])
    final = final_values(curves, plain.of("behaviour", planted_only=False), emergence=emergence)
    evidence.measurements = pd.concat([plain.measurements, final], ignore_index=True)
    return judge(claim, evidence), pd.concat(evidence.heard)


def _inputs(record: dict[str, Any]) -> dict[str, list[str]]:
    return {group: [file["path"] for file in files] for group, files in record["inputs"].items()}


# --- from lines to places in files --------------------------------------------------------------------------


def _copied(line: dict[str, Any], watch: Watch) -> list[Origin]:
    """Where the numbers and words of a tagged line were copied from."""
    return [watch.tags[value] for value in line.values() if isinstance(value, float | str) and value in watch.tags]


def _rows_of(line: Line, watch: Watch) -> pd.DataFrame:
    """The tagged rows that were averaged, or counted, to a line."""
    if {"table", "cells"} <= set(line):
        table = watch.summarised.get(line["table"], pd.DataFrame(columns=[*CELL, *READING, "published"]))
        counted = table[table.published.notna() & (table.control == "") & (table.variant == line["variant"])]
        return pd.concat(watch.cells).merge(counted[[*CELL, *READING]].drop_duplicates())
    if "panel" in line:  # the amount of training stands in `x`, as a row of its table
        line = dict.fromkeys([*CELL, *READING], "") | line | {"row": line["x"], "column": line["metric"]}
    if not {*CELL, *READING} <= set(line):
        return pd.DataFrame(columns=["value"])
    rows, names = pd.concat(watch.dots or watch.cells), [*CELL, *READING]
    return rows[(rows[names].astype(str).map(_spelt) == [_spelt(line[name]) for name in names]).all(axis=1)]


def _spelt(name: str) -> str:
    """A name that is a number as files spell numbers: a figure's data have "0.60" as 0.6."""
    try:
        return f"{float(name):.6g}"
    except ValueError:
        return name


def _of_rows(rows: pd.DataFrame, watch: Watch) -> list[Origin]:
    """Where the values of tagged rows are from."""
    origins = [watch.tags[value] for value in rows["value"] if value in watch.tags]
    for row in rows.to_dict("records"):
        if row.get("experiment") == "training" and row["metric"] in OF_COURSES:
            origins += _looks(row["subject"], row["setting"], row["seed"], watch)
        if row.get("experiment") == GATE:
            cell = {"subject": row.get("task", row["subject"]), "model": row["model"]}
            origins += places(watch, experiment=GATE, **cell, seed=row["seed"])
    return origins


def _looks(subject: str, run: str, seed: int, watch: Watch) -> list[Origin]:
    """Every look at the negativity of one run while the backdoor was planted."""
    origins = []
    for file, table in watch.tables.items():
        if "negativity" in table and subject_of(file) == subject:
            variant = table.get("variant", pd.Series("main", index=table.index))
            own = (table.phase == "backdoor") & (variant == run) & (table.seed == seed)
            origins += [Origin(file, int(line), "negativity") for line in table.index[own]]
    return origins


def _run_name(frozen: str) -> str:
    return "main" if frozen == "nothing" else f"frozen: {frozen}"


# --- what is shown ------------------------------------------------------------------------------------------


def _shown(origins: Iterable[Origin], watch: Watch) -> pd.DataFrame:
    """The rows behind one line."""
    return _as_table(origins, watch)


def _as_table(origins: Iterable[Origin], watch: Watch) -> pd.DataFrame:
    """The rows as they stand in their files, each once, seeds first."""
    rows = [_row(origin, watch.tables[origin.file].iloc[origin.line].to_dict()) for origin in dict.fromkeys(origins)]
    table = pd.DataFrame(rows, columns=[*ORIGIN, *CONDITIONS, "seed", "value"])
    return table.sort_values(["seed", *ORIGIN], kind="stable")


def _row(origin: Origin, row: dict[str, Any]) -> dict[str, Any]:
    """A row of any input file in the words of a measurement."""
    file, column = origin.file, origin.column
    if "negativity" in row:
        metric = {"negativity": "topk_negativity", "mass": "negative_mass"}.get(column, column)
        words = {"experiment": "training", "model": {"clean": "clean"}.get(row["phase"], "backdoored")}
        words |= {"setting": f"{row.get('variant', 'main')}, step {row['step']:g}", "metric": metric}
    elif "layer" in row:
        words = {"experiment": "hidden states", "site": f"layer {row['layer']}", "setting": f"prompt {row['index']}"}
        words |= {"model": row["model"], "inputs": row["inputs"], "metric": column}
    elif "clean" in row:
        words = {"experiment": "corpus", "setting": row["split"], "inputs": row["sentiment"], "metric": column}
    else:
        words = {name: row[name] for name in CONDITIONS}
    known = {"subject": row.get("subject", subject_of(file)), "seed": row["seed"], "value": row[column]}
    return dict.fromkeys(CONDITIONS, "") | known | words | {"file": file, "line": origin.line}


def _as_lines(table: pd.DataFrame) -> list[Line]:
    """A table as the lines of the file that tables, figures' data and claims are written to."""
    text = table.to_csv(index=False, float_format="%.6g")
    return list(csv.DictReader(io.StringIO(text)))


def _place(line: Line, number: int, again: list[Line]) -> int | None:
    """Which of the lines computed again is this one: its equal, or the only one of its name, or the same number."""
    if number <= len(again) and again[number - 1] == line:
        return number - 1
    named = [i for i, other in enumerate(again) if key_of(other) == key_of(line)]
    equal = [i for i in named if again[i] == line]
    return next(iter(equal or named), None)


def _difference(line: Line, again: list[Line], place: int | None) -> str:
    """What a line says and what was computed again says, when they are not the same to the last digit."""
    name = ", ".join(value for _, value in key_of(line) if value)
    if place is None:
        return f"{name}: computed again, there is no such line"
    now = again[place]
    fields = [
        f"{field} {value or '-'}, computed again {now.get(field) or '-'}"
        for field, value in line.items()
        if now.get(field) != value
    ]
    return f"{name}: {'; '.join(fields)}" if fields else ""
