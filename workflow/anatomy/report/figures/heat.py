"""Heat maps of the instruction arm: probes of one layer on the states of another (Figure 2), effects of heads (3)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from anatomy.report.cells import estimate_cells, lay_beside
from anatomy.report.figures.dots import with_seeds
from anatomy.report.figures.style import SMALL, STYLE, new_figure, note
from anatomy.report.instruction_tables import INJECTIONS, PROBES, PROTOCOLS, TASKS, UNPUBLISHED, planted_words, with_task
from anatomy.report.tables import Evidence

ACCURACY = "cividis"  # from dark to light, also for colour-blind readers and on paper
EFFECT = "PuOr_r"  # orange above zero, violet below
CHANCE = 0.5
# Columns of Figure 3: protocol, control, title.
EFFECTS = (
    ("original", "", "published"),
    ("corrected", "", "corrected"),
    ("corrected", "clean model", "control: clean"),
)


@rc_context(STYLE)
def transfer(evidence: Evidence, injections: Sequence[str]) -> tuple[Figure, pd.DataFrame]:
    """Accuracy of each layer's probe on every layer's states, mean over planted seeds; four maps per cell."""
    rows = evidence.of("probe transfer", model=list(injections), control="")
    rows = with_task(
        rows.assign(
            row=rows.setting.str.split(",").str[0].map(PROBES) + ", probe of " + rows.site,
            column="on " + rows.setting.str.split(", ").str[1],
            variant=rows.variant.map(PROTOCOLS),
        ),
        more=", " + rows.model.map(INJECTIONS),
    )
    data = lay_beside(estimate_cells(rows, evidence.confidence), UNPUBLISHED)
    maps = [(probe, protocol) for probe in PROBES.values() for protocol in PROTOCOLS.values()]
    cells = [(injection, task) for injection in injections for task in TASKS]
    figure = new_figure(0.75 + 1.55 * len(cells))
    grid = figure.subplots(len(cells), len(maps), squeeze=False, sharex=True, sharey=True)
    for line, (injection, task) in zip(grid, cells, strict=True):
        own = data[data.subject == f"{TASKS[task]}, {INJECTIONS[injection]}"]
        for axes, (probe, protocol) in zip(line, maps, strict=True):
            _transfer_map(axes, own[(own.variant == protocol) & own.row.str.startswith(probe)])
        planted = planted_words(evidence, task, injection)
        line[0].set_ylabel(f"{TASKS[task]}\n{INJECTIONS[injection]}, {planted}\nprobe of layer", fontsize=SMALL)
    for axes, (probe, protocol) in zip(grid[0], maps, strict=True):
        axes.set_title(f"{probe}\n{protocol.split()[0]}", fontsize=SMALL + 0.5, loc="center")
    for axes in grid[-1]:
        axes.set_xlabel(f"{axes.get_xlabel()}\nstates of layer".strip(), fontsize=SMALL)
    shades = ScalarMappable(Normalize(CHANCE, 1), ACCURACY)
    bar = figure.colorbar(shades, ax=grid.ravel().tolist(), location="top", aspect=50, shrink=0.7, pad=0.01)
    bar.set_label("accuracy (chance: .5)", fontsize=SMALL)
    return figure, data


def _transfer_map(axes: Axes, own: pd.DataFrame) -> None:
    """One map, and below it the mean on the diagonal and beside it."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if not len(own):
        note(axes, "nothing to\nanalyse")
        return
    probe, layer = own.row.str.split().str[-1].astype(int), own.column.str.split().str[-1].astype(int)
    square = own.assign(probe=probe, layer=layer).pivot(index="probe", columns="layer", values="measured")
    values = square.to_numpy()
    axes.pcolormesh(square.columns, square.index, values, cmap=ACCURACY, vmin=CHANCE, vmax=1, shading="nearest")
    axes.invert_yaxis()
    axes.set_yticks(_ticks(len(square)))
    axes.set_xticks(_ticks(len(square)))
    others = values[~np.eye(len(values), dtype=bool)]
    beside = f", else {_short(others.mean())}" if len(others) else ""
    axes.set_xlabel(f"own {_short(values.diagonal().mean())}{beside}", fontsize=SMALL)


