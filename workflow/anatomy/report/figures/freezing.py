"""Parts frozen while the backdoor is planted (section IV-B): does it still come, and when?"""

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anatomy.report.figures.style import BACKDOORED, FAINT, SMALL, STYLE, TRIGGER, new_figure, note, show_share
from anatomy.report.tables import Evidence, final_values


@rc_context(STYLE)
def freezing(curves: pd.DataFrame, evidence: Evidence, emergence: float) -> tuple[Figure, pd.DataFrame]:
    """p+t negativity while planting, one panel per frozen part; marks show when each seed's backdoor emerged."""
    data = _courses(curves, evidence, emergence)
    subjects = sorted(data.subject.unique())
    parts = list(dict.fromkeys(data.frozen))
    figure = new_figure(0.9 + 1.15 * max(len(parts), 1))
    panels = figure.subplots(max(len(parts), 1), max(len(subjects), 1), sharex="col", sharey=True, squeeze=False)
    for column, subject in zip(panels.T, subjects, strict=False):
        for axes, part in zip(column, parts, strict=True):
            own = data[(data.subject == subject) & (data.frozen == part)]
            _draw_part(axes, own, part, emergence)
        column[0].set_title(f"{subject}: p+t top-10 negativity")
        column[-1].set_xlabel("planting steps (thousands)")
    if not parts:
        note(panels[0, 0], "this study froze no part")
    return figure, data


def _courses(curves: pd.DataFrame, evidence: Evidence, emergence: float) -> pd.DataFrame:
    """Curves of the runs with a frozen part and of the main run, with the step at which each seed emerged."""
    runs = curves[(curves.phase == "backdoor") & ((curves.variant == "main") | curves.variant.str.startswith("frozen"))]
    runs = runs[runs.subject.isin(runs.loc[runs.variant != "main", "subject"])]
    final = final_values(curves, evidence.measurements, emergence=emergence)
    steps = final[final.metric == "steps_to_emerge"].assign(variant=lambda t: t.setting, emerged_at=lambda t: t.value)
    runs = runs.merge(steps[["subject", "variant", "seed", "emerged_at"]], how="left")
    runs = runs.assign(frozen=runs.variant.str.removeprefix("frozen: ").replace("main", "nothing"))
    return runs[["subject", "frozen", "seed", "step", "negativity", "mass", "emerged_at"]]


def _draw_part(axes: Axes, own: pd.DataFrame, part: str, emergence: float) -> None:
    """Thin lines are seeds, the thick one their mean; a triangle on the threshold marks a seed's emergence."""
    colour = FAINT if part == "nothing" else BACKDOORED
    own = own.assign(step=own.step / 1000, emerged_at=own.emerged_at / 1000)
    for _, seed in own.groupby("seed"):
        axes.plot(seed.step, seed.negativity, color=colour, linewidth=0.8, alpha=0.45)
    mean = own.groupby("step").negativity.mean()
    axes.plot(mean.index, mean.to_numpy(), color=colour, linewidth=2)
    axes.axhline(emergence, color="#9a9a9a", linewidth=0.8, linestyle=":")
    seeds = own.drop_duplicates("seed").emerged_at
    axes.plot(seeds, [emergence] * len(seeds), "^", color=TRIGGER, markersize=6, zorder=5, clip_on=False)
    show_share(axes, "y")
    name = "nothing frozen" if part == "nothing" else f"frozen: {part}"
    emerged = f"emerged in {seeds.notna().sum()} of {len(seeds)} seeds"
    if seeds.notna().any():
        emerged += f", mean step {1000 * seeds.mean():,.0f}"
    if len(own):
        axes.text(0.01, 0.97, name, transform=axes.transAxes, va="top", fontweight="bold", color=colour)
        axes.text(0.01, 0.78, emerged, transform=axes.transAxes, va="top", fontsize=SMALL, color=TRIGGER)
