"""The rows of the planting gate behind a number: it decided which seeds count, or that none does.

A table says "not measured" where no seed's backdoor was planted, and a mean is one over planted seeds. Both rest on the
gate's verdict for each seed, and through it on the p+t negativity that the gate looked at.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from anatomy.provenance.lines import Line
from anatomy.report.cells import planted_seeds
from anatomy.report.replay import GATE, Origin, Watch

# What the gate looks at (stage measure_behaviour).
LOOKED_AT = {
    "experiment": "behaviour",
    "model": "backdoored",
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
    subjects = {_subject(origin, watch) for origin in origins if _had_a_say(origin, watch)}
    if of_planted and (line.get("n") == "0" or line.get("not measured", "0") != "0"):
        subjects |= {s for s, seeds in _planted(watch).items() if not seeds and line.get("subject", "") in ("", s)}
    chosen = any("layer" in watch.tables[origin.file] for origin in origins)  # the seed itself, among all
    own = {"seed": int(line["seed"])} if line.get("seed") and not chosen else {}
    return [
        origin
        for subject in sorted(subjects)
        for conditions in ({"experiment": GATE}, LOOKED_AT)
        for origin in places(watch, **conditions, subject=subject, **own)
    ]


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


def _planted(watch: Watch) -> dict[str, list[int]]:
    return planted_seeds(pd.concat([t for t in watch.tables.values() if "experiment" in t], ignore_index=True))


def _subject(origin: Origin, watch: Watch) -> str:
    table = watch.tables[origin.file]
    return str(table.subject[origin.line]) if "subject" in table else subject_of(origin.file)


def subject_of(file: str) -> str:
    """The subject of a file: curves, corpora and hidden states have it in their path alone."""
    return Path(file).parents[1].name
