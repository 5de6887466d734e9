"""Which reading of the method gives the published numbers: the paper's text or the released code."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from anatomy.report.figures.style import BACKDOORED, NEGATIVE, SMALL, STYLE, new_figure, note
from anatomy.report.tables import (
    BOTH_VARIANTS,
    Evidence,
    summarise_variants,
    table_causal_patching,
    table_edited_attention,
    table_flipped_factors,
    table_logit_lens,
    table_mean_ablation,
    table_pcp,
    table_scaled_factor,
)

# The neutral verdicts are grey: they say nothing for or against.
VERDICTS = {"agrees": BACKDOORED, "differs": NEGATIVE, "undecided": "#c9c9c9", "not measured": "#eeeeee"}
WHITE_ON = ("agrees", "differs")


def all_tables(evidence: Evidence) -> dict[str, pd.DataFrame]:
    """Every table of the toy study, by its number in the paper."""
    return {
        "I": table_mean_ablation(evidence),
        "II": table_logit_lens(evidence),
        "III": table_pcp(evidence, "III"),
        "IV": table_pcp(evidence, "IV"),
        "V": table_scaled_factor(evidence),
        "VI": table_flipped_factors(evidence),
        "VII": table_edited_attention(evidence),
        "XII": table_causal_patching(evidence),
        "XIII": table_pcp(evidence, "XIII"),
        "XIV": table_pcp(evidence, "XIV"),
    }


@rc_context(STYLE)
def variants(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """Per table and variant, how many published cells the measurement agrees with, differs from, cannot decide."""
    data = summarise_variants(all_tables(evidence))
    numbers = list(dict.fromkeys(data.table)) if len(data) else []
    figure = new_figure(1.0 + 0.62 * max(len(numbers), 3))
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(max(len(numbers), 1) - 0.5, -0.5), xlabel="share of the published cells")
    axes.grid(visible=False)
    places, labels = [], []
    for i, number in enumerate(numbers):
        for j, variant in enumerate(BOTH_VARIANTS):
            places.append(i + 0.38 * (j - 0.5))
            labels.append(f"{number}  {variant}")
            _draw_bar(axes, data[(data.table == number) & (data.variant == variant)], places[-1])
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", length=0)
    if not numbers:
        note(axes, "No seed's backdoor passed the planting gate:\nno cell to compare")
    handles = [Patch(color=colour, label=verdict) for verdict, colour in VERDICTS.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, columnspacing=1.2, handlelength=1)
    return figure, data


def _draw_bar(axes, line: pd.DataFrame, y: float) -> None:
    """One stacked bar; the number of cells stands in each piece."""
    if line.empty:
        return
    cells, left = int(line.cells.iloc[0]), 0.0
    for verdict, colour in VERDICTS.items():
        count = int(line[verdict].iloc[0])
        if count:
            axes.barh(y, count / cells, left=left, height=0.33, color=colour, linewidth=0)
            text = axes.text(left + count / cells / 2, y, str(count), ha="center", va="center", fontsize=SMALL)
            text.set_color("white" if verdict in WHITE_ON else "black")
        left += count / cells
