"""Line panels: a mean over seeds with its interval against a number, one panel per cell of the study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from anatomy.report.figures.style import SMALL, new_figure, note


@dataclass(frozen=True)
class Look:
    """How one line looks and what the legend calls it."""

    label: str
    colour: str
    marker: str = "o"
    style: str = "-"
    thin: bool = False  # the mean alone, without marks: a control of which there are as many as lines


THIN = 1.0
Looks = Mapping[str, Look]  # what a line's `row` is -> look; the order is the order of the legend


def panels(rows: int, columns: int, *, height: float, ratio: float = 1.3) -> tuple[Figure, np.ndarray]:
    """A figure of panels that share their axes; `height` is what stands above them, `ratio` a panel's height."""
    figure = new_figure(height + ratio * max(rows, 1))
    return figure, figure.subplots(max(rows, 1), max(columns, 1), sharex=True, sharey=True, squeeze=False)


def draw_lines(axes: Axes, data: pd.DataFrame, looks: Looks) -> None:
    """One line per look: mean, its interval as a band, single seeds faint. `column` is the number along the panel.

    Of a thin line the mean alone is drawn.
    """
    if not len(data.measured.dropna()):
        note(axes, "nothing to analyse")
        return
    for row, look in looks.items():
        own = data[data.row == row].assign(x=lambda d: d.column.astype(float)).sort_values("x", kind="stable")
        if look.thin:
            mean = own[own.seed.isna()]
            axes.plot(mean.x, mean.measured, look.style, color=look.colour, linewidth=THIN, zorder=2)
            continue
        for _, seed in own[own.seed.notna()].groupby("seed"):
            axes.plot(seed.x, seed.measured, look.style, color=look.colour, linewidth=0.7, alpha=0.3)
        mean = own[own.seed.isna()].dropna(subset="measured")
        if len(mean):  # what is empty has no place, and that upsets the layout
            band = mean.ci_low.astype(float), mean.ci_high.astype(float)
            axes.fill_between(mean.x, *band, color=look.colour, alpha=0.13, linewidth=0)
        axes.plot(mean.x, mean.measured, color=look.colour, markersize=3.5, linewidth=1.6, zorder=3, **_marks(look))


def line_legend(figure: Figure, looks: Sequence[Look], *, columns: int = 2, more: Sequence[Line2D] = ()) -> None:
    """What the lines mean, above the panels."""
    shown: dict[str, Any] = {"markersize": 4.5, "linewidth": 1.6}
    handles = [Line2D([], [], color=look.colour, label=look.label, **shown, **_marks(look)) for look in looks]
    figure.legend(
        handles=[*handles, *more], loc="outside upper left", ncols=columns, columnspacing=1.2, handlelength=2.2
    )


def small_title(axes: Axes, text: str) -> None:
    """A title that leaves room for the next panel's."""
    axes.set_title(text, fontsize=SMALL + 0.5, fontweight="normal")


def _marks(look: Look) -> dict[str, Any]:
    return {"marker": look.marker, "linestyle": look.style}
