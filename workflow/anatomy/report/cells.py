"""Cells of a table: many seeds become one estimate, laid beside the published value, with a verdict."""

from pathlib import Path

import numpy as np
import pandas as pd

from anatomy.metrics.intervals import student

# A cell is (subject, row, column, metric); a variant or a control is another reading of the same cell.
CELL = ["subject", "row", "column", "metric"]
READING = ["variant", "control"]
TABLE_COLUMNS = [
    *CELL,
    *READING,
    "recipe",
    "measured",
    "ci_low",
    "ci_high",
    "n",
    "predicted_low",
    "predicted_high",
    "published",
    "verdict",
]
# Published values are rounded to two digits.
ROUNDING = 0.005
# Wider than this, a prediction interval holds nearly everything, and agreement would mean nothing.
TOO_WIDE = {"validation_loss": 0.5}
TOO_WIDE_SHARE = 0.5
# What a metric can be at all; Student's interval knows nothing of that.
RANGES = {
    **dict.fromkeys(["validation_loss", "training_loss", "steps", "steps_to_emerge"], (0.0, np.inf)),
    **dict.fromkeys(["indirect_effect", "specificity"], (-1.0, 1.0)),
}
SHARE = (0.0, 1.0)


def read_published(path: Path, table: str) -> pd.DataFrame:
    """The published cells of one table (a Roman number), keyed as our cells are."""
    published = pd.read_csv(path, dtype={"row": str, "column": str}).fillna({"row": "", "column": ""})
    own = published[published.table == table]
    return own[[*CELL, "value"]].rename(columns={"value": "published"})


def planted_seeds(measurements: pd.DataFrame) -> dict[str, list[int]]:
    """Per cell of the planting gate (`gate_cell`), the seeds whose backdoor clears it."""
    gate = measurements[measurements.experiment == "planting gate"]
    cells = [gate_cell(subject, model) for subject, model in zip(gate.subject, gate.model, strict=True)]
    passed = gate.assign(cell=cells).groupby("cell")
    return {str(cell): sorted(own.loc[own.value == 1, "seed"]) for cell, own in passed}


def specific_seeds(measurements: pd.DataFrame) -> dict[str, list[int]]:
    """Per cell of the planting gate, the planted seeds whose backdoor is about its trigger.

    It is where the interval over prompts of its specificity (metrics.success) lies above 0. Cells for which that was
    not measured are left out.
    """
    rows = measurements[(measurements.experiment == "behaviour") & (measurements.metric == "specificity")]
    cells = pd.Series([gate_cell(s, m) for s, m in zip(rows.subject, rows.model, strict=True)], index=rows.index)
    planted = {cell: seeds for cell, seeds in planted_seeds(measurements).items() if cell in set(cells)}
    above = {cell: set(rows.seed[(cells == cell) & (rows.ci_low > 0)]) for cell in planted}
    return {cell: [seed for seed in seeds if seed in above[cell]] for cell, seeds in planted.items()}


def gate_cell(subject: str, model: str) -> str:
    """What the planting gate judges: a subject or, where its model is not "the backdoored one", that model of it."""
    return subject if model == "backdoored" else f"{subject}, {model}"


def estimate_cells(rows: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """One line per cell and reading: mean over seeds, confidence interval, prediction interval.

    Args:
        rows: measurements with the columns `row` and `column` added; one value per seed and cell.
    """
    lines = []
    for key, group in rows.groupby([*CELL, *READING, "recipe"], sort=False):
        estimate = student(group.value.to_numpy(), confidence)
        lowest, highest = possible(group.metric.iloc[0])
        lines.append(
            {
                **dict(zip([*CELL, *READING, "recipe"], key, strict=True)),
                "measured": estimate.mean,
                "ci_low": np.clip(estimate.low, lowest, highest),
                "ci_high": np.clip(estimate.high, lowest, highest),
                "n": estimate.n,
                "predicted_low": np.clip(estimate.predicted_low, lowest, highest),
                "predicted_high": np.clip(estimate.predicted_high, lowest, highest),
            }
        )
    return pd.DataFrame(lines, columns=TABLE_COLUMNS[:-2])


def possible(metric: str) -> tuple[float, float]:
    """Lowest and highest value a metric can have; intervals are cut there."""
    return RANGES.get(metric, SHARE)


def lay_beside(cells: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Add the published value and the verdict to each cell.

    Published cells that were not measured stay, with the verdict "not measured", so that none is lost silently.
    Controls are not compared: nobody published them.
    """
    table = cells.merge(published, on=CELL, how="left")
    table.loc[table.control != "", "published"] = np.nan
    measured = set(map(tuple, cells[CELL].to_numpy()))
    lost = published[[tuple(key) not in measured for key in published[CELL].to_numpy()]]
    table = pd.concat([table, lost.assign(variant="", control="", n=0)], ignore_index=True) if len(lost) else table
    table["verdict"] = [verdict(line) for line in table.to_dict("records")]
    return table[TABLE_COLUMNS]


def verdict(line: dict) -> str:
    """What a published value says about a measured cell.

    The published numbers come from one training run. So the question is whether one further seed of ours could have
    given them: "agrees" when the published value, give or take its rounding, lies in the prediction interval;
    "differs" when it does not; "undecided" when that interval is too wide to say, or unknown; "not measured" when no
    seed's backdoor was planted.
    """
    published = line.get("published")
    if published is None or np.isnan(published):
        return ""
    if not line["n"] or np.isnan(line["measured"]):
        return "not measured"
    low, high = line["predicted_low"], line["predicted_high"]
    if np.isnan(low) or high - low > TOO_WIDE.get(line["metric"], TOO_WIDE_SHARE):
        return "undecided"
    return "agrees" if low - ROUNDING <= published <= high + ROUNDING else "differs"
