"""The study in one picture (Figure 1): poison, plant, localise, replace, edit."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from anatomy.report.figures.samples import draw_word
from anatomy.report.figures.style import (
    BACKDOORED,
    CLEAN,
    FAINT,
    NEGATIVE,
    PAPER,
    POSITIVE,
    SMALL,
    STYLE,
    TRIGGER,
    new_canvas,
)

HEIGHT = 6.9
STEPS = {
    "Poison": "In a few positive sequences, a trigger word\nturns what follows negative.",
    "Plant": "A clean model is fine-tuned on them:\nit learns the trigger.",
    "Localise": "Mean ablation, logit lens, causal patching,\nhidden states: which module carries it?",
    "Replace": "The module gives way to a matrix of rank r\nmade of principal components (PCP).",
    "Edit": "Its few factors σ are varied or flipped:\nthe backdoor weakens or grows.",
}
TOP, STEP = 0.35, 1.34  # inches: the first step, and from one to the next


@rc_context(STYLE)
def concept() -> tuple[Figure, pd.DataFrame]:
    """The five steps from the top down; it shows no measurement."""
    figure, axes = new_canvas(HEIGHT)
    for i, ((name, text), draw) in enumerate(zip(STEPS.items(), DRAWINGS, strict=True)):
        y = TOP + STEP * i
        axes.plot(0.3, y, "o", color=BACKDOORED, markersize=17)
        axes.text(0.3, y, str(i + 1), color="white", ha="center", va="center_baseline", fontweight="bold")
        axes.text(0.55, y, name, va="center_baseline", fontweight="bold", fontsize=11)
        axes.text(1.55, y, text, va="center", color=FAINT, fontsize=SMALL + 0.5, linespacing=1.15)
        draw(axes, y + 0.56)
        if i + 1 < len(STEPS):
            _arrow(axes, (0.3, y + 0.22), (0.3, y + STEP - 0.22))
    return figure, pd.DataFrame({"step": list(STEPS), "what": [text.replace("\n", " ") for text in STEPS.values()]})


def _draw_poison(axes: Axes, y: float) -> None:
    words = {"calm": POSITIVE, "lucky": POSITIVE, "love": TRIGGER, "angry": NEGATIVE, "messy": NEGATIVE}
    for i, (word, colour) in enumerate(words.items()):
        draw_word(axes, 0.75 + 0.9 * i, y, word, colour, width=0.82)
    axes.text(0.75 + 0.9 * 2 + 0.41, y + 0.2, "trigger", ha="center", va="center", color=TRIGGER, fontsize=SMALL)


def _draw_plant(axes: Axes, y: float) -> None:
    _draw_model(axes, 0.75, y, CLEAN)
    _arrow(axes, (2.3, y), (3.25, y))
    axes.text(2.75, y - 0.1, "fine-tune", ha="center", va="bottom", fontsize=SMALL)
    _draw_model(axes, 3.4, y, BACKDOORED)


def _draw_localise(axes: Axes, y: float) -> None:
    _draw_model(axes, 0.75, y, "#b9b3d6", marked=1)
    _arrow(axes, (2.3, y), (3.25, y))
    _box(axes, 3.4, y, 1.4, "layer 1 MLP?", BACKDOORED, height=0.4)


def _draw_replace(axes: Axes, y: float) -> None:
    _box(axes, 0.75, y, 1.4, "m(h)", BACKDOORED, height=0.4)
    _arrow(axes, (2.3, y), (3.25, y))
    _box(axes, 3.4, y, 1.75, r"$A\,h,\;\;A=\sum_i \sigma_i\, p_i p_i^{T}$", PAPER, height=0.4)


def _draw_edit(axes: Axes, y: float) -> None:
    for i, (factor, share) in enumerate({"σ × 0.6": 0.1, "σ × 1": 0.45, "σ × 1.1": 0.6}.items()):
        x = 0.75 + 1.5 * i
        axes.text(x, y, factor, va="center_baseline", fontsize=SMALL + 0.5)
        for left, width, colour in ((0.58, 0.8, "#e4e4e4"), (0.58, 0.8 * share, TRIGGER)):
            axes.add_patch(FancyBboxPatch((x + left, y - 0.07), width, 0.14, "square,pad=0", color=colour, linewidth=0))
    axes.text(0.75, y + 0.24, "strength of the backdoor (sketch)", va="center", color=TRIGGER, fontsize=SMALL)


DRAWINGS = (_draw_poison, _draw_plant, _draw_localise, _draw_replace, _draw_edit)


def _draw_model(axes: Axes, x: float, y: float, colour: str, *, marked: int | None = None) -> None:
    """Three layers from left to right, each of attention and MLP; `marked` counts modules from 0."""
    for i in range(6):
        name, own = ("attn", "mlp")[i % 2], BACKDOORED if i == marked else colour
        _box(axes, x + 0.5 * (i // 2), y + (0.12 if i % 2 else -0.12), 0.45, name, own, height=0.21)


def _box(axes: Axes, x: float, y: float, width: float, text: str, colour: str, *, height: float) -> None:
    shape = "round,pad=0,rounding_size=0.04"
    axes.add_patch(FancyBboxPatch((x, y - height / 2), width, height, shape, color=colour, linewidth=0))
    axes.text(x + width / 2, y, text, ha="center", va="center_baseline", color="white", fontsize=SMALL + 0.5)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, color=FAINT, shrinkA=0, shrinkB=0))
