"""Modules replaced by PCP matrices (Tables III, IV, XIII, XIV), and their factors varied (Table V and beyond)."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anatomy.report.cells import estimate_cells, lay_beside, read_published
from anatomy.report.figures.dots import (
    CLEAN_MODEL,
    CODE,
    RANDOM_DIRECTIONS,
    TEXT,
    UNEDITED,
    Readings,
    draw_dots,
    legend,
    with_seeds,
)
from anatomy.report.figures.style import STYLE, new_figure, planting_title, show_share
from anatomy.report.tables import (
    ATTENTION_COLUMNS,
    MLP_COLUMNS,
    PUBLISHED_INPUTS,
    Evidence,
)

READINGS: Readings = {
    ("", ""): UNEDITED,
    ("paper", ""): TEXT,
    ("original", ""): CODE,
    ("paper", "random directions"): RANDOM_DIRECTIONS,
    ("original", "clean model"): CLEAN_MODEL,
}
# The published table of each subject, and what was replaced there.
REPLACED = {
    "mlp": ({"2-sentiment": "III", "3-sentiment": "IV"}, list(MLP_COLUMNS)),
    "attention": ({"2-sentiment": "XIII", "3-sentiment": "XIV"}, list(ATTENTION_COLUMNS)),
}


@rc_context(STYLE)
def pcp(evidence: Evidence, part: str) -> tuple[Figure, pd.DataFrame]:
    """Behaviour and loss with the MLPs (part "mlp") or the attention ("attention") replaced, and the controls."""
    tables, sites = REPLACED[part]
    rows = evidence.of("pcp ablation", site=sites, subject=list(tables))
    rows = rows.assign(row=rows.inputs.where(rows.metric != "validation_loss", "val loss"), column=rows.site)
    rows = rows[rows.row.isin([*PUBLISHED_INPUTS, "val loss"])]
    published = pd.concat([read_published(evidence.published, number) for number in tables.values()])
    data = with_seeds(lay_beside(estimate_cells(rows, evidence.confidence), published), rows)
    subjects = sorted(tables)
    inputs = {s: [i for i in PUBLISHED_INPUTS if i in set(data[data.subject == s].row)] for s in subjects}
    heights = [len(inputs[s]) + 3.2 for s in subjects]
    figure = new_figure(1.4 + 0.46 * sum(heights))
    parts = figure.subfigures(len(subjects), 1, height_ratios=heights, squeeze=False)[:, 0]
    for own_part, subject in zip(parts, subjects, strict=True):
        own = data[data.subject == subject]
        ratios = [len(inputs[subject]) or 1, 1.3]
        shares, losses = own_part.subplots(2, len(sites), sharex="row", sharey="row", height_ratios=ratios)
        for above, below, site in zip(shares, losses, sites, strict=True):
            _replacement(above, below, own[own.column == site], inputs[subject])
            above.set_title("unedited" if site == "none" else site, fontweight="normal", loc="center")
        title = planting_title(subject, evidence.planted.get(subject, []), evidence.all_seeds)
        own_part.suptitle(title, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    figure.supxlabel("top-10 negativity (rows of inputs) and validation loss", fontsize=9)
    legend(figure, READINGS, data)
    return figure, data


def _replacement(shares: Axes, losses: Axes, own: pd.DataFrame, inputs: list[str]) -> None:
    """One column: shares of all inputs above, the validation loss below."""
    draw_dots(shares, own, inputs, READINGS, key="row")
    show_share(shares)
    draw_dots(losses, own, ["val loss"], READINGS, key="row")
    losses.locator_params(axis="x", nbins=2)
