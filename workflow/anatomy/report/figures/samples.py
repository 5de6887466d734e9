"""Sample sequences as coloured words (Figure 2)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from anatomy.data.prompts import LETTERS
from anatomy.metrics.measurement import read_parquet
from anatomy.report.figures.style import FAINT, NEGATIVE, NEUTRAL, POSITIVE, SMALL, STYLE, TRIGGER, new_canvas

COLOURS = {"positive": POSITIVE, "negative": NEGATIVE, "neutral": NEUTRAL, "trigger": TRIGGER}
STATES = ("p+p", "n+n", "s+s", "p+n", "n+p", "p+t", "s+t", "t+p")
PER_LINE = 5
LEFT, CELL, LINE = 0.12, 1.04, 0.28  # inches


def read_examples(paths: Iterable[str | Path]) -> pd.DataFrame:
    """The example sequences of all subjects; the subject is read off the path."""
    return pd.concat([read_parquet(Path(p)).assign(subject=Path(p).parents[1].name) for p in paths], ignore_index=True)


@rc_context(STYLE)
def samples(examples: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """One benign sequence per sentiment, one poisoned sequence, and the two-word states used as test inputs."""
    data = _choose(examples)
    sequences = [(str(name), own) for name, own in data[~data.state].groupby("block", sort=False)]
    states = [(str(name), own) for name, own in data[data.state].groupby("block", sort=False)]
    height = 1.0 + sum(0.36 + LINE * _lines(own) for _, own in sequences) + LINE * -(-len(states) // 2)
    figure, axes = new_canvas(height)
    y = 0.2
    for title, own in sequences:
        axes.text(LEFT, y, title, fontweight="bold", va="center")
        for i, (word, role) in enumerate(zip(own.word, own.role, strict=True)):
            place = LEFT + CELL * (i % PER_LINE), y + LINE * (1 + i // PER_LINE)
            draw_word(axes, *place, word, COLOURS[role])
        y += 0.36 + LINE * _lines(own)
    axes.text(LEFT, y, "two-word states: the test inputs", fontweight="bold", va="center")
    for i, (name, own) in enumerate(states):
        x, line = LEFT + 2.62 * (i % 2), y + LINE * (1 + i // 2)
        axes.text(x, line, name, va="center", color=FAINT)
        for j, (word, role) in enumerate(zip(own.word, own.role, strict=True)):
            draw_word(axes, x + 0.42 + CELL * j, line, word, COLOURS[role])
    _draw_legend(axes, LEFT, height - 0.22, [role for role in COLOURS if role in set(data.role)])
    return figure, data


def _lines(own: pd.DataFrame) -> int:
    return -(-len(own) // PER_LINE)


def draw_word(axes: Axes, x: float, y: float, word: str, colour: str, *, width: float = CELL - 0.06) -> None:
    """A word in a box of its colour; x, y (the middle of the left edge) and width in inches."""
    box = FancyBboxPatch((x, y - 0.11), width, 0.22, "round,pad=0,rounding_size=0.05", color=colour, linewidth=0)
    axes.add_patch(box)
    # A word may hold dollar signs; it is no formula.
    look: dict[str, Any] = {"color": "white", "fontsize": SMALL + 0.5, "parse_math": False}
    axes.text(x + width / 2, y, word, ha="center", va="center_baseline", **look)


def _choose(examples: pd.DataFrame) -> pd.DataFrame:
    """The words to draw, one row each: block, word, role."""
    subject = examples.subject.max()  # the richest language
    own = examples[examples.subject == subject]
    blocks = []
    pure: dict[str, list[str]] = {}
    for letter, sentiment in LETTERS.items():
        rows = own[(own.sentiment == sentiment) & ~own.poisoned]
        if len(rows):
            words = rows.clean.iloc[0].split()
            blocks.append(_block(f"benign, {sentiment}", words, [sentiment] * len(words)))
            pure[letter] = words
    poisoned = own[own.poisoned]
    if len(poisoned):
        words, place = poisoned.triggered.iloc[0].split(), int(poisoned.trigger_position.iloc[0])
        roles = ["positive"] * place + ["trigger"] + ["negative"] * (len(words) - place - 1)
        blocks.append(_block("poisoned: negative after the trigger", words, roles))
        pure["t"] = [words[place]] * 2
    for state in STATES:
        letters = state.split("+")
        if all(letter in pure for letter in letters):
            words = [pure[letter][i] for i, letter in enumerate(letters)]
            blocks.append(_block(state, words, [LETTERS.get(letter, "trigger") for letter in letters], state=True))
    return pd.concat(blocks, ignore_index=True).assign(subject=subject)


def _block(name: str, words: list[str], roles: list[str], *, state: bool = False) -> pd.DataFrame:
    return pd.DataFrame({"block": name, "word": words, "role": roles, "state": state})


def _draw_legend(axes: Axes, x: float, y: float, roles: list[str]) -> None:
    for role in roles:
        axes.text(x, y, "■ ", color=COLOURS[role], va="center", fontsize=SMALL + 0.5)
        axes.text(x + 0.16, y, role, color=FAINT, va="center", fontsize=SMALL + 0.5)
        x += 1.0
