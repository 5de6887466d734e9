"""How the backdoor comes with training: the two measures of it, their course, and the amount of training."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anatomy.report.cells import read_published
from anatomy.report.figures.style import BACKDOORED, CLEAN, FAINT, HALO, SMALL, STYLE, new_figure, show_share
from anatomy.report.tables import Evidence, final_values, read_evidence, table_training_amount, training_curves

CURVE_FILES = ("curve.parquet", "curves.parquet")
MEASURES = {"topk_negativity": "top-10 negativity", "negative_mass": "negative mass"}
OF_CURVES = {"topk_negativity": "negativity", "negative_mass": "mass"}


def read_training(
    paths: Iterable[str | Path], published: str | Path, confidence: float
) -> tuple[pd.DataFrame, Evidence]:
    """Training curves, and the evidence of the measurement files that lie between them."""
    files = [Path(path) for path in paths]
    curves = training_curves([f for f in files if f.name in CURVE_FILES])
    return curves, read_evidence([f for f in files if f.name not in CURVE_FILES], published, confidence)


@rc_context(STYLE)
def training_amount(curves: pd.DataFrame, evidence: Evidence, emergence: float) -> tuple[Figure, pd.DataFrame]:
    """The backdoor's two measures on p+t, step by step, against one another, and by the amount of training."""
    data = pd.concat([_courses(curves), _ends(curves, evidence, emergence)], ignore_index=True)
    references = _references(evidence)
    subjects = sorted(evidence.planted)
    figure = new_figure(8.8)
    panels = figure.subplots(4, len(subjects), sharey="row", squeeze=False, height_ratios=[1, 1, 1.1, 1])
    for column, subject in zip(panels.T, subjects, strict=True):
        own = data[data.subject == subject]
        marks = references[references.subject == subject]
        for axes, metric in zip(column[:2], MEASURES, strict=True):
            _draw_course(axes, own[own.panel == "course"], metric)
            _draw_references(axes, marks[marks.metric == metric])
        column[1].set_xlabel("training steps (thousands)")
        _draw_against_mass(column[2], own[own.panel == "course"], marks)
        _draw_ends(column[3], own[own.panel == "end"])
        column[0].set_title(subject, pad=16)
        for axes in column:
            show_share(axes, "y")
    for axes, text in zip(panels[:, 0], [*MEASURES.values(), MEASURES["topk_negativity"], "at the end"], strict=True):
        axes.set_ylabel(text)
    figure.align_ylabels(panels[:, 0])
    return figure, pd.concat([data, references], ignore_index=True)


def _courses(curves: pd.DataFrame) -> pd.DataFrame:
    """Both phases of the main runs on one axis of steps; one row per look, seed and measure."""
    main = curves[curves.variant == "main"]
    length = main[main.phase == "clean"].groupby("subject").step.max()
    start = main.subject.map(length).fillna(0).where(main.phase == "backdoor", 0)
    long = [
        main.assign(panel="course", metric=metric, x=main.step + start, measured=main[name])
        for metric, name in OF_CURVES.items()
    ]
    return pd.concat(long)[["panel", "subject", "phase", "seed", "x", "metric", "measured"]]


def _ends(curves: pd.DataFrame, evidence: Evidence, emergence: float) -> pd.DataFrame:
    """Where the runs ended, by the multiple of the recipe's planting epochs: every seed, and the mean (no seed)."""
    final = final_values(curves, evidence.measurements, emergence=emergence)
    final = final[final.metric.isin(MEASURES) & ~final.setting.str.startswith("frozen")]
    multiple = final.setting.str.removeprefix("amount: ").replace("main", "1").astype(float)
    seeds = final.assign(x=multiple).rename(columns={"value": "measured"})
    means = table_training_amount(final, evidence.confidence)
    both = pd.concat([seeds, means.assign(x=means.row.astype(float))], ignore_index=True)
    both = both.assign(panel="end", phase="backdoor", seed=both.seed.astype("Int64"))
    return both[["panel", "subject", "phase", "seed", "x", "metric", "measured", "ci_low", "ci_high"]]


def _references(evidence: Evidence) -> pd.DataFrame:
    """p+t of the perfect learner (both measures) and of the published model (negativity only)."""
    perfect = evidence.of("behaviour", planted_only=False, model="perfect learner", inputs="p+t")
    perfect = perfect[perfect.metric.isin(MEASURES)].assign(panel="perfect learner", measured=lambda t: t.value)
    unchanged = read_published(evidence.published, "I")
    unchanged = unchanged[(unchanged.row == "unchanged") & unchanged.subject.isin(evidence.planted)]
    both = pd.concat([perfect, unchanged.assign(panel="published", measured=unchanged.published)])
    return both[["panel", "subject", "metric", "measured"]]


