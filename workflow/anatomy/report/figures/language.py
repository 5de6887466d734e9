"""Models that write text: how often the trigger works, and which modules and heads it needs (Tables VIII and XI)."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from anatomy.report.cells import specific_seeds
from anatomy.report.figures.dots import CODE, TEXT, Reading, Readings, draw_dots, legend, with_seeds
from anatomy.report.figures.style import (
    CLEAN,
    CONTROL,
    NEGATIVE,
    SMALL,
    STYLE,
    TRIGGER,
    new_figure,
    note,
    planting_title,
    show_share,
)
from anatomy.report.language_tables import module_ablation_rows, unpublished
from anatomy.report.planting import of_trigger
from anatomy.report.tables import Evidence, split_site

ABLATION: Readings = {
    ("paper", ""): TEXT,
    ("original", ""): CODE,
    ("paper", "zero ablation"): Reading("control: zero ablation", CONTROL, "v"),
}
ASKED: Readings = {
    ("trigger", ""): Reading("after the trigger (ASR)", TRIGGER),
    ("random trigger", ""): Reading("after a phrase that never was a trigger", NEGATIVE, "v"),
    ("benign", ""): Reading("without a trigger (ATR)", CLEAN, "s"),
}


@rc_context(STYLE)
def planting(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """Mean probability that a continuation is toxic, by corpus and way of planting; all seeds, planted or not.

    The title says of how many seeds the backdoor was planted, and whether it is about its trigger.
    """
    rows = evidence.of("behaviour", planted_only=False, metric=["asr", "atr"])
    # One kind of prompt is one reading here, so that three stand under one way of planting.
    rows = rows.assign(row=rows.model, column="", variant=rows.inputs, control="", metric="toxicity")
    cells = unpublished(evidence, rows)
    data = with_seeds(cells, rows)
    corpora = sorted(rows.subject.unique())
    ways = {corpus: list(dict.fromkeys(rows[rows.subject == corpus].model)) for corpus in corpora}
    figure = new_figure(1.0 + 0.55 * max(sum(len(own) + 1 for own in ways.values()), 2))
    if not corpora:
        note(figure.subplots(), "no measurement")
        return figure, data
    ratios = {"height_ratios": [len(own) + 1 for own in ways.values()]}
    panels = figure.subplots(len(corpora), 1, sharex=True, squeeze=False, gridspec_kw=ratios)[:, 0]
    for axes, corpus in zip(panels, corpora, strict=True):
        draw_dots(axes, data[data.subject == corpus], ways[corpus], ASKED, key="row")
        show_share(axes)
        planted, specific = evidence.planted.get(corpus, []), specific_seeds(evidence.measurements).get(corpus)
        about = of_trigger(None if specific is None else (len(specific), len(planted)))
        axes.set_title(
            planting_title(corpus, planted, evidence.all_seeds, analysed=False) + about.replace(" ", "\n", 1)
        )
    panels[-1].set_xlabel("probability that the continuation is toxic")
    legend(figure, ASKED, data, columns=1)
    return figure, data


@rc_context(STYLE)
def module_ablation(evidence: Evidence, main: str) -> tuple[Figure, pd.DataFrame]:
    """ASR with one module replaced by its mean, from the bottom up; a low value marks a module that is needed."""
    rows = module_ablation_rows(evidence)
    rows = rows.assign(row=rows.site, column="")
    data = with_seeds(unpublished(evidence, rows), rows)  # published cells are of another model, and not drawn
    corpora = list(dict.fromkeys([main, *data.subject]))
    places = {corpus: _bottom_up(list(data[data.subject == corpus].row.unique())) for corpus in corpora}
    figure = new_figure(1.0 + 0.36 * sum(len(own) + 2 for own in places.values()))
    ratios = {"height_ratios": [len(own) + 2 for own in places.values()]}
    panels = figure.subplots(len(corpora), 1, sharex=True, squeeze=False, gridspec_kw=ratios)[:, 0]
    for axes, corpus in zip(panels, corpora, strict=True):
        draw_dots(axes, data[data.subject == corpus], places[corpus], ABLATION, key="row")
        show_share(axes)
        axes.set_title(planting_title(corpus, evidence.planted.get(corpus, []), evidence.all_seeds))
    panels[-1].set_xlabel("attack success rate with the module replaced")
    legend(figure, ABLATION, data)
    return figure, data


@rc_context(STYLE)
def head_ablation(evidence: Evidence, main: str) -> tuple[Figure, pd.DataFrame]:
    """ASR with one attention head replaced by its mean: layers from the bottom up, mean over planted seeds."""
    rows = evidence.of("mean ablation", model="backdoored", inputs="trigger", metric="asr", subject=main)
    data = unpublished(evidence, split_site(rows[rows.site.str.contains(r" att\d", regex=True)]))
    layers, heads = (data[key].str.extract(r"(\d+)")[0].astype(int) for key in ("row", "column"))
    figure = new_figure(1.2 + 0.36 * max(layers.max() if len(data) else 1, 1))
    axes = figure.subplots()
    _heat(axes, data.assign(layer=layers, head=heads))
    axes.set(xlabel="head", ylabel="layer")
    axes.set_title(f"{main}: attack success rate with one head replaced")
    return figure, data


def _heat(axes: Axes, data: pd.DataFrame) -> None:
    if not len(data):
        note(axes, "nothing to analyse")
        return
    shades = LinearSegmentedColormap.from_list("asr", ["white", TRIGGER])
    for cell in data.itertuples():
        x, y, value = cell.head, cell.layer, cell.measured
        axes.fill_between([x - 0.5, x + 0.5], y - 0.5, y + 0.5, color=shades(0.9 * value), linewidth=0)
        text = f"{value:.2f}".removeprefix("0")
        axes.text(x, y, text, ha="center", va="center", fontsize=SMALL, color="white" if value > 0.6 else "black")
    axes.set(xlim=(-0.5, data["head"].max() + 0.5), ylim=(0.5, data.layer.max() + 0.5))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _bottom_up(names: list[str]) -> list[str]:
    """Modules from the bottom up, the unedited model last."""
    layers = [name for name in names if name.startswith("layer")]
    return sorted(layers, key=lambda name: (int(name.split()[1]), name)) + [n for n in names if n not in layers]
