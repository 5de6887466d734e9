"""Dot panels: per place the published value, the mean over seeds with its interval, and every seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from anatomy.report.cells import CELL, READING
from anatomy.report.figures.style import BACKDOORED, CONTROL, ORIGINAL, PAPER, PUBLISHED, note

PLOTTED = [*CELL, *READING, "seed", "measured", "ci_low", "ci_high", "n", "published", "verdict"]


@dataclass(frozen=True)
class Reading:
    """How one reading of a cell (a variant or a control) looks and what the legend calls it."""

    label: str
    colour: str
    marker: str = "o"


Readings = Mapping[tuple[str, str], Reading]  # (variant, control) -> look; the order is the order of the dots

UNEDITED = Reading("unedited model", BACKDOORED)
TEXT = Reading("variant “paper” (the text)", PAPER)
CODE = Reading("variant “original” (released code)", ORIGINAL, "s")
RANDOM_DIRECTIONS = Reading("control: random directions", CONTROL, "v")
CLEAN_MODEL = Reading("control: clean model", CONTROL, "D")


def with_seeds(cells: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of a table, and below them every seed's value; only the latter have a `seed`.

    Args:
        cells: a table as `lay_beside` makes it.
        rows: the measurements behind it, with `row` and `column`.
    """
    seeds = rows.rename(columns={"value": "measured"})[[*CELL, *READING, "seed", "measured"]]
    both = pd.concat([cells, seeds.astype({"seed": "Int64"})], ignore_index=True)
    return both.reindex(columns=PLOTTED).astype({"seed": "Int64"})


def draw_dots(axes: Axes, data: pd.DataFrame, places: Sequence[str], readings: Readings, *, key: str) -> None:
    """One band per place, from the top down; in it one line per reading, the published value above them.

    Args:
        data: plotted data of one metric; `key` is the column that holds the place.
        readings: looks by (variant, control); what is not listed is not drawn.
    """
    if not places:
        note(axes, "no measurement")
        axes.set_yticks([])
        return
    for i, place in enumerate(places):
        own = data[data[key] == place]
        present = [(r, look) for r, look in readings.items() if len(_reading(own, r).measured.dropna())]
        published = own.published.dropna().unique()
        lines = len(present) + (len(published) > 0)
        levels = [i + (line - (lines - 1) / 2) * 0.8 / max(lines, 1) for line in range(lines)]
        if i % 2:
            axes.axhspan(i - 0.5, i + 0.5, color="#f6f6f6", zorder=0, linewidth=0)
        if len(published):
            axes.plot(published, [levels.pop(0)] * len(published), **diamond())
        for y, (reading, look) in zip(levels, present, strict=True):
            _draw_reading(axes, _reading(own, reading), y, look)
    axes.set_yticks(range(len(places)), list(places))
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def legend(figure: Figure, readings: Readings, data: pd.DataFrame, *, columns: int = 2) -> None:
    """What the dots mean, above the panels: only what is to be seen."""
    looks = {look: None for r, look in readings.items() if len(_reading(data, r).measured.dropna())}
    handles: list[Artist] = [_handle(look) for look in looks]
    if data.published.notna().any():
        handles.append(Line2D([], [], **diamond(), label="published (one run)"))
    if data.seed.notna().any():
        handles.append(
            Line2D([], [], color="#777777", alpha=0.45, marker="o", markersize=4, linestyle="", label="single seeds")
        )
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=columns, columnspacing=1.2)


def _reading(data: pd.DataFrame, reading: tuple[str, str]) -> pd.DataFrame:
    return data[(data.variant == reading[0]) & (data.control == reading[1])]


def _draw_reading(axes: Axes, own: pd.DataFrame, y: float, look: Reading) -> None:
    seeds, means = own[own.seed.notna()], own[own.seed.isna()].dropna(subset="measured")
    axes.plot(seeds.measured, [y] * len(seeds), "o", color=look.colour, alpha=0.4, markersize=4, mew=0)
    axes.hlines([y] * len(means), means.ci_low, means.ci_high, color=look.colour, linewidth=1.4, zorder=3)
    axes.plot(means.measured, [y] * len(means), look.marker, color=look.colour, markersize=5, zorder=4, clip_on=False)


def _handle(look: Reading) -> Line2D:
    return Line2D([], [], color=look.colour, marker=look.marker, markersize=5.5, linewidth=1.4, label=look.label)


def diamond() -> dict:
    """Published values look the same in every figure."""
    look = {"marker": "D", "markersize": 5.5, "linestyle": ""}
    return look | {"mfc": "white", "mec": PUBLISHED, "mew": 1.2, "zorder": 5, "clip_on": False}
