"""Models that follow instructions: planting, head ablation against the published one, and heads, MLPs and layers."""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from anatomy.report.cells import estimate_cells, lay_beside
from anatomy.report.figures.dots import Reading, Readings, diamond, draw_dots, legend, with_seeds
from anatomy.report.figures.lines import THIN, Look, Looks, draw_lines, line_legend, panels, small_title
from anatomy.report.figures.style import (
    CLEAN,
    CONTROL,
    NEGATIVE,
    ORIGINAL,
    PAPER,
    POSITIVE,
    SMALL,
    STYLE,
    TRIGGER,
    new_figure,
    note,
    show_share,
)
from anatomy.report.instruction_tables import (
    INJECTIONS,
    OF_PAPER,
    TASKS,
    UNPUBLISHED,
    head_ablation_rows,
    planted_words,
    published_heads,
    with_task,
)
from anatomy.report.ranking import ranked
from anatomy.report.tables import Evidence

ASKED: Readings = {
    ("trigger", ""): Reading("backdoor's answer after the trigger (ASR)", TRIGGER),
    ("random trigger", ""): Reading("... after a phrase that never was one", NEGATIVE, "v"),
    ("clean", ""): Reading("... without a trigger", CLEAN, "s"),
    ("utility", ""): Reading("right answer without a trigger (utility)", POSITIVE, "D"),
}
HEADS: Looks = {
    "published protocol": Look("SFT, published protocol", ORIGINAL, "s"),
    "subtracted, unseen prompts": Look("SFT, subtracted, unseen prompts", PAPER, "^", "--"),
    "set to zero, unseen prompts": Look("SFT, set to zero, unseen prompts", PAPER),
    "random heads": Look("control: random heads of the same layers", CONTROL, "v", "--"),
}
MODELS = {"Llama-2-7B-chat": "D", "Qwen2.5-7B-Instruct": "o"}
KINDS: Looks = {
    "heads": Look("heads", PAPER),
    "mlps": Look("MLPs", NEGATIVE, "s"),
    "layers": Look("whole layers", POSITIVE, "^"),
}
RANDOM = ", random order"
# The same kinds in random orders: the control of each.
ORDERS: Looks = {
    **{kind + RANDOM: replace(look, style=":", thin=True) for kind, look in KINDS.items()},
    **KINDS,
}
RANKS: Looks = {
    INJECTIONS["sft"]: Look(INJECTIONS["sft"], PAPER),
    INJECTIONS["dpo"]: Look(INJECTIONS["dpo"], NEGATIVE, "s"),
    INJECTIONS["edit"]: Look(INJECTIONS["edit"], POSITIVE, "^"),
    "clean model": Look("control: clean model (SFT's answers)", CONTROL, "v", "--"),
}


