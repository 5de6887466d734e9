"""The backdoor vector (Figure 4): added to clean prompts and taken from triggered ones, layer by layer."""

from collections.abc import Sequence

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from anatomy.report.cells import estimate_cells, lay_beside
from anatomy.report.figures.dots import with_seeds
from anatomy.report.figures.lines import Look, Looks, draw_lines, line_legend, panels, small_title
from anatomy.report.figures.style import (
    CONTROL,
    NEGATIVE,
    ORIGINAL,
    PAPER,
    POSITIVE,
    SMALL,
    STYLE,
    TRIGGER,
    show_share,
)
from anatomy.report.instruction_tables import INJECTIONS, TASKS, UNPUBLISHED, planted_words, with_task
from anatomy.report.ranking import largest, smallest
from anatomy.report.tables import Evidence

BY_LAYER: Looks = {
    "corrected": Look("backdoor vector", PAPER),
    "original": Look("backdoor vector, published protocol", ORIGINAL, "s"),
    "random heads": Look("control: of random heads", NEGATIVE, "^", "--"),
    "random vector": Look("control: random, of equal norm", CONTROL, "v", "--"),
    "clean model": Look("control: added to the clean model", POSITIVE, "D", ":"),
}
WAYS = {("add", "clean"): ("added to clean prompts", 1), ("take away", "trigger"): ("taken from triggered prompts", 0)}
BY_COEFFICIENT: Looks = {
    "added": Look("added: attack success", TRIGGER),
    "taken away": Look("taken away: attack success", PAPER, "s"),
    "restored": Look("taken away: right answer", PAPER, "^", "--"),
    "utility": Look("taken away: utility, clean prompts", POSITIVE, "D"),
    "random": Look("random vector added: attack success", CONTROL, "v", "--"),
}


@rc_context(STYLE)
def by_layer(evidence: Evidence, injections: Sequence[str]) -> tuple[Figure, pd.DataFrame]:
    """Attack success with the vector at each layer, coefficient 1; the thin line is the unchanged model."""
    rows = evidence.of("backdoor vector", metric="asr", model=list(injections), setting=["add 1", "take away 1"])
    rows = with_task(
        rows.assign(
            row=rows.control.where(rows.control != "", rows.variant),
            column=rows.site.str.extract(r"layer (\d+)")[0],
            variant=rows.setting.str.rsplit(n=1).str[0],
        ),
        more=", " + rows.model.map(INJECTIONS),
    )
    data = with_seeds(lay_beside(estimate_cells(rows, evidence.confidence), UNPUBLISHED), rows)
    unchanged = evidence.of("backdoor vector", metric="asr", model=list(injections), site="unchanged", control="")
    cells = [(injection, task) for injection in injections for task in TASKS]
    figure, grid = panels(len(cells), len(WAYS), height=1.2, ratio=1.5)
    for line, (injection, task) in zip(grid, cells, strict=True):
        for axes, ((way, inputs), (title, published)) in zip(line, WAYS.items(), strict=True):
            own = data[(data.subject == f"{TASKS[task]}, {INJECTIONS[injection]}") & (data.variant == way)]
            draw_lines(axes, own, BY_LAYER)
            start = unchanged[(unchanged.subject == task) & (unchanged.model == injection)]
            start = start[start.inputs == inputs]
            if len(start):
                axes.axhline(start.value.mean(), color="#777777", linewidth=0.8, zorder=1)
            if injection == "sft":
                axes.axhline(published, color="black", linewidth=1, linestyle=(0, (1, 2)), zorder=2)
            small_title(axes, title)
            show_share(axes, "y")
        words = f"{INJECTIONS[injection]}, {planted_words(evidence, task, injection)}"
        line[0].set_ylabel(f"{TASKS[task]}\n{words}\nattack success", fontsize=SMALL)
    layers = sorted(data.column.dropna().astype(int).unique())
    grid[-1, 0].set_xticks(layers if len(layers) <= 8 else layers[3::4])
    for axes in grid[-1]:
        axes.set_xlabel("layer")
    more = [Line2D([], [], color="#777777", linewidth=0.8, label="unchanged model")]
    if "sft" in injections:
        dots = {"color": "black", "linewidth": 1, "linestyle": (0, (1, 2))}
        more.append(Line2D([], [], label="published, best layer", **dots))  # type: ignore[arg-type]
    line_legend(figure, list(BY_LAYER.values()), more=more)
    return figure, data


@rc_context(STYLE)
def by_coefficient(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """The vector at the best layer of each seed and coefficient, and what taking it away there does to utility."""
    rows = evidence.of("backdoor vector", variant="corrected", model=list(INJECTIONS))
    rows = rows[rows.control.isin(["", "random vector"])]
    words = rows.setting.str.rsplit(n=1)
    rows = rows.assign(way=words.str[0], column=words.str[1])
    key = ["subject", "model", "seed", "control", "column"]
    success = rows[rows.metric == "asr"]
    added = largest(success[success.way == "add"], key)
    taken = smallest(success[(success.way == "take away") & (success.control == "")], key)
    beside = rows[rows.metric.isin(["restored", "utility"])].merge(taken[[*key, "site"]], on=[*key, "site"])
    names = added.control.map({"": "added", "random vector": "random"})
    rows = pd.concat([added.assign(row=names), taken.assign(row="taken away"), beside.assign(row=beside.metric)])
    rows = with_task(rows.assign(control=""), more=", " + rows.model.map(INJECTIONS))
    data = with_seeds(lay_beside(estimate_cells(rows, evidence.confidence), UNPUBLISHED), rows)
    figure, grid = panels(len(TASKS), len(INJECTIONS), height=1.2, ratio=1.6)
    for line, task in zip(grid, TASKS, strict=True):
        for axes, injection in zip(line, INJECTIONS, strict=True):
            draw_lines(axes, data[data.subject == f"{TASKS[task]}, {INJECTIONS[injection]}"], BY_COEFFICIENT)
            small_title(axes, f"{INJECTIONS[injection]}, {planted_words(evidence, task, injection)}")
            show_share(axes, "y")
        line[0].set_ylabel(f"{TASKS[task]}\nshare of prompts", fontsize=SMALL + 0.5)
    ticks = sorted(data.column.dropna().astype(float).unique())
    grid[-1, 0].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    grid[-1, 1].set_xlabel("coefficient (0: unchanged)")
    line_legend(figure, list(BY_COEFFICIENT.values()))
    return figure, data
