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
from anatomy.report.instruction_tables import (
    INJECTIONS,
    PROBES,
    PROTOCOLS,
    TASKS,
    UNPUBLISHED,
    planted_words,
    with_task,
)
from anatomy.report.tables import Evidence

ACCURACY = "cividis"  # from dark to light, also for colour-blind readers and on paper
EFFECT = "PuOr_r"  # orange above zero, violet below
CHANCE = 0.5
# Columns of Figure 3: protocol, control, title.
EFFECTS = (
    ("original", "", "published"),
    ("corrected", "", "corrected"),
    ("corrected", "clean model", "control: clean model"),
)


@rc_context(STYLE)
def transfer(evidence: Evidence, injections: Sequence[str]) -> tuple[Figure, pd.DataFrame]:
    """Accuracy of each layer's probe on every layer's states, mean over planted seeds; four maps per cell."""
    rows = evidence.of(["probe transfer", "probe transfer, own layer"], model=list(injections), control="")
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
    figure, grid = _grid(len(cells), len(maps), 0.75 + 1.55 * len(cells), empty=not len(data))
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
    if not _is_map(axes, own):
        return
    probe, layer = own.row.str.split().str[-1].astype(int), own.column.str.split().str[-1].astype(int)
    square = own.assign(probe=probe, layer=layer).pivot(index="probe", columns="layer", values="measured")
    values = square.to_numpy()
    axes.pcolormesh(square.columns, square.index, values, cmap=ACCURACY, vmin=CHANCE, vmax=1, shading="nearest")
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
    # No means: heads of two models have nothing in common but their number.
    data = with_seeds(lay_beside(estimate_cells(rows[:0], evidence.confidence), UNPUBLISHED), rows)
    data = data.astype({"measured": float})
    figure, grid = _grid(len(TASKS), len(columns), 0.6 + 1.75 * len(TASKS), empty=not len(data))
    for line, task in zip(grid, TASKS, strict=True):
        maps = []
        for injection, protocol, control, _ in columns:
            own = data[(data.subject == TASKS[task]) & (data.column == INJECTIONS[injection])]
            own = own[(own.variant == protocol) & (own.control == control)]
            maps.append(own[own.seed == own.seed.min()] if len(own) else own)
        # One scale for the models of a row, so that the control shows how little it is.
        most = max([1e-9, *(float(own.measured.abs().max()) for own in maps if len(own))])
        for axes, own, (injection, _, _, title) in zip(line, maps, columns, strict=True):
            _effect_map(axes, own, most)
            if len(own):
                under = f"seed {own.seed.iloc[0]}, largest {_short(own.measured.max(), 3)}"
            else:
                under = planted_words(evidence, task, injection)
            axes.set_title(f"{title}\n{under}", fontsize=SMALL + 0.5, fontweight="normal", loc="left")
        line[0].set_ylabel(f"{TASKS[task]}\nlayer", fontsize=SMALL + 0.5)
    for axes in grid[-1]:
        axes.set_xlabel("head", fontsize=SMALL + 0.5)
    bar = figure.colorbar(ScalarMappable(Normalize(-1, 1), EFFECT), ax=grid, location="top", aspect=50, shrink=0.7)
    bar.set_label("ACIE, as a share of the row's largest", fontsize=SMALL + 0.5)
    bar.set_ticks([-1, 0, 1], labels=["−1", "0", "1"])
    return figure, data


def _effect_map(axes: Axes, own: pd.DataFrame, most: float) -> None:
    """One model's effects, from minus to plus `most`."""
    if not _is_map(axes, own):
        return
    layer = own.row.str.extract(r"layer (\d+)")[0].astype(int)
    square = own.assign(layer=layer, head=own.row.str.extract(r"att(\d+)")[0].astype(int)).pivot(
        index="layer", columns="head", values="measured"
    )
    values = square.astype(float).to_numpy()
    axes.pcolormesh(square.columns, square.index, values, cmap=EFFECT, vmin=-most, vmax=most, shading="nearest")
    axes.set_yticks(_ticks(len(square)))
    axes.set_xticks([tick - 1 for tick in _ticks(square.shape[1])])


def _is_map(axes: Axes, own: pd.DataFrame) -> bool:
    """Prepare a panel; one without data says so."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if not len(own):
        note(axes, "nothing to\nanalyse")
    return bool(len(own))


def _grid(rows: int, columns: int, height: float, *, empty: bool) -> tuple[Figure, np.ndarray]:
    figure = new_figure(height)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    if empty:  # there is no layer to name
        grid[0, 0].set_xticks([])
        grid[0, 0].set_yticks([])
    return figure, grid


def _ticks(count: int) -> list[int]:
    """Layers from 1 that are labelled: all of few, else every eighth."""
    return list(range(1, count + 1)) if count <= 8 else [1, *range(8, count + 1, 8)]


def _short(share: float, digits: int = 2) -> str:
    return f"{share:.{digits}f}".replace("0.", ".", 1).replace("-", "−")
