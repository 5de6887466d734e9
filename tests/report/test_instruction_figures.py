"""Figures of the instruction arm: readable, with their data, and honest where nothing was planted."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from anatomy.report.figures import instruction, probe, vector
from anatomy.report.figures.heat import effects, effects_everywhere, transfer
from anatomy.report.figures.save import save_figure
from anatomy.report.figures.style import SMALL
from anatomy.report.tables import Evidence

from .instruction_rows import HEADS, LAYERS, SEEDS, make_instruction_evidence, no_instruction_evidence
from .test_figures import _outside_its_axis, texts

Draw = Callable[[Evidence], tuple[Figure, pd.DataFrame]]
FIGURES: dict[str, Draw] = {
    "planting": instruction.planting,
    "figure_02": lambda evidence: transfer(evidence, ["sft"]),
    "transfer": lambda evidence: transfer(evidence, ["dpo", "edit"]),
    "probe": probe.by_layer,
    "figure_03": effects,
    "effects": effects_everywhere,
    "concentration": instruction.concentration,
    "table_01": instruction.head_ablation,
    "necessary": instruction.necessary,
    "sufficient": instruction.sufficient,
    "everywhere": instruction.necessary_everywhere,
    "kept_everywhere": instruction.sufficient_everywhere,
    "figure_04": lambda evidence: vector.by_layer(evidence, ["sft"]),
    "vector": lambda evidence: vector.by_layer(evidence, ["dpo", "edit"]),
    "coefficients": vector.by_coefficient,
}
each_figure = pytest.mark.parametrize("name", FIGURES)
EVIDENCE = make_instruction_evidence()
NOT_PLANTED = make_instruction_evidence(planted=False)


@each_figure
def test_every_text_can_be_read_and_there_are_data(name: str) -> None:
    """At least 8 points, and inside the picture."""
    figure, data = FIGURES[name](EVIDENCE)
    assert data.measured.notna().any()
    FigureCanvasAgg(figure).draw()
    frame = figure.bbox.padded(3)
    for text in texts(figure):
        assert text.get_fontsize() >= SMALL, f"{text.get_text()!r} is too small"
        box = text.get_window_extent()
        inside = frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1)
        assert inside or _outside_its_axis(text), f"{text.get_text()!r} is cut off"


@each_figure
def test_where_nothing_was_planted_it_says_so(name: str) -> None:
    figure, data = FIGURES[name](NOT_PLANTED)
    shown = " ".join(text.get_text().replace("\n", " ") for text in texts(figure))
    if name == "planting":
        assert data.measured.notna().any(), "that there is no backdoor is itself a result"
    else:
        assert (data.measured.isna().all() and "nothing to analyse" in shown and "0 of 3" in shown) or name in (
            "concentration",
        )


@each_figure
def test_no_measurement_breaks_no_figure(name: str) -> None:
    figure, data = FIGURES[name](no_instruction_evidence())
    assert data.measured.isna().all()
    FigureCanvasAgg(figure).draw()


@pytest.mark.parametrize("name", ["figure_02", "figure_03", "figure_04"])
def test_same_data_same_bytes(name: str, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        save_figure(*FIGURES[name](EVIDENCE), tmp_path / folder, "figure")
    for suffix in ("svg", "png", "csv"):
        one, two = (tmp_path / folder / f"figure.{suffix}" for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), suffix


def test_a_map_of_figure_2_is_a_mean_over_planted_seeds() -> None:
    _, data = transfer(EVIDENCE, ["dpo"])
    own = data[(data.subject == "fixed output, SFT+DPO") & (data.row == "MLP, probe of layer 2")]
    (line,) = own[(own.column == "on layer 5") & (own.variant == "corrected protocol")].itertuples()
    rows = EVIDENCE.of("probe transfer", subject="fixed", model="dpo", variant="corrected", control="")
    rows = rows[(rows.site == "layer 2") & (rows.setting == "mlp, layer 5")]
    assert line.n == len(rows) == 2 and line.measured == pytest.approx(rows.value.mean())


def test_a_map_of_figure_2_is_whole_its_diagonal_too() -> None:
    _, data = transfer(EVIDENCE, ["sft"])
    for _, own in data.groupby(["subject", "variant", data.row.str.split().str[0]]):
        assert len(own) == LAYERS**2 and own.measured.notna().all()


def test_figure_3_has_every_head_of_every_planted_seed_and_shows_the_first() -> None:
    figure, data = effects(EVIDENCE)
    own = data[(data.subject == "jailbreak") & (data.variant == "corrected") & (data.control == "")]
    assert len(own) == LAYERS * HEADS * len(SEEDS)
    titles = [text.get_text() for text in texts(figure) if text.get_text().startswith("corrected")]
    assert len(titles) == 3 and all("seed 0, largest " in title for title in titles)


def test_the_order_of_effects_is_each_seed_s_own() -> None:
    _, data = instruction.concentration(EVIDENCE)
    own = data[(data.subject == "jailbreak") & (data.row == "SFT")]
    for seed in SEEDS:
        one = own[own.seed == seed].assign(place=lambda d: d.column.astype(float)).sort_values("place")
        assert len(one) == LAYERS * HEADS and one.measured.is_monotonic_decreasing
    first = own[own.seed.isna() & (own.column == "2.778")].measured.item()
    rows = EVIDENCE.of("attribution", subject="jailbreak", model="sft", variant="corrected", control="")
    rows = rows[rows.site.str.contains(" att")]
    assert first == pytest.approx(rows.groupby("seed").value.max().mean())


def test_published_models_stand_in_the_figure_of_table_1() -> None:
    _, data = instruction.head_ablation(EVIDENCE)
    published = data[data.published.notna()]
    assert set(published.row) == {"Llama-2-7B-chat", "Qwen2.5-7B-Instruct"} and len(published) == 18
    assert published[(published.subject == "jailbreak") & (published.column == "3.1")].published.item() == 0.0352


def test_curves_run_from_no_part_to_all() -> None:
    _, data = instruction.necessary(EVIDENCE)
    for _, own in data[data.seed.isna()].groupby(["subject", "metric", "row"]):
        shares = own.column.astype(float)
        assert shares.min() == 0 and shares.max() == 1


def test_random_orders_are_lines_of_their_own() -> None:
    figure, data = instruction.necessary(EVIDENCE)
    own = data[(data.row == "heads, random order") & data.seed.isna() & (data.metric == "asr")]
    ranking = data[(data.row == "heads") & data.seed.isna() & (data.metric == "asr")]
    both = ranking.merge(own, on=["subject", "column"]).dropna(subset=["measured_x", "measured_y"])
    inside = both[~both.column.isin(["0", "1"])]
    assert len(inside) and (inside.measured_x < inside.measured_y).all(), "the subtracted heads are not among them"
    dotted = [line for axes in figure.axes for line in axes.lines if line.get_linestyle() == ":"]
    assert len(dotted) == 3 * 2 * (9 - 1)  # three kinds, two metrics, every planted cell
