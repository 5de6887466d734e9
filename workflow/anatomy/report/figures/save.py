"""Writing figures: the same data give the same bytes."""

from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.transforms import BboxBase

from anatomy.provenance.digest import atomic_path, write_text_atomic
from anatomy.report.figures.style import STYLE

# Without these, matplotlib writes the date and its own version into the files.
NO_METADATA: dict[str, dict] = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}


def save_figure(figure: Figure, data: pd.DataFrame, folder: str | Path, name: str) -> str:
    """Write <name>.svg, <name>.png (150 dpi) and <name>.csv (the plotted data); return the path of the PNG."""
    folder = Path(folder)
    write_text_atomic(folder / f"{name}.csv", data.to_csv(index=False, float_format="%.6g"))
    with rc_context(STYLE):
        _settle(figure)
        for suffix, metadata in NO_METADATA.items():
            with atomic_path(folder / f"{name}.{suffix}") as temporary:
                figure.savefig(temporary, format=suffix, dpi=150, metadata=metadata)
    return str(folder / f"{name}.png")


def _settle(figure: Figure) -> None:
    """Fix the layout: its solver ends an ulp off now and then, and an SVG's identifiers hash all digits."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for part in figure.subfigs:
        left, bottom, width, height = _rounded(part.bbox_relative)
        part.bbox_relative.p0, part.bbox_relative.p1 = (left, bottom), (left + width, bottom + height)
    for axes in figure.axes:
        axes.set_position(_rounded(axes.get_position(original=True)))


def _rounded(box: BboxBase) -> tuple[float, float, float, float]:
    """Left, bottom, width and height, as shares of what it stands in."""
    left, bottom, width, height = (round(float(edge), 6) for edge in box.bounds)
    return left, bottom, width, height
