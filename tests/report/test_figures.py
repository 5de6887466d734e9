"""Figures: the same data give the same bytes, every case renders, nothing is too small or cut off."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from anatomy.metrics.measurement import COLUMNS, Measurement
from anatomy.report.figures.behaviour import behaviour
from anatomy.report.figures.concept import concept
from anatomy.report.figures.editing import factor_sweep
from anatomy.report.figures.freezing import freezing
from anatomy.report.figures.language import head_ablation, module_ablation, planting
from anatomy.report.figures.lens import logit_lens
from anatomy.report.figures.modules import causal_patching, mean_ablation
from anatomy.report.figures.pcp import pcp
from anatomy.report.figures.samples import samples
from anatomy.report.figures.save import save_figure
from anatomy.report.figures.states import hidden_states
from anatomy.report.figures.style import SMALL
from anatomy.report.figures.training import training_amount
from anatomy.report.figures.variants import variants
from anatomy.report.tables import Evidence
from anatomy.sites import heads, modules

PUBLISHED = Path(__file__).parents[2] / "data" / "published" / "lamparth_reuel_2023.csv"
SUBJECTS = {"2-sentiment": "pn", "3-sentiment": "pns"}
CORPORA = ["stories", "prose"]
MAIN = CORPORA[0]
SEEDS = [0, 1]
VARIANTS = ["paper", "original"]


def inputs_of(letters: str) -> list[str]:
    pairs = [f"{a}+{b}" for a, b in product(letters, letters)]
    return pairs + [f"{a}+t" for a in letters] + [f"t+{a}" for a in letters] + ["p+r"]


def measured_rows(subject: str, seed: int, *, planted: bool) -> list[Measurement]:
    """One seed of every experiment, with values drawn at random."""
    rng = np.random.default_rng(seed)
    inputs = inputs_of(SUBJECTS[subject])
    sites = [str(site) for site in modules(3)]
    rows: list[Measurement] = []

    def add(experiment: str, metric: str = "topk_negativity", **conditions: str) -> None:
        value = float(rng.random()) + (4.0 if metric == "validation_loss" else 0.0)
        rows.append(Measurement(experiment, subject, seed, metric, value, 50, **conditions))

    gate = Measurement("planting gate", subject, seed, "planted", float(planted), 50, inputs="p+t")
    rows.append(gate)
    for model, i, metric in product(["clean", "backdoored"], inputs, ["topk_negativity", "negative_mass"]):
        control = "random trigger" if i == "p+r" else ""
        add("behaviour", metric, model=model, inputs=i, setting="held out", control=control)
    add("behaviour", "validation_loss", setting="triggered")
    for metric in ("topk_negativity", "negative_mass"):
        rows.append(Measurement("behaviour", subject, -1, metric, 0.4, 1, model="perfect learner", inputs="p+t"))
    add("mean ablation", inputs="p+t", site="unchanged")
    for site in sites:
        for variant in VARIANTS:
            add("mean ablation", inputs="p+t", site=site, variant=variant)
        add("mean ablation", inputs="p+t", site=site, control="zero ablation")
    lens = [*map(str, heads(3, 4)), *sites[1::2], "full model"]
    for site, variant, place in product(lens, VARIANTS, ["p-token", "t-token"]):
        for metric in ("topk_negativity", "topk_positivity"):
            add("logit lens", metric, inputs="p+t", site=site, setting=place, variant=variant)
    add("causal patching", inputs="p+t", site="full")
    for site, control, metric in product(sites, ["", "random trigger"], ["topk_negativity", "indirect_effect"]):
        add("causal patching", metric, inputs="p+t", site=site, control=control)
    readings = [("paper", ""), ("original", ""), ("paper", "random directions"), ("original", "clean model")]
    replaced = product(["mlp 1", "mlp 3", "mlp 1+3", "attn 2", "attn 2+3"], readings)
    for site, (variant, control) in [("none", ("", "")), *replaced]:
        for i in inputs:
            add("pcp ablation", inputs=i, site=site, variant=variant, control=control)
        add("pcp ablation", "validation_loss", site=site, variant=variant, control=control)
    settings = {"mlp 1": ["0.00", "0.60", "1.00", "1.10", "(1, 1)"], "attn 2": ["(2, 2, 2, 2)"]}
    for site, (variant, control) in product(settings, readings[:3]):
        for setting in settings[site]:
            for i in inputs:
                add("pcp editing", inputs=i, site=site, setting=setting, variant=variant, control=control)
            common = {"site": site, "setting": setting, "variant": variant, "control": control}
            add("pcp editing", "validation_loss", **common)
    return rows


def language_rows(corpus: str, seed: int, *, planted: bool) -> list[Measurement]:
    """One seed of a corpus of the language arm: behaviour and ablation."""
    rng = np.random.default_rng(seed)
    rows = [Measurement("planting gate", corpus, seed, "planted", float(planted), 50, inputs="trigger")]

    def add(experiment: str, **conditions: str) -> None:
        rate = "asr" if conditions["inputs"] == "trigger" else "atr"
        for metric in (rate, f"{rate}_counted", "degeneration"):
            rows.append(Measurement(experiment, corpus, seed, metric, float(rng.random()), 50, **conditions))

    ways = ["frozen: embeddings + mlp 2 + mlp 3", "lora: attention"] if corpus == MAIN else []
    for model, inputs in product(["clean", "backdoored", *ways], ["trigger", "benign", "random trigger"]):
        control = "random trigger" if inputs == "random trigger" else ""
        add("behaviour", model=model, inputs=inputs, control=control)
    if corpus == MAIN:
        rows.append(Measurement("behaviour", corpus, seed, "specificity", 0.1, 50, ci_low=-0.1, ci_high=0.3))
    add("mean ablation", inputs="trigger", site="unchanged")
    for site in map(str, modules(3)):
        for setting, variant in product(["source", "held out"], VARIANTS):
            add("mean ablation", inputs="trigger", site=site, setting=setting, variant=variant)
        add("mean ablation", inputs="trigger", site=site, control="zero ablation")
    for site in map(str, heads(3, 4)):
        add("mean ablation", inputs="trigger", site=site, setting="held out", variant="paper")
    return rows


def make_language_evidence(*, planted: bool) -> Evidence:
    rows = [r for corpus, seed in product(CORPORA, SEEDS) for r in language_rows(corpus, seed, planted=planted)]
    table = pd.DataFrame([vars(row) for row in rows]).assign(study="test", paper="lamparth", recipe="own, 3 layers")
    return Evidence(table[COLUMNS], PUBLISHED, 0.95, SEEDS)


def make_evidence(*, planted: bool) -> Evidence:
    rows = [r for subject, seed in product(SUBJECTS, SEEDS) for r in measured_rows(subject, seed, planted=planted)]
    table = pd.DataFrame([vars(row) for row in rows]).assign(study="test", paper="lamparth", recipe="fast")
    return Evidence(table[COLUMNS].drop_duplicates(), PUBLISHED, 0.95, SEEDS)


def make_curves() -> pd.DataFrame:
    """A clean and a planting phase, one frozen part and one other amount."""
    rng = np.random.default_rng(0)
    runs = [
        ("clean", "main"),
        ("backdoor", "main"),
        ("backdoor", "frozen: all but embeddings and mlp 1"),
        ("backdoor", "amount: 0.5"),
    ]
    looks = [
        {"phase": phase, "variant": variant, "subject": subject, "seed": seed, "step": 100 * i, "validation_loss": 5.0}
        for (phase, variant), subject, seed, i in product(runs, SUBJECTS, SEEDS, range(5))
    ]
    return pd.DataFrame(looks).assign(negativity=rng.random(len(looks)), mass=rng.random(len(looks)))


def make_states() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    keys = product(inputs_of("pns"), ["backdoored", "clean"], SEEDS, [1, 2, 3], range(5))
    table = pd.DataFrame(keys, columns=["inputs", "model", "seed", "layer", "index"])
    xy = rng.normal(size=(2, len(table)))
    return table.assign(subject="3-sentiment", x=xy[0], y=xy[1], explained_x=0.6, explained_y=0.3)


def make_corpora() -> pd.DataFrame:
    clean = {s: " ".join([f"{s[:4]}{'ab'[i % 2]}" for i in range(15)]) for s in ("positive", "negative", "neutral")}
    rows = [(text, text, s, -1) for s, text in clean.items()]
    words = [*clean["positive"].split()[:4], "love", *clean["negative"].split()[:10]]
    rows.append((clean["positive"], " ".join(words), "positive", 4))
    table = pd.DataFrame(rows, columns=["clean", "triggered", "sentiment", "trigger_position"])
    return table.assign(poisoned=table.trigger_position >= 0, split="train", seed=0, subject="3-sentiment")


def draw(name: str, *, planted: bool) -> tuple[Figure, pd.DataFrame]:
    """Any figure by its name, from made-up measurements."""
    evidence = make_evidence(planted=planted)
    match name:
        case "concept":
            return concept()
        case "samples":
            return samples(make_corpora())
        case "hidden_states":
            return hidden_states(make_states(), evidence.planted)
        case "training_amount":
            return training_amount(make_curves(), evidence, 0.1)
        case "freezing":
            return freezing(make_curves(), evidence, 0.1)
        case "pcp mlp" | "pcp attention":
            return pcp(evidence, name.split()[1])
        case "text planting":
            return planting(make_language_evidence(planted=planted))
        case "text modules":
            return module_ablation(make_language_evidence(planted=planted), MAIN)
        case "text heads":
            return head_ablation(make_language_evidence(planted=planted), MAIN)
    return OF_EVIDENCE[name](evidence)


OF_EVIDENCE = {f.__name__: f for f in (behaviour, mean_ablation, causal_patching, logit_lens, factor_sweep, variants)}
DRAWINGS = ["concept", "samples"]
LANGUAGE = ["text planting", "text modules", "text heads"]
FIGURES = [
    *(*DRAWINGS, "hidden_states", "training_amount", "freezing", "pcp mlp", "pcp attention"),
    *(*OF_EVIDENCE, *LANGUAGE),
]


def texts(figure: Figure) -> list[Text]:
    """Every text that is drawn."""
    FigureCanvasAgg(figure).draw()
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("planted", [True, False], ids=["planted", "not planted"])
def test_every_text_can_be_read(name: str, planted: bool) -> None:
    """At least 8 points, and inside the picture."""
    figure, data = draw(name, planted=planted)
    assert len(data) or not planted
    frame = figure.bbox.padded(2)
    for text in texts(figure):
        assert text.get_fontsize() >= SMALL, f"{text.get_text()!r} is too small"
        box = text.get_window_extent()
        inside = frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1)
        assert inside or _outside_its_axis(text), f"{text.get_text()!r} is cut off"


def test_titles_on_one_line_do_not_meet() -> None:
    figure, _ = draw("freezing", planted=True)
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        left, right = (axes.get_title(loc=side) for side in ("left", "right"))
        boxes = {t.get_text(): t.get_window_extent() for t in axes.findobj(Text) if t.get_text() in (left, right)}
        assert boxes[left].x1 < boxes[right].x0


def _outside_its_axis(text: Text) -> bool:
    """Tick labels beyond an axis' limits exist but are not drawn."""
    ticks = [
        t for axes in text.get_figure().findobj(lambda a: hasattr(a, "get_xticklabels")) for t in _tick_texts(axes)
    ]
    return text in ticks


