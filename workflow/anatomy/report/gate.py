"""The rows of the planting gate behind a number: it decided which seeds count, or that none does.

A table says "not measured" where no seed's backdoor was planted, and a mean is one over planted seeds. Both rest on the
gate's verdict for each seed, and through it on the p+t negativity, or the attack success, that the gate looked at.
"""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from anatomy.metrics.measurement import COLUMNS
from anatomy.provenance.lines import Line
from anatomy.report.cells import gate_cell, planted_seeds
from anatomy.report.instruction_tables import INJECTIONS, TASKS
from anatomy.report.replay import GATE, Origin, Watch

ITS_OWN = "backdoored"  # the model of a subject that has one: toy models, and those that write text
# What the gate of toy models looks at (stage measure_behaviour).
LOOKED_AT = {
    "experiment": "behaviour",
    "model": ITS_OWN,
    "inputs": "p+t",
    "setting": "held out",
    "metric": "topk_negativity",
}


def gate_behind(line: Line, origins: list[Origin], watch: Watch, *, of_planted: bool = True) -> list[Origin]:
    """The gate's rows, and those it looked at, for the seeds of each subject that a line is about.

    Args:
        origins: where the numbers of the line are from. Where it counts no seed (`n`), or cells without one, the gate
            of a subject of which no seed was planted is behind that.
        of_planted: whether such a line would be one of planted seeds.
    """
    judged = _judged(watch)
    cells = {_cell(origin, watch, judged) for origin in origins if _had_a_say(origin, watch)}
    if of_planted and (line.get("n") == "0" or line.get("not measured", "0") != "0"):
        cells |= {cell for cell, seeds in _planted(watch).items() if not seeds and _is_about(line, *judged[cell])}
    chosen = any("layer" in watch.tables[origin.file] for origin in origins)  # the seed itself, among all
    own = {"seed": int(line["seed"])} if line.get("seed") and not chosen else {}
    found = []
    for cell in sorted(cells):
        subject, model = judged.get(cell, (cell, ITS_OWN))
        found += places(watch, experiment=GATE, subject=subject, model=model, **own)
        found += _looked_at(subject, model, watch, own)
    return found


def places(watch: Watch, **conditions: Any) -> list[Origin]:
    """The measurements of all files under some conditions."""
    found = []
    for file, table in watch.tables.items():
        if "experiment" in table:
            own = pd.concat([table[name] == value for name, value in conditions.items()], axis=1).all(axis=1)
            found += [Origin(file, int(line), "value") for line in table.index[own]]
    return found


def _had_a_say(origin: Origin, watch: Watch) -> bool:
    """Whether the gate decided that a row counts: one of planted seeds only, the gate's own, or a hidden state.

    The hidden states that are shown are those of the first planted seed.
    """
    table = watch.tables[origin.file]
    return (
        origin in watch.gated or "layer" in table or ("experiment" in table and table.experiment[origin.line] == GATE)
    )


def _looked_at(subject: str, model: str, watch: Watch, own: dict[str, Any]) -> list[Origin]:
    """What the gate looks at: negativity of a toy model, attack success of one that writes or that is instructed.

    Of a model that follows instructions it is the success by exact answers, where any can be exact.
    """
    if model == ITS_OWN and (found := places(watch, **LOOKED_AT, subject=subject, **own)):
        return found
    wanted = {"experiment": "behaviour", "subject": subject, "model": model, "inputs": "trigger", "metric": "asr"}
    variants = ("",) if model == ITS_OWN else ("exact", "original")
    every = (places(watch, **wanted, variant=variant, **own) for variant in variants)
    return next(filter(None, every), [])


def _measurements(watch: Watch) -> pd.DataFrame:
    found = [table for table in watch.tables.values() if "experiment" in table]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=COLUMNS)


def _planted(watch: Watch) -> dict[str, list[int]]:
    return planted_seeds(_measurements(watch))


def _judged(watch: Watch) -> dict[str, tuple[str, str]]:
    """Subject and model of every cell of the gate."""
    rows = _measurements(watch)
    gate = rows[rows.experiment == GATE]
    return {
        gate_cell(subject, model): (subject, model) for subject, model in zip(gate.subject, gate.model, strict=True)
    }


def _cell(origin: Origin, watch: Watch, judged: dict[str, tuple[str, str]]) -> str:
    """The cell of the gate that a row belongs to, which may be that of its subject."""
    table = watch.tables[origin.file]
    subject = str(table.subject[origin.line]) if "subject" in table else subject_of(origin.file)
    own = gate_cell(subject, str(table.model[origin.line])) if "model" in table else subject
    return own if own in judged else subject


def _is_about(line: Line, subject: str, model: str) -> bool:
    """Whether a line without a number is about a cell: it has the words for it, or in a claim the names."""
    named = line.get("subject", "")
    if model == ITS_OWN:
        return named in ("", subject)
    if "statistic" in line:
        return subject in named.split(", ") and model in re.split(r", | / ", line["statistic"])
    injection = INJECTIONS.get(model, model)
    return named.startswith(TASKS.get(subject, subject)) and injection in (line.get("column"), named.split(", ")[-1])


def subject_of(file: str) -> str:
    """The subject of a file: curves, corpora and hidden states have it in their path alone."""
    return Path(file).parents[1].name