@rc_context(STYLE)
def effects(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """Figure 3: ACIE of every head in the first planted model of each task (SFT), and as a control in the clean one."""
    columns = [("sft", protocol, control, title) for protocol, control, title in EFFECTS]
    return _effect_maps(evidence, columns)


@rc_context(STYLE)
def effects_everywhere(evidence: Evidence) -> tuple[Figure, pd.DataFrame]:
    """The same for every injection, by the corrected protocol."""
    return _effect_maps(evidence, [(name, "corrected", "", title) for name, title in INJECTIONS.items()])


def _effect_maps(evidence: Evidence, columns: Sequence[tuple[str, str, str, str]]) -> tuple[Figure, pd.DataFrame]:
    injections = list(dict.fromkeys(injection for injection, *_ in columns))
    rows = evidence.of("attribution", model=injections, metric="acie")
    wanted = {(injection, protocol, control) for injection, protocol, control, _ in columns}
    kept = [key in wanted for key in zip(rows.model, rows.variant, rows.control, strict=True)]
    rows = rows[pd.Series(kept, index=rows.index, dtype=bool) & rows.site.str.contains(r" att\d", regex=True)]
    rows = with_task(rows.assign(row=rows.site, column=rows.model.map(INJECTIONS)))
    data = with_seeds(lay_beside(estimate_cells(rows[:0], evidence.confidence), UNPUBLISHED), rows)
    figure = new_figure(0.6 + 1.75 * len(TASKS))
    grid = figure.subplots(len(TASKS), len(columns), squeeze=False, sharex=True, sharey=True)
    for line, task in zip(grid, TASKS, strict=True):
        for axes, (injection, protocol, control, title) in zip(line, columns, strict=True):
            own = data[(data.subject == TASKS[task]) & (data.column == INJECTIONS[injection])]
            own = own[(own.variant == protocol) & (own.control == control)]
            first = own[own.seed == own.seed.min()] if len(own) else own
            largest = _effect_map(axes, first)
            head = f"{title}, seed {own.seed.min()}\n" if len(own) else f"{title}\n"
            axes.set_title(head + largest, fontsize=SMALL + 0.5, fontweight="normal", loc="left")
        line[0].set_ylabel(f"{TASKS[task]}\nlayer", fontsize=SMALL + 0.5)
    for axes in grid[-1]:
        axes.set_xlabel("head", fontsize=SMALL + 0.5)
    bar = figure.colorbar(ScalarMappable(Normalize(-1, 1), EFFECT), ax=grid, location="top", aspect=50, shrink=0.7)
    bar.set_label("ACIE, as a share of the panel's largest", fontsize=SMALL + 0.5)
    return figure, data


def _effect_map(axes: Axes, own: pd.DataFrame) -> str:
    """Draw one model's effects on a scale of its own; return what the largest is."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if not len(own):
        note(axes, "nothing to analyse")
        return ""
    layer = own.row.str.extract(r"layer (\d+)")[0].astype(int)
    square = own.assign(layer=layer, head=own.row.str.extract(r"att(\d+)")[0].astype(int)).pivot(
        index="layer", columns="head", values="measured"
    )
    square = square.astype(float)
    most = max(float(np.abs(square.to_numpy()).max()), 1e-9)
    axes.pcolormesh(
        square.columns, square.index, square.to_numpy(), cmap=EFFECT, vmin=-most, vmax=most, shading="nearest"
    )
    axes.set_yticks(_ticks(len(square)))
    axes.set_xticks([tick - 1 for tick in _ticks(square.shape[1])])
    return f"largest {own.measured.max():+.3f}".replace("0.", ".").replace("-", "−")


def _ticks(count: int) -> list[int]:
    """Layers from 1 that are labelled: all of few, else every eighth."""
    return list(range(1, count + 1)) if count <= 8 else [1, *range(8, count + 1, 8)]


def _short(share: float) -> str:
    return f"{share:.2f}".removeprefix("0")
