"""What the unedited models do on every input combination."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from anatomy.report.figures.dots import Reading, Readings, draw_dots, legend, with_seeds
from anatomy.report.figures.style import BACKDOORED, CLEAN, STYLE, new_figure, planting_title, show_share
from anatomy.report.tables import Evidence, table_behaviour

MODELS: Readings = {
    ("clean", ""): Reading("clean model", CLEAN),
    ("backdoored", ""): Reading("backdoored model", BACKDOORED),
    ("perfect learner", ""): Reading("perfect learner (exact law)", "black", "X"),
}
METRICS = {"topk_negativity": "top-10 negativity", "negative_mass": "negative probability mass"}


@rc_context(STYLE)
def behaviour(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """Clean, backdoored and perfect learner side by side, on held-out prompts; all seeds, planted or not."""
    rows = evidence.of("behaviour", planted_only=False, setting=["held out"], metric=list(METRICS))
    cells = table_behaviour(evidence)
    cells = cells[(cells.variant == "") & cells.metric.isin(METRICS)]
    data = with_seeds(cells, rows.assign(row=rows.inputs, column=rows.model))
    # Here the model is what is compared; the control word p+r is an input like the others.
    drawn = data.assign(variant=data.column, control="")
    subjects = sorted(evidence.planted)
    counts = [drawn[drawn.subject == s].row.nunique() for s in subjects]
    figure = new_figure(1.3 + 0.33 * sum(counts))
    panels = figure.subplots(
        len(subjects), 2, sharex=True, sharey="row", squeeze=False, gridspec_kw={"height_ratios": counts}
    )
    for line, subject in zip(panels, subjects, strict=True):
        own = drawn[drawn.subject == subject]
        places = sorted(own.row.unique(), key=_place)
        for axes, metric in zip(line, METRICS, strict=True):
            draw_dots(axes, own[own.metric == metric], places, MODELS, key="row")
            show_share(axes)
        line[0].set_title(planting_title(subject, evidence.planted[subject], evidence.all_seeds, analysed=False))
    for axes, name in zip(panels[-1], METRICS.values(), strict=True):
        axes.set_xlabel(name)
    legend(figure, MODELS, drawn)
    return figure, data


def _place(inputs: str) -> tuple[int, list[int]]:
    """Pure inputs first, then mixed ones, then those with the trigger, the control word last."""
    first, second = inputs.split("+")
    kind = ["r" in inputs, first == "t", second == "t", first != second]
    return (4 - kind.index(True) if any(kind) else 0), ["pnstr".index(letter) for letter in (first, second)]