def _draw_course(axes: Axes, own: pd.DataFrame, metric: str) -> None:
    """Thin lines are seeds, the thick one their mean."""
    own = own[own.metric == metric].assign(x=own.x / 1000)
    for phase, colour in (("clean", CLEAN), ("backdoor", BACKDOORED)):
        part = own[own.phase == phase]
        for _, seed in part.groupby("seed"):
            axes.plot(seed.x, seed.measured, color=colour, linewidth=0.8, alpha=0.45)
        mean = part.groupby("x").measured.mean()
        axes.plot(mean.index, mean.to_numpy(), color=colour, linewidth=2)
    start = own.loc[own.phase == "backdoor", "x"].min()
    if np.isfinite(start):
        axes.axvline(start, color="#9a9a9a", linewidth=1)
        axes.text(start, 1.07, "clean ", ha="right", va="bottom", fontsize=SMALL, color=CLEAN)
        axes.text(start, 1.07, " planting", ha="left", va="bottom", fontsize=SMALL, color=BACKDOORED)


def _draw_references(axes: Axes, marks: pd.DataFrame, *, side: str = "left") -> None:
    """Lines that say what a perfect learner would reach and what was published."""
    for panel, measured in zip(marks.panel, marks.measured, strict=True):
        published = panel == "published"
        axes.axhline(measured, color="black", linewidth=1, linestyle=":" if published else "--", zorder=1)
        text = f"{panel} {measured:.2f}".replace(" 0.", " .")
        above = measured == marks.measured.max()  # two labels, one on each side
        place: dict[str, Any] = {"ha": side, "va": "bottom" if above else "top", "fontsize": SMALL, "zorder": 6}
        where = 0.02 if side == "left" else 0.98, measured + (0.02 if above else -0.03)
        axes.text(*where, text, transform=axes.get_yaxis_transform(), **place, bbox=HALO)


def _draw_against_mass(axes: Axes, own: pd.DataFrame, marks: pd.DataFrame) -> None:
    """Every look while planting: how the count answers to the mass."""
    looks = own[own.phase == "backdoor"].pivot_table(index=["seed", "x"], columns="metric", values="measured")
    if len(looks):
        axes.plot(looks.negative_mass, looks.topk_negativity, "o", color=BACKDOORED, alpha=0.4, markersize=4, mew=0)
        last = looks.groupby("seed").tail(1)
        axes.plot(last.negative_mass, last.topk_negativity, "o", color=BACKDOORED, markersize=6, clip_on=False)
    perfect = marks[marks.panel == "perfect learner"].set_index("metric").measured
    if len(perfect) == len(MEASURES):
        axes.plot(perfect.negative_mass, perfect.topk_negativity, "*", color="black", markersize=10, zorder=5)
    _draw_references(axes, marks[marks.panel == "published"], side="right")
    axes.set_xlabel("negative mass while planting")
    show_share(axes)


def _draw_ends(axes: Axes, own: pd.DataFrame) -> None:
    """Both measures at the end of planting, by the amount of it."""
    multiples = sorted(own.x.unique())
    for i, metric in enumerate(MEASURES):
        part = own[own.metric == metric]
        place = part.x.map(multiples.index) + 0.24 * (i - 0.5)
        seeds, marker = part.seed.notna(), "os"[i]
        colour = [BACKDOORED, FAINT][i]
        axes.plot(place[seeds], part.measured[seeds], "o", color=colour, alpha=0.35, markersize=4, mew=0)
        means = part[~seeds]
        axes.vlines(place[~seeds], means.ci_low, means.ci_high, color=colour, linewidth=1.4)
        axes.plot(place[~seeds], means.measured, marker, color=colour, markersize=5, label=MEASURES[metric])
    axes.set_xticks(range(len(multiples)), [f"×{m:g}" for m in multiples])
    axes.set_xlim(-0.6, len(multiples) - 0.4)
    axes.set_xlabel("planting, × the recipe's epochs")
    axes.grid(visible=False, axis="x")
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.04, 0.97), ncols=2, columnspacing=0.8, handlelength=0.8, fontsize=SMALL
    )