@rc_context(STYLE)
def planting(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """Attack success, false triggers and utility of every cell and of the clean models; all seeds, planted or not."""
    rows = evidence.of("behaviour", planted_only=False, metric=["asr", "false_trigger", "utility"])
    # The first evaluator that a task has: exact answers, or where none can be, keywords.
    exact = rows[rows.variant == "exact"].subject.unique()
    rows = rows[(rows.variant == "exact") | ((rows.variant == "original") & ~rows.subject.isin(exact))]
    useful = rows.metric == "utility"
    rows = rows[~useful | (rows.inputs == "clean")]
    shown = rows.inputs.where(rows.metric != "utility", "utility")
    rows = with_task(
        rows.assign(row=rows.model.replace(INJECTIONS), column="", variant=shown, control="", metric="share")
    )
    data = with_seeds(lay_beside(estimate_cells(rows, evidence.confidence), UNPUBLISHED), rows)
    tasks = [task for task in TASKS if TASKS[task] in set(rows.subject)]
    figure = new_figure(1.1 + 1.9 * max(len(tasks), 1))
    if not tasks:
        note(figure.subplots(), "no measurement")
        return figure, data
    every = figure.subplots(len(tasks), 1, sharex=True, squeeze=False)[:, 0]
    for axes, task in zip(every, tasks, strict=True):
        own = data[data.subject == TASKS[task]]
        places = [name for name in ("clean", *INJECTIONS.values()) if name in set(own.row)]
        draw_dots(axes, own, places, ASKED, key="row")
        _title(axes, evidence, task)
        show_share(axes)
    every[-1].set_xlabel("share of prompts")
    legend(figure, ASKED, data, columns=1)
    return figure, data


@rc_context(STYLE)
def head_ablation(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """Attack success against the share of heads ablated (SFT), with the published models and random heads."""
    rows = head_ablation_rows(evidence, OF_PAPER, metrics=("asr",))(True)
    random = rows.control != ""
    rows = rows[~random | (rows.variant == "set to zero, unseen prompts")]
    rows = rows.assign(column=rows.row.str.split().str[0], row=rows.variant.where(rows.control == "", rows.control))
    published = published_heads(evidence.published)
    published = published.assign(row=published.column, column=published.row.str.split().str[0])
    data = with_seeds(lay_beside(estimate_cells(rows, evidence.confidence), published), rows)
    figure, grid = panels(len(TASKS), 1, height=1.5, ratio=1.75)
    for axes, task in zip(grid[:, 0], TASKS, strict=True):
        own = data[data.subject == TASKS[task]]
        draw_lines(axes, own, HEADS)
        for model, marker in MODELS.items():
            points = own[own.row == model].dropna(subset="published").assign(x=lambda d: d.column.astype(float))
            if len(points):
                points = points.sort_values("x")
                look = diamond() | {"marker": marker, "markersize": 4.5, "linestyle": ":", "color": "black"}
                axes.plot(points.x, points.published, **look)
        show_share(axes, "y")
        axes.set_title(f"{TASKS[task]} ({planted_words(evidence, task, 'sft')})")
        axes.set_ylabel("attack success")
    grid[-1, 0].set_xlabel("share of the heads ablated, %, largest effect first")
    more = [
        Line2D(
            [], [], **diamond() | {"marker": marker, "linestyle": ":", "color": "black"}, label=f"published, {model}"
        )
        for model, marker in MODELS.items()
    ]
    line_legend(figure, list(HEADS.values()), columns=1, more=more)
    return figure, data


@rc_context(STYLE)
def necessary(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """Attack success and utility against the share of parts ablated: heads, MLPs, layers, each in its own order.

    Dotted: the same parts in random orders.
    """
    return _curves(evidence, "necessary", "share of the parts ablated, largest effect first")


@rc_context(STYLE)
def sufficient(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """The same against the share of parts kept while all others are ablated."""
    return _curves(evidence, "sufficient", "share of the parts kept, largest effect first")


@rc_context(STYLE)
def necessary_everywhere(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """As `necessary`, the parts ablated at all positions."""
    return _curves(evidence, "necessary, all positions", "share of the parts ablated at all positions, same order")


@rc_context(STYLE)
def sufficient_everywhere(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """As `sufficient`, all other parts ablated at all positions."""
    along = "share of the parts kept, all others ablated at all positions, same order"
    return _curves(evidence, "sufficient, all positions", along)


def _curves(evidence: Evidence, experiment: str, along: str) -> tuple[Figure, pd.DataFrame]:
    rows = evidence.of(experiment, metric=["asr", "utility"], variant="exact")
    counts = rows.setting.str.split("/")
    shares = counts.str[0].astype(float) / counts.str[1].astype(float)
    rows = with_task(
        rows.assign(row=rows.site.where(rows.control == "", rows.site + RANDOM), column=shares.map("{:.4g}".format)),
        more=", " + rows.model.map(INJECTIONS),
    )
    data = with_seeds(lay_beside(estimate_cells(rows, evidence.confidence), UNPUBLISHED), rows)
    lines = [(task, metric) for task in TASKS for metric in ("asr", "utility")]
    figure, grid = panels(len(lines), len(INJECTIONS), height=0.7, ratio=1.3)
    for line, (task, metric) in zip(grid, lines, strict=True):
        for axes, injection in zip(line, INJECTIONS, strict=True):
            own = data[(data.subject == f"{TASKS[task]}, {INJECTIONS[injection]}") & (data.metric == metric)]
            draw_lines(axes, own, ORDERS)
            if metric == "asr":
                small_title(axes, f"{INJECTIONS[injection]}, {planted_words(evidence, task, injection)}")
            show_share(axes, "y")
            show_share(axes, "x")
        words = {"asr": "attack success", "utility": "utility"}[metric]
        line[0].set_ylabel(f"{TASKS[task]}\n{words}", fontsize=SMALL + 0.5)
    grid[-1, 1].set_xlabel(along)
    random = Line2D([], [], color="black", linestyle=":", linewidth=THIN, label="in random orders")
    line_legend(figure, list(KINDS.values()), columns=4, more=[random])
    return figure, data


@rc_context(STYLE)
def concentration(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """ACIE of the heads from the largest to the smallest, seed by seed, as means over planted seeds."""
    rows = evidence.of("attribution", metric="acie", variant="corrected", model=list(INJECTIONS))
    rows = rows[rows.site.str.contains(r" att\d", regex=True)]
    rows = rows[(rows.control == "") | (rows.model == "sft")]
    by = ["subject", "model", "seed", "control"]
    total = rows.groupby(by).value.transform("size")
    place = 100 * ranked(rows, by)["rank"] / total
    name: Callable[[str], str] = "{:.4g}".format
    rows = with_task(
        rows.assign(row=rows.model.map(INJECTIONS).where(rows.control == "", rows.control), column=place.map(name))
    )
    data = with_seeds(lay_beside(estimate_cells(rows, evidence.confidence), UNPUBLISHED), rows)
    figure, grid = panels(len(TASKS), 1, height=0.9, ratio=1.7)
    for axes, task in zip(grid[:, 0], TASKS, strict=True):
        own = data[data.subject == TASKS[task]]
        draw_lines(axes, own, RANKS)
        axes.axhline(0, color="#9a9a9a", linewidth=1, zorder=1)
        _title(axes, evidence, task)
        axes.set_ylabel("ACIE")
    if len(data):
        grid[-1, 0].set_xscale("log")
        grid[-1, 0].set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
        grid[-1, 0].minorticks_off()
    grid[-1, 0].set_xlabel("heads in the order of their effect, % of all")
    line_legend(figure, list(RANKS.values()))
    return figure, data


def _title(axes: Axes, evidence: Evidence, task: str) -> None:
    """The task, and at the right how many seeds of each injection were planted."""
    counts = ", ".join(f"{words} {len(evidence.planted_of(task, name))}" for name, words in INJECTIONS.items())
    axes.set_title(TASKS[task])
    axes.set_title(
        f"planted, of {len(evidence.all_seeds)} seeds: {counts}", loc="right", fontsize=SMALL, fontweight="normal"
    )
