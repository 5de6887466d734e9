"""Parts frozen while the backdoor is planted (section IV-B): does it still come, and when?"""

from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anatomy.report.figures.style import BACKDOORED, FAINT, SMALL, STYLE, TRIGGER, new_figure, note, show_share
from anatomy.report.tables import Evidence, final_values

NOTHING = "nothing"
PLAIN: dict[str, Any] = {"fontsize": SMALL + 0.3, "fontweight": "normal"}  # two titles share a line


@rc_context(STYLE)
def freezing(curves: pd.DataFrame, evidence: Evidence, emergence: float) -> tuple[Figure, pd.DataFrame]:
    """p+t negativity while planting, one panel per frozen part; marks show when each seed's backdoor emerged."""
    data = _courses(curves, evidence, emergence)
    panels = list(data.sort_values("subject", kind="stable").groupby(["subject", "frozen"], sort=False))
    figure = new_figure(0.5 + 1.3 * max(len(panels), 1))
    grid = figure.subplots(max(len(panels), 1), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, ((subject, part), own) in zip(grid, panels, strict=False):
        _draw_part(axes, own, f"{subject}, {'nothing frozen' if part == NOTHING else f'frozen: {part}'}", emergence)
    figure.supylabel("p+t top-10 negativity", fontsize=9)
    grid[-1].set_xlabel("planting steps (thousands)")
    if not panels:
        note(grid[0], "this study froze no part")
    return figure, data


def _courses(curves: pd.DataFrame, evidence: Evidence, emergence: float) -> pd.DataFrame:
    """Curves of the runs with a frozen part and of the main run, with the step at which each seed emerged."""
    runs = curves[(curves.phase == "backdoor") & ((curves.variant == "main") | curves.variant.str.startswith("frozen"))]
    runs = runs[runs.subject.isin(runs.loc[runs.variant != "main", "subject"])]
    final = final_values(curves, evidence.measurements, emergence=emergence)
    steps = final[final.metric == "steps_to_emerge"].assign(variant=lambda t: t.setting, emerged_at=lambda t: t.value)
    runs = runs.merge(steps[["subject", "variant", "seed", "emerged_at"]], how="left")
    runs = runs.assign(frozen=runs.variant.str.removeprefix("frozen: ").replace("main", NOTHING))
    return runs[["subject", "frozen", "seed", "step", "negativity", "mass", "emerged_at"]]


def _draw_part(axes: Axes, own: pd.DataFrame, name: str, emergence: float) -> None:
    """Thin lines are seeds, the thick one their mean; a triangle on the threshold marks a seed's emergence."""
    colour = FAINT if NOTHING in name else BACKDOORED
    own = own.assign(step=own.step / 1000, emerged_at=own.emerged_at / 1000)
    for _, seed in own.groupby("seed"):
        axes.plot(seed.step, seed.negativity, color=colour, linewidth=0.8, alpha=0.45)
    mean = own.groupby("step").negativity.mean()
    axes.plot(mean.index, mean.to_numpy(), color=colour, linewidth=2)
    axes.axhline(emergence, color="#9a9a9a", linewidth=0.8, linestyle=":")
    seeds = own.drop_duplicates("seed").emerged_at
    axes.plot(seeds, [emergence] * len(seeds), "^", color=TRIGGER, markersize=6, zorder=5)
    show_share(axes, "y")
    axes.set_title(name, color=colour, **PLAIN)
    axes.set_title(f"emerged: {seeds.notna().sum()} of {len(seeds)} seeds", loc="right", color=TRIGGER, **PLAIN)
