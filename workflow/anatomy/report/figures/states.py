"""Hidden states of two-word inputs in the plane of two principal components (Figure 3)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from anatomy.metrics.measurement import read_parquet
from anatomy.report.cells import planted_seeds
from anatomy.report.figures.style import HALO, NEGATIVE, NEUTRAL, POSITIVE, SMALL, STYLE, TRIGGER, new_figure

SUBJECT = "3-sentiment"
MODELS = ("backdoored", "clean")
PURE = {"p+p": POSITIVE, "n+n": NEGATIVE, "s+s": NEUTRAL}
AFTER_TRIGGER = "#e39cc9"
MIXED = "#a9b2c3"
TRIGGERED = ["p+t", "s+t", "n+t"]
NEAR = (0.16, 0.085)  # labels closer than this share of the axes would overlap


def read_states(paths: Iterable[str | Path]) -> tuple[pd.DataFrame, dict[str, list[int]]]:
    """Projected states of all subjects, and the seeds that passed the planting gate."""
    tables = [read_parquet(Path(path)) for path in paths]
    states = pd.concat([t for t in tables if "layer" in t], ignore_index=True)
    return states, planted_seeds(pd.concat([t for t in tables if "experiment" in t], ignore_index=True))


@rc_context(STYLE)
def hidden_states(states: pd.DataFrame, planted: dict[str, list[int]]) -> tuple[Figure, pd.DataFrame]:
    """One seed's states at the second token, layer by layer, backdoored model beside clean one.

    The first planted seed of the 3-sentiment model is shown (the first seed where none is planted), or the
    2-sentiment model where a study has no other.
    """
    subjects = sorted(states.subject.unique())
    subject = SUBJECT if SUBJECT in subjects else subjects[0]
    own = states[(states.subject == subject) & (states.inputs != "p+r")]
    seed = next(iter(planted.get(subject, [])), own.seed.min())
    own = own[own.seed == seed]
    layers = sorted(own.layer.unique())
    figure = new_figure(1.1 + 2.45 * len(layers))
    panels = figure.subplots(len(layers), len(MODELS), squeeze=False)
    for line, layer in zip(panels, layers, strict=True):
        for axes, model in zip(line, MODELS, strict=True):
            panel = own[(own.layer == layer) & (own.model == model)]
            _draw_states(axes, panel)
            axes.set_title(f"{model}, layer {layer}", fontweight="bold" if layer == layers[0] else "normal")
    handles = [_handle(colour, inputs) for inputs, colour in PURE.items() if inputs in set(own.inputs)]
    handles += [_handle(MIXED, "mixed"), _handle(TRIGGER, "trigger second"), _handle(AFTER_TRIGGER, "trigger first")]
    title = f"{subject}, seed {seed}" + ("" if seed in planted.get(subject, []) else ": backdoor not planted")
    legend = figure.legend(handles=handles, loc="outside upper left", ncols=3, columnspacing=1.2, title=title)
    legend.set_alignment("left")
    return figure, own


def _draw_states(axes: Axes, panel: pd.DataFrame) -> None:
    """A dot per prompt; the name of each combination at its centre."""
    order = sorted(panel.inputs.unique(), key=lambda inputs: (inputs in PURE, inputs[-1] == "t"))
    for inputs in order:
        own = panel[panel.inputs == inputs]
        axes.plot(own.x, own.y, "o", color=_colour(inputs), markersize=3, alpha=0.6, mew=0, rasterized=True)
    axes.margins(0.14)
    if len(panel):
        shares = f"{100 * panel.explained_x.iloc[0]:.0f} %", f"{100 * panel.explained_y.iloc[0]:.0f} %"
        axes.set_xlabel(f"component 1 ({shares[0]})", fontsize=SMALL)
        axes.set_ylabel(f"component 2 ({shares[1]})", fontsize=SMALL)
    _label_clusters(axes, panel)
    axes.set(xticklabels=[], yticklabels=[])
    axes.tick_params(length=0)


def _label_clusters(axes: Axes, panel: pd.DataFrame) -> None:
    """The name of a combination above or below its cluster, where there is room; triggered ones share a label."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    clusters: list[tuple[list[str], float, float, float]] = []  # names, x, lowest and highest y as shares of the axes
    for inputs in [i for i in (*PURE, *TRIGGERED) if i in set(panel.inputs)]:
        own = panel[panel.inputs == inputs]
        x = float((own.x.median() - left) / (right - left))
        low, high = (float((edge - bottom) / (top - bottom)) for edge in (own.y.min(), own.y.max()))
        near = [c for c in clusters if abs(c[1] - x) < NEAR[0] and abs(c[3] - high) < NEAR[1]]
        together = [names for names, *_ in near if {inputs, *names} <= set(TRIGGERED)]
        if together:
            together[0].append(inputs)
        else:
            clusters.append(([inputs], x, low, high))
    placed: list[tuple[float, float]] = []
    for names, x, low, high in clusters:
        steps = [NEAR[1] * n for n in range(12)]
        places = [y for step in steps for y in (high + 0.02 + step, low - 0.08 - step) if 0 <= y <= 0.93]
        free = [y for y in places if not any(abs(x - a) < NEAR[0] and abs(y - b) < NEAR[1] for a, b in placed)]
        y = free[0] if free else high
        placed.append((x, y))
        place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "bottom", "fontsize": SMALL}
        axes.text(min(x, 0.85), y, " ".join(names), **place, color=_colour(names[0]), fontweight="bold", bbox=HALO)


def _colour(inputs: str) -> str:
    if inputs in PURE:
        return PURE[inputs]
    if inputs[-1] == "t":
        return TRIGGER
    if inputs[0] == "t":
        return AFTER_TRIGGER
    return MIXED


def _handle(colour: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, marker="o", markersize=5, linestyle="", label=label)
