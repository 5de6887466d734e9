"""The backdoor as a function of the scaling factors: the range that Table V samples at five points."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from anatomy.report.cells import estimate_cells, lay_beside, read_published
from anatomy.report.figures.dots import diamond, with_seeds
from anatomy.report.figures.style import (
    BACKDOORED,
    CONTROL,
    NEGATIVE,
    POSITIVE,
    STYLE,
    TRIGGER,
    new_figure,
    note,
    planting_title,
    show_share,
)
from anatomy.report.tables import BOTH_VARIANTS, Evidence

INPUTS = {"p+t": TRIGGER, "n+n": NEGATIVE, "p+p": POSITIVE}
TITLES = {"paper": "variant “paper”", "original": "variant “original”"}
LOSS = "val loss"


@rc_context(STYLE)
def factor_sweep(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """Negativity and validation loss against the multiple of the tuned σ (first MLP replaced), per variant."""
    data = _sweep(evidence)
    subjects = sorted(evidence.planted)
    figure = new_figure(0.7 + 3.5 * len(subjects))
    parts = figure.subfigures(len(subjects), 1, squeeze=False)[:, 0]
    for part, subject in zip(parts, subjects, strict=True):
        panels = part.subplots(2, 2, sharex=True, sharey="row", height_ratios=[1.7, 1])
        for (shares, losses), variant in zip(panels.T, BOTH_VARIANTS, strict=True):
            own = data[(data.subject == subject) & data.variant.isin([variant, ""])]
            for row, colour in INPUTS.items():
                _draw_sweep(shares, own[own.row == row], colour)
            _draw_sweep(losses, own[own.row == LOSS], BACKDOORED)
            if own.measured.isna().all():
                note(shares, "no measurement")
            show_share(shares, "y")
            shares.set_title(TITLES[variant], fontweight="normal", loc="center")
            losses.set_xlabel("multiple of the tuned factors σ")
            _zoom(losses, data[(data.subject == subject) & (data.row == LOSS)])
            for axes in (shares, losses):
                axes.axvline(1, color="#9a9a9a", linewidth=1, zorder=1)
        panels[0, 0].set_ylabel("top-10 negativity")
        panels[1, 0].set_ylabel("validation loss")
        title = planting_title(subject, evidence.planted[subject], evidence.all_seeds)
        part.suptitle(title, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    handles = [Line2D([], [], color=c, marker="o", markersize=4, label=row) for row, c in INPUTS.items()]
    handles.append(Line2D([], [], color=CONTROL, linestyle="--", label="p+t, random directions"))
    handles.append(Line2D([], [], **diamond(), label="published"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, columnspacing=1.2)
    return figure, data


def _sweep(evidence: Evidence) -> pd.DataFrame:
    """The sweep's cells and seeds, beside Table V; `column` is the multiple as a number."""
    rows = evidence.of("pcp editing", site="mlp 1", control=["", "random directions"])
    rows = rows[~rows.setting.str.startswith("(")]  # the factors one by one: Table VI
    rows = rows.assign(row=rows.inputs.where(rows.metric != "validation_loss", LOSS), column=rows.setting)
    control = rows.control != ""
    rows = rows[rows.row.isin([*INPUTS, LOSS]) & (~control | (rows.row == "p+t"))]
    published = read_published(evidence.published, "V")
    published = published[published.row.isin([*INPUTS, LOSS])]
    data = with_seeds(lay_beside(estimate_cells(rows, evidence.confidence), published), rows)
    return data.assign(column=data.column.astype(float)).sort_values("column", kind="stable")


def _draw_sweep(axes: Axes, own: pd.DataFrame, colour: str) -> None:
    """Thin lines are seeds, the thick one their mean, the band its interval; dashed is the control."""
    for _, seed in own[own.seed.notna() & (own.control == "")].groupby("seed"):
        axes.plot(seed.column, seed.measured, color=colour, linewidth=0.8, alpha=0.45)
    means = own[own.seed.isna()]
    control, mean = means[means.control != ""], means[means.control == ""].dropna(subset="measured")
    axes.plot(control.column, control.measured, color=CONTROL, linestyle="--", linewidth=1.4)
    if len(mean):  # what is empty has no place, and that upsets the layout
        band = mean.ci_low.astype(float), mean.ci_high.astype(float)
        axes.fill_between(mean.column, *band, color=colour, alpha=0.12, linewidth=0)
    axes.plot(mean.column, mean.measured, color=colour, marker="o", markersize=4, linewidth=1.8)
    published = means.drop_duplicates("column").dropna(subset="published")
    if len(published):
        axes.plot(published.column, published.published, **diamond() | {"markersize": 4})


def _zoom(axes: Axes, losses: pd.DataFrame) -> None:
    """Limits by what was measured or published: a wide interval of few seeds would hide the course."""
    values = pd.concat([losses.measured, losses.published]).dropna().astype(float)
    if values.empty:
        axes.set_yticks([])
    else:
        margin = 0.1 * max(values.max() - values.min(), 0.5)
        axes.set_ylim(values.min() - margin, values.max() + margin)
