"""Where the backdoor lives: mean ablation (Table I) and causal patching (Table XII), module by module."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from anatomy.report.figures.dots import CODE, TEXT, UNEDITED, Reading, Readings, draw_dots, legend, with_seeds
from anatomy.report.figures.style import BACKDOORED, CONTROL, STYLE, new_figure, planting_title, show_share
from anatomy.report.tables import Evidence, table_mean_ablation

ABLATION: Readings = {
    ("", ""): UNEDITED,
    ("paper", ""): TEXT,
    ("original", ""): CODE,
    ("", "zero ablation"): Reading("control: zero ablation", CONTROL, "v"),
}
PATCHING: Readings = {
    ("", ""): Reading("module taken from p+p", BACKDOORED),
    ("", "random trigger"): Reading("control: from p+r (another special word)", CONTROL, "v"),
}


@rc_context(STYLE)
def mean_ablation(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """Negativity on p+t with one module's output replaced by its mean: a low value marks a module that is needed."""
    rows = evidence.of("mean ablation", model="backdoored", inputs="p+t", metric="topk_negativity")
    # The figure knows a module by its full name; the table splits it into row and column.
    data = with_seeds(_by_site(table_mean_ablation(evidence)), rows.assign(row=rows.site, column=""))
    subjects = sorted(evidence.planted)
    figure = new_figure(0.9 + 3.0 * len(subjects))
    panels = figure.subplots(len(subjects), 1, sharex=True, squeeze=False)[:, 0]
    for axes, subject in zip(panels, subjects, strict=True):
        own = data[data.subject == subject]
        draw_dots(axes, own, _modules(own), ABLATION, key="row")
        show_share(axes)
        axes.set_title(planting_title(subject, evidence.planted[subject], evidence.all_seeds))
    panels[-1].set_xlabel("p+t top-10 negativity with the module replaced")
    legend(figure, ABLATION, data)
    return figure, data


@rc_context(STYLE)
def causal_patching(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """Negativity on p+t with one module's output taken from p+p, and the indirect effect, of both subjects."""
    rows = evidence.of("causal patching", model="backdoored")
    rows = rows.assign(row=rows.site, column="")
    subjects = sorted(evidence.planted)
    cells = [evidence.cells(rows[rows.subject == s], "XII", s) for s in subjects]
    data = with_seeds(pd.concat(cells, ignore_index=True), rows)
    figure = new_figure(1.0 + 2.6 * len(subjects))
    panels = figure.subplots(len(subjects), 2, sharex="col", sharey="row", squeeze=False)
    for line, subject in zip(panels, subjects, strict=True):
        own = data[data.subject == subject]
        places = _modules(own)
        for axes, metric in zip(line, ("topk_negativity", "indirect_effect"), strict=True):
            draw_dots(axes, own[own.metric == metric], places, PATCHING, key="row")
        line[0].set_title(planting_title(subject, evidence.planted[subject], evidence.all_seeds))
        show_share(line[0])
        line[1].set_xlim(-1.04, 0.54)
        line[1].axvline(0, color="#9a9a9a", linewidth=1)
    panels[-1, 0].set_xlabel("p+t negativity, patched")
    panels[-1, 1].set_xlabel("indirect effect")
    legend(figure, PATCHING, data, columns=1)
    return figure, data


def _by_site(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(row=(table.row + " " + table.column).str.strip(), column="")


def _modules(data: pd.DataFrame) -> list[str]:
    """Modules from the bottom up, the unedited model last."""
    names = sorted(data.row.unique())
    return [n for n in names if n.startswith("layer")] + [n for n in names if not n.startswith("layer")]
