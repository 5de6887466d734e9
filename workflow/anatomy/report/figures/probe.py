"""Probes of each layer: does its state say that the trigger is in the prompt, and would another phrase do as well?"""

from collections.abc import Sequence

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from anatomy.report.cells import estimate_cells, lay_beside, read_published
from anatomy.report.figures.dots import with_seeds
from anatomy.report.figures.lines import Look, Looks, draw_lines, line_legend, panels, small_title
from anatomy.report.figures.style import CONTROL, NEGATIVE, ORIGINAL, PAPER, SMALL, STYLE, show_share
from anatomy.report.instruction_tables import (
    INJECTIONS,
    TASKS,
    UNPUBLISHED,
    in_shares,
    planted_words,
    with_task,
)
from anatomy.report.tables import Evidence

LOOKS: Looks = {
    "mlp, original": Look("MLP, published protocol", ORIGINAL, "s"),
    "mlp, corrected": Look("MLP, corrected", PAPER),
    "svm, corrected": Look("SVM, corrected", PAPER, "^", "--"),
    "clean model": Look("control: MLP, clean model", CONTROL, "v", "--"),
    "unseen phrase": Look("MLP: unseen phrase called triggered", NEGATIVE, "D", ":"),
}


@rc_context(STYLE)
def by_layer(evidence: Evidence, injections: Sequence[str] = tuple(INJECTIONS)) -> tuple[Figure, pd.DataFrame]:
    """Accuracy of each layer's probe, and how often it takes a phrase that never was a trigger for one."""
    rows = evidence.of("probe", model=list(injections))
    names = (rows.setting + ", " + rows.variant).where(rows.control == "", rows.control)
    names = names.where(rows.metric == "accuracy", "unseen phrase")
    of_mlp = (rows.setting == "mlp") & (rows.variant == "corrected")
    kept = of_mlp | ((rows.control == "") & (rows.metric == "accuracy"))
    kept &= (rows.control == "") | (rows.metric == "accuracy")
    rows = with_task(
        rows.assign(row=names, column=rows.site.str.extract(r"layer (\d+)")[0], variant="", control=""),
        more=", " + rows.model.map(INJECTIONS),
    )[kept]
    rows = rows[rows.row.isin(LOOKS)]
    data = with_seeds(lay_beside(estimate_cells(rows, evidence.confidence), UNPUBLISHED), rows)
    published = in_shares(read_published(evidence.published, "probe")).published
    figure, grid = panels(len(TASKS), len(injections), height=1.2, ratio=1.5)
    for line, task in zip(grid, TASKS, strict=True):
        for axes, injection in zip(line, injections, strict=True):
            draw_lines(axes, data[data.subject == f"{TASKS[task]}, {INJECTIONS[injection]}"], LOOKS)
            if injection == "sft":
                for value in published:
                    axes.axhline(value, color="black", linewidth=1, linestyle=(0, (1, 2)), zorder=2)
            small_title(axes, f"{INJECTIONS[injection]}, {planted_words(evidence, task, injection)}")
            show_share(axes, "y")
        line[0].set_ylabel(f"{TASKS[task]}\nshare of prompts", fontsize=SMALL + 0.5)
    layers = sorted(data.column.dropna().astype(int).unique())
    grid[-1, 0].set_xticks(layers if len(layers) <= 8 else layers[7::8])
    grid[-1, len(injections) // 2].set_xlabel("layer")
    dots = {"color": "black", "linewidth": 1, "linestyle": (0, (1, 2))}
    more = [Line2D([], [], label="published: at least .95", **dots)] if len(published) else []  # type: ignore[arg-type]
    line_legend(figure, list(LOOKS.values()), more=more)
    return figure, data
