"""The house style: one look and one meaning per colour, in every figure.

Figures are narrow and their text is at least 8 pt, so that they can be read on a phone. The colours are told apart by
colour-blind readers; where they carry the message, a marker or a label repeats it.
"""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 5.4  # inches
SMALL = 8.0  # points; no text is smaller

CLEAN = "#8c8c8c"
BACKDOORED = "#2d1e6b"
POSITIVE = "#009e73"
NEGATIVE = "#d55e00"
NEUTRAL = "#e0a100"
TRIGGER = "#c2308c"
PAPER = "#2f6fb7"
ORIGINAL = "#6cc0ea"
CONTROL = "#8c8c8c"
PUBLISHED = "#000000"
GRID = "#e4e4e4"
FAINT = "#5a5a5a"

# Behind text that stands on a grid or on dots.
HALO: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}

# Any: matplotlib types the keys as literals, which no dict of ours would be.
STYLE: Any = {
    # A document must not carry random ids, or its bytes would differ between two runs.
    "svg.hashsalt": "backdoor-anatomy",
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same glyphs
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": SMALL + 0.5,
    "ytick.labelsize": SMALL + 0.5,
    "legend.fontsize": SMALL + 0.5,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9a9a9a",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": "#9a9a9a",
    "ytick.color": "#9a9a9a",
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "lines.solid_capstyle": "round",
}


def new_figure(height: float) -> Figure:
    """An empty figure, in inches. It belongs to no pyplot state, so that nothing is left behind."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def new_canvas(height: float) -> tuple[Figure, Axes]:
    """A figure with one invisible panel in inches, from the top left corner: for drawings."""
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def show_share(axes: Axes, axis: str = "x") -> None:
    """An axis for a share: from 0 to 1 with some air, ticks at quarters."""
    limits, ticks = (-0.05, 1.05), [0, 0.25, 0.5, 0.75, 1]
    labels = ["0", "", ".5", "", "1"]
    if axis == "x":
        axes.set_xlim(*limits)
        axes.set_xticks(ticks, labels)
    else:
        axes.set_ylim(*limits)
        axes.set_yticks(ticks, labels)


def note(axes: Axes, text: str) -> None:
    """A remark in the middle of a panel."""
    place: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 9}
    remark = axes.text(0.5, 0.5, text, transform=axes.transAxes, **place, fontsize=SMALL + 0.5, color=FAINT, bbox=HALO)
    remark.set_in_layout(False)  # a panel does not shrink to make room for it


def planting_title(subject: str, planted: list[int], seeds: list[int], *, analysed: bool = True) -> str:
    """ "2-sentiment (2 of 3 seeds planted)": how much evidence a panel rests on.

    With `analysed`, the panel shows planted seeds only, and without one there is nothing to show.
    """
    ending = ": nothing to analyse" if analysed and not planted else ""
    return f"{subject} ({len(planted)} of {len(seeds)} seeds planted{ending})"