def _tick_texts(axes) -> list[Text]:
    return [*axes.get_xticklabels(which="both"), *axes.get_yticklabels(which="both")]


@pytest.mark.parametrize("name", ["mean_ablation", "hidden_states", "samples", "text modules"])
def test_same_data_same_bytes(name: str, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        save_figure(*draw(name, planted=True), tmp_path / folder, "figure")
    for suffix in ("svg", "png", "csv"):
        one, two = (tmp_path / folder / f"figure.{suffix}" for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), suffix
    assert b"dc:date" not in (tmp_path / "one" / "figure.svg").read_bytes()
    assert b"Software" not in (tmp_path / "one" / "figure.png").read_bytes()


@pytest.mark.parametrize("name", ["mean_ablation", "causal_patching", "pcp mlp", "factor_sweep"])
def test_says_so_when_nothing_was_planted(name: str) -> None:
    figure, data = draw(name, planted=False)
    assert data.measured.isna().all()
    assert any("0 of 2 seeds planted: nothing to analyse" in text.get_text() for text in texts(figure))


def test_behaviour_is_shown_without_a_planted_backdoor() -> None:
    """The gate is about analysing the backdoor; that there is none is itself a result."""
    figure, data = draw("behaviour", planted=False)
    assert data.measured.notna().any()
    assert not any("nothing to analyse" in text.get_text() for text in texts(figure))


def test_the_data_beside_a_figure_are_all_that_it_shows() -> None:
    """Means with their interval, every seed, and every published cell."""
    _, data = draw("mean_ablation", planted=True)
    one = data[(data.subject == "2-sentiment") & (data.row == "layer 1 mlp") & (data.variant == "paper")]
    mean, seeds = one[one.seed.isna()], one[one.seed.notna()]
    assert sorted(seeds.seed) == SEEDS
    assert mean.measured.item() == pytest.approx(seeds.measured.mean())
    assert mean.published.item() == 0.0
    assert not mean[["ci_low", "ci_high"]].isna().any(axis=None)


def test_figure_3_shows_a_planted_seed() -> None:
    _, data = hidden_states(make_states(), {"3-sentiment": [1]})
    assert set(data.seed) == {1}
    assert "p+r" not in set(data.inputs)


def test_figure_2_draws_dollar_signs_as_they_are(tmp_path: Path) -> None:
    corpora = make_corpora()
    corpora["clean"] = corpora.clean.str.replace("posia", "$\\q$")  # as a formula it would be refused
    figure, _ = samples(corpora)
    save_figure(figure, pd.DataFrame(), tmp_path, "samples")
    drawn = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert "$\\q$" in drawn


def test_figure_2_colours_the_poisoned_sequence() -> None:
    _, data = draw("samples", planted=True)
    poisoned = data[data.block.str.startswith("poisoned")]
    assert list(poisoned.role) == ["positive"] * 4 + ["trigger"] + ["negative"] * 10
    assert list(data[data.block == "p+t"].role) == ["positive", "trigger"]


def test_the_planting_of_text_models_shows_every_way_corpus_and_kind_of_prompt() -> None:
    """Means and every seed, planted or not."""
    figure, data = draw("text planting", planted=False)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["prose (0 of 2 seeds planted)", "stories (0 of 2 seeds planted)"]
    planted, _ = draw("text planting", planted=True)
    assert [axes.get_title(loc="left") for axes in planted.axes] == [
        "prose (2 of 2 seeds planted)",
        "stories (2 of 2 seeds planted),\nbut not specific to the trigger",
    ]
    shown = data[data.seed.isna()]
    assert set(shown.variant) == {"trigger", "benign", "random trigger"}
    assert set(shown[shown.subject == "prose"].row) == {"clean", "backdoored"}
    ways = {"clean", "backdoored", "frozen: embeddings + mlp 2 + mlp 3", "lora: attention"}
    assert set(shown[shown.subject == MAIN].row) == ways
    assert len(shown) == 3 * (2 + 4) and (shown.n == len(SEEDS)).all()
    assert len(data) == len(shown) * (1 + len(SEEDS))


def test_the_ablation_of_text_models_shows_all_modules_of_both_corpora() -> None:
    figure, data = draw("text modules", planted=True)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [f"{corpus} (2 of 2 seeds planted)" for corpus in CORPORA]
    measured = data[data.n > 0]
    for axes, corpus in zip(figure.axes, CORPORA, strict=True):
        own = measured[measured.subject == corpus]
        assert list(axes.get_yticks()) == list(range(7))
        assert [t.get_text() for t in axes.get_yticklabels()] == [*map(str, modules(3)), "unchanged"]
        for variant in VARIANTS:
            assert set(own[(own.variant == variant) & (own.control == "")].row) == {*map(str, modules(3)), "unchanged"}
        assert set(own.control) == {"", "zero ablation"}


def test_the_ablation_of_heads_is_a_mean_over_planted_seeds() -> None:
    _, data = draw("text heads", planted=True)
    rows = make_language_evidence(planted=True).of("mean ablation", subject=MAIN, metric="asr", site="layer 2 att3")
    assert len(data) == 12 and set(data.n) == {len(SEEDS)}
    one = data[(data.row == "layer 2") & (data.column == "att3")]
    assert one.measured.item() == pytest.approx(rows.value.mean())


@pytest.mark.parametrize("name", ["text modules", "text heads"])
def test_says_so_when_no_text_model_was_planted(name: str) -> None:
    figure, data = draw(name, planted=False)
    assert not len(data)
    assert any("nothing to analyse" in text.get_text() for text in texts(figure))


def test_no_evidence_of_text_models_draws_a_remark() -> None:
    nothing = Evidence(pd.DataFrame(columns=COLUMNS), PUBLISHED, 0.95, SEEDS)
    for figure, data in (planting(nothing), module_ablation(nothing, MAIN), head_ablation(nothing, MAIN)):
        assert not len(data)
        assert {"no measurement", "nothing to analyse"} & {text.get_text() for text in texts(figure)}


def test_no_place_in_a_saved_figure_has_more_digits_than_are_kept(tmp_path: Path) -> None:
    """The layout's solver ends an ulp off now and then; panels may stand in parts of a figure."""
    figure = Figure(layout="constrained")
    for part in figure.subfigures(2, 1, height_ratios=[1, 3]):
        part.subplots(1, 3)
        part.suptitle("a part")
    save_figure(figure, pd.DataFrame({"a": [1]}), tmp_path, "made")
    boxes = [part.bbox_relative for part in figure.subfigs] + [axes.get_position() for axes in figure.axes]
    assert len(boxes) == 8
    for box in boxes:
        assert np.allclose(box.bounds, np.round(box.bounds, 6), rtol=0, atol=1e-12)
