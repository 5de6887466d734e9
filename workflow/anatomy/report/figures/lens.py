"""Logit lens as a heat map (Table II): measured beside published."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from anatomy.report.figures.dots import with_seeds
from anatomy.report.figures.style import NEGATIVE, POSITIVE, SMALL, STYLE, new_figure, note
from anatomy.report.tables import Evidence, table_logit_lens

POSITIONS = ["p-token", "t-token"]
METRICS = {"topk_negativity": ("neg", NEGATIVE), "topk_positivity": ("pos", POSITIVE)}
BLOCKS = {"published": "published", "original": "measured: code", "paper": "measured: text"}


@rc_context(STYLE)
def logit_lens(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """Share of negative and of positive words among the ten that a head or an MLP alone would say, 3-sentiment."""
    table = table_logit_lens(evidence)
    rows = evidence.of("logit lens", model="backdoored", inputs="p+t", subject="3-sentiment")
    data = with_seeds(table, rows.assign(row=rows.site, column=rows.setting))
    sites = sorted(table.row.unique(), key=lambda name: (not name.startswith("layer"), name))
    figure = new_figure(1.5 + 0.27 * len(sites))
    panels = figure.subplots(1, len(BLOCKS), sharey=True)
    for axes, (block, title) in zip(panels, BLOCKS.items(), strict=True):
        _heat(axes, _values(table, block), sites)
        axes.set_title(title, pad=38)
    panels[0].set_yticks(range(len(sites)), sites)
    planted = evidence.planted.get("3-sentiment", [])
    remark = f"measured: mean of the {len(planted)} planted seeds (of {len(evidence.all_seeds)})"
    panels[1].set_xlabel(remark if planted else "3-sentiment: no seed planted, nothing to analyse", fontsize=9)
    return figure, data


def _values(table: pd.DataFrame, block: str) -> dict[tuple[str, str, str], float]:
    """(site, position, metric) -> share, of one block of the map."""
    column = "published" if block == "published" else "measured"
    own = table if block == "published" else table[(table.variant == block) & (table.control == "")]
    own = own.dropna(subset=column)
    return dict(zip(zip(own.row, own.column, own.metric, strict=True), own[column].astype(float), strict=True))


def _heat(axes: Axes, values: dict[tuple[str, str, str], float], sites: list[str]) -> None:
    """Rows are modules, columns are positions x (negative, positive); the number stands in its field."""
    columns = [(position, metric) for position in POSITIONS for metric in METRICS]
    for x, (position, metric) in enumerate(columns):
        name, colour = METRICS[metric]
        shades = LinearSegmentedColormap.from_list(name, ["white", colour])
        for y, site in enumerate(sites):
            value = values.get((site, position, metric))
            if value is None:
                continue
            axes.fill_between([x - 0.5, x + 0.5], y - 0.5, y + 0.5, color=shades(0.9 * value), linewidth=0)
            text = f"{value:.2f}".removeprefix("0")
            axes.text(x, y, text, ha="center", va="center", fontsize=SMALL, color="white" if value > 0.6 else "black")
        axes.text(x, -0.75, name, ha="center", va="bottom", fontsize=SMALL, color=colour)
    for i, position in enumerate(POSITIONS):
        axes.text(2 * i + 0.5, -1.55, position, ha="center", va="bottom", fontsize=SMALL)
    axes.axvline(1.5, color="white", linewidth=3)
    for y in range(1, len(sites)):
        if sites[y].split()[:2] != sites[y - 1].split()[:2]:  # a new layer
            axes.axhline(y - 0.5, color="#9a9a9a", linewidth=0.8)
    if not values:
        note(axes, "nothing\nto analyse")
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(sites) - 0.5, -0.5), xticks=[])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
