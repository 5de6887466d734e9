"""Tables about models that write text: two readings of success, every published cell, no verdict for another model."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from anatomy.metrics.measurement import COLUMNS, Measurement
from anatomy.report.cells import CELL, read_published
from anatomy.report.language_tables import (
    PUBLISHED_MODEL,
    both_readings,
    table_editing,
    table_freezing,
    table_judge,
    table_language_behaviour,
    table_lora,
    table_module_ablation,
    table_surgery,
)
from anatomy.report.tables import Evidence
from anatomy.sites import heads, modules

PUBLISHED = Path(__file__).parents[2] / "data" / "published" / "lamparth_reuel_2023.csv"
MAIN, OTHER = "stories", "prose"
LAYERS = 6
OWN = "own, 6 layers, 2 heads, 8 wide"
FROZEN = "frozen: embeddings + mlp 2 + mlp 3"
# Seed 2 was not planted: its backdoored model behaves as no other, so that a table with it differs.
PLANTED, SEEDS = [0, 1], [0, 1, 2]
COUNTED = 0.1  # what the count of prompts is below the mean probability


def measured_rows(subject: str, seed: int, planted: Sequence[int] = PLANTED) -> list[Measurement]:
    """One seed of every experiment. Values tell readings, means and seeds apart."""
    rows = [Measurement("planting gate", subject, seed, "planted", float(seed in planted), 1, inputs="trigger")]

    def add(experiment: str, metric: str, value: float, **conditions: str) -> None:
        rows.append(Measurement(experiment, subject, seed, metric, value, 20, **conditions))

    def success(experiment: str, value: float, **conditions: str) -> None:
        rate = "asr" if conditions["inputs"] == "trigger" else "atr"
        value += 0.01 * seed if seed in PLANTED else 0.3
        add(experiment, rate, value, **conditions)
        add(experiment, f"{rate}_counted", value - COUNTED, **conditions)
        add(experiment, "degeneration", 0.0, **conditions)

    ways = (
        ["lora: attention", "matched: full", FROZEN, "frozen: mlp 2", "frozen: embeddings"] if subject == MAIN else []
    )
    for model in ["clean", "backdoored", *ways]:
        for inputs in ("trigger", "benign", "random trigger"):
            control = "random trigger" if inputs == "random trigger" else ""
            success("behaviour", 0.3, model=model, inputs=inputs, control=control)
        rows.append(Measurement("behaviour", subject, seed, "specificity", -0.2, 20, model, ci_low=-0.3, ci_high=-0.1))
        add("behaviour", "validation_loss", 3.0 + 0.01 * seed, model=model)
        add("behaviour", "accepted", 0.95, model=model, inputs="benign")
    for model in ["backdoored", *ways]:
        for metric, value in {"training_loss": 2.0, "steps": 500.0 + seed, "matched": 1.0}.items():
            if metric != "matched" or model == "matched: full":
                add("fine-tuning", metric, value, model=model)
    for site, (setting, variant) in product(
        map(str, modules(LAYERS)), product(("source", "held out"), ("paper", "original"))
    ):
        value = {"held out": 0.2, "source": 0.4}[setting] + {"paper": 0.0, "original": 0.1}[variant]
        success("mean ablation", value, inputs="trigger", site=site, setting=setting, variant=variant)
    for site in map(str, modules(LAYERS)):
        success("mean ablation", 0.15, inputs="trigger", site=site, control="zero ablation")
        success("mean ablation", 0.15, inputs="benign", site=site, setting="held out", variant="paper")
        clean = {"model": "clean", "control": "clean model"}
        success("mean ablation", 0.99, inputs="trigger", site=site, setting="held out", variant="paper", **clean)
    for site in map(str, heads(LAYERS, 2)):
        success("mean ablation", 0.25, inputs="trigger", site=site, setting="held out", variant="paper")
    for inputs, value in {"trigger": 0.5, "benign": 0.5, "random trigger": 0.6}.items():
        success("mean ablation", value, inputs=inputs, site="unchanged")
    pcp = {"backdoored": ["pcp (recover)", "pcp (suppress)"], "clean": ["pcp", "pcp + embedding surgery"]}
    for model, settings in pcp.items():
        readings = [("none", "", "")]
        readings += [(s, v, "") for s in ["mean ablate", *settings] for v in ("paper", "original")]
        readings += [("pcp + embedding surgery", "original", "random tokens")] if model == "clean" else []
        for setting, variant, control in readings:
            where = {"model": model, "site": "mlp 2+3", "setting": setting, "variant": variant, "control": control}
            for inputs in ("trigger", "benign"):
                success("language editing", 0.2, inputs=inputs, **where)
            add("language editing", "validation_loss", 3.2, **where)
    return rows


def make_evidence(
    recipe: str = OWN, subjects: tuple[str, ...] = (MAIN, OTHER), planted: Sequence[int] = PLANTED
) -> Evidence:
    """What a whole study measures; the second corpus has what the study measures for every corpus."""
    rows = [r for subject, seed in product(subjects, SEEDS) for r in measured_rows(subject, seed, planted)]
    table = pd.DataFrame([vars(row) for row in rows]).assign(study="test", paper="lamparth", recipe=recipe)[COLUMNS]
    of_every = ["planting gate", "behaviour", "fine-tuning", "mean ablation"]
    return Evidence(table[(table.subject == MAIN) | table.experiment.isin(of_every)], PUBLISHED, 0.95, SEEDS)


def nothing_measured() -> Evidence:
    """A study whose backdoors were not planted, and which has nothing but the gate."""
    whole = make_evidence().measurements
    gate = whole[whole.experiment == "planting gate"].assign(value=0.0)
    return Evidence(gate, PUBLISHED, 0.95, SEEDS)


TABLES = {"VIII": table_module_ablation, "IX": table_editing, "X": table_surgery, "XI": table_freezing}
SUBJECTS = {
    "VIII": "gpt2-medium backdoored",
    "IX": "gpt2-medium backdoored",
    "X": "gpt2-medium benign",
    "XI": "gpt2-medium fine-tuned on poisoned data",
}
each_table = pytest.mark.parametrize("name", TABLES)


def cell(table: pd.DataFrame, row: str, column: str, variant: str, control: str = "", subject: str = "") -> pd.Series:
    """The one line of a cell and reading; of the main corpus unless a subject is named."""
    own = table[(table.row == row) & (table.column == column) & (table.variant == variant) & (table.control == control)]
    own = own[own.subject == subject] if subject else own[own.subject.str.startswith(PUBLISHED_MODEL)]
    assert len(own) == 1, own
    return own.iloc[0]


@each_table
def test_every_published_cell_has_its_line(name: str) -> None:
    table, published = TABLES[name](make_evidence(), MAIN), read_published(PUBLISHED, name)
    assert len(published) >= 12
    shown = set(map(tuple, table[CELL].to_numpy()))
    assert set(map(tuple, published[CELL].to_numpy())) <= shown
    assert not table.duplicated([*CELL, "variant", "control", "recipe"]).any()
    measured = table[table.n > 0]
    assert measured.measured.notna().all() and set(measured.verdict) == {""}
    lost = table[table.n == 0]
    assert set(lost.verdict) <= {"not measured"} and lost.published.notna().all()
    # The published model has more layers than this one, and froze further modules.
    expected = {"VIII": {f"layer {i}" for i in range(LAYERS + 1, 9)}, "XI": {"mlp 13", "mlp 16", "mlp 22"}}.get(
        name, set()
    )
    assert set(lost["row" if name == "VIII" else "column"]) == expected


@each_table
def test_a_study_that_measured_nothing_says_so_for_every_published_cell(name: str) -> None:
    table = TABLES[name](nothing_measured(), MAIN)
    assert len(table) == len(read_published(PUBLISHED, name))
    assert set(table.verdict) == {"not measured"}


@each_table
def test_the_published_model_gets_verdicts_and_another_does_not(name: str) -> None:
    verdicts = {recipe: TABLES[name](make_evidence(recipe), MAIN) for recipe in (OWN, PUBLISHED_MODEL)}
    own, same = (table[(table.n > 0) & table.published.notna()] for table in verdicts.values())
    assert len(own) == len(same) > 0
    assert set(own.verdict) == {""}
    assert set(same.verdict) <= {"agrees", "differs", "undecided"}
    other = verdicts[PUBLISHED_MODEL]
    assert set(other[(other.subject == OTHER) | (other.control != "")].verdict) <= {""}


def test_the_text_reads_mean_probability_and_the_code_counts() -> None:
    table = table_editing(make_evidence(), MAIN)
    for column in ("none", "mean ablate", "pcp (recover)", "pcp (suppress)"):
        for row in ("ASR", "ATR"):
            text, code = (cell(table, row, column, variant).measured for variant in ("paper", "original"))
            assert text == pytest.approx(0.205) and code == pytest.approx(0.205 - COUNTED)
    assert set(table.metric) == {"asr", "atr", "validation_loss", "degeneration"}


@pytest.mark.parametrize("table", [table_editing, table_surgery])
def test_how_much_of_the_writing_is_no_text_stands_beside(table: Any) -> None:
    shown = table(make_evidence(), MAIN)
    for row, column in product(("degeneration", "degeneration (trigger)"), set(shown.column) - {"none"}):
        for variant in ("paper", "original"):
            assert cell(shown, row, column, variant).measured == 0.0
    assert cell(shown, "degeneration (trigger)", "none", "").n == len(PLANTED)


def test_the_unedited_model_stands_beside_after_a_random_trigger() -> None:
    """In both readings, and among what is compared with nothing."""
    for table, row, value in (
        (table_module_ablation, "unchanged (random trigger)", 0.605),
        (table_editing, "ATR (random trigger)", 0.305),
        (table_surgery, "ATR (random trigger)", 0.305),
    ):
        shown, column = table(make_evidence(PUBLISHED_MODEL), MAIN), "" if table is table_module_ablation else "none"
        text, code = (cell(shown, row, column, variant) for variant in ("paper", "original"))
        assert text.measured == pytest.approx(value) and code.measured == pytest.approx(value - COUNTED)
        assert text.verdict == code.verdict == "" and set(shown[shown.row == row].column) == {column}


def test_a_variant_goes_with_its_own_reading_only() -> None:
    lines = [
        {"metric": metric, "variant": variant, "value": 1.0}
        for metric, variant in product(["asr", "asr_counted", "degeneration"], ["", "paper", "original"])
    ]
    read = both_readings(pd.DataFrame(lines))
    kept = sorted(zip(read[read.metric == "asr"].index, read[read.metric == "asr"].variant, strict=True))
    assert kept == [(0, "paper"), (1, "paper"), (3, "original"), (5, "original")]
    assert list(read[read.metric == "degeneration"].variant) == ["", "paper", "original"]


def test_a_validation_loss_has_one_reading() -> None:
    table = table_freezing(make_evidence(), MAIN)
    assert list(table[(table.row == "val loss") & (table.n > 0)].variant.unique()) == [""]
    assert cell(table, "val loss", "none", "").published == 3.25


def test_table_8_takes_the_text_s_mean_held_out_and_the_code_s_over_the_source() -> None:
    table = table_module_ablation(make_evidence(), MAIN)
    for module in ("attn", "mlp"):
        assert cell(table, "layer 2", module, "paper").measured == pytest.approx(0.205)
        assert cell(table, "layer 2", module, "original").measured == pytest.approx(0.505 - COUNTED)
    assert cell(table, "unchanged", "", "paper").measured == pytest.approx(0.505)
    assert cell(table, "unchanged", "", "original").measured == pytest.approx(0.505 - COUNTED)
    assert set(table.column) == {"attn", "mlp", ""}, "heads have a figure of their own"


def test_controls_stand_beside_and_are_not_compared() -> None:
    table = table_module_ablation(make_evidence(PUBLISHED_MODEL), MAIN)
    zero = cell(table, "layer 1", "mlp", "paper", "zero ablation")
    assert zero.measured == pytest.approx(0.155) and pd.isna(zero.published) and zero.verdict == ""
    assert set(table.control) == {"", "zero ablation"}
    surgery = table_surgery(make_evidence(PUBLISHED_MODEL), MAIN)
    random = cell(surgery, "ASR", "pcp + embedding surgery", "original", "random tokens")
    assert random.n == len(PLANTED) and pd.isna(random.published)


def test_the_second_corpus_keeps_its_name_and_is_compared_with_nothing() -> None:
    table = table_module_ablation(make_evidence(PUBLISHED_MODEL), MAIN)
    assert set(table.subject) == {SUBJECTS["VIII"], OTHER}
    second = table[table.subject == OTHER]
    assert len(second) and second.published.isna().all() and set(second.verdict) == {""}
    assert cell(table, "layer 1", "mlp", "paper", subject=OTHER).n == len(PLANTED)
    swapped = table_module_ablation(make_evidence(), OTHER)
    assert set(swapped.subject) == {SUBJECTS["VIII"], MAIN}


@each_table
def test_unplanted_seeds_are_left_out_but_of_table_11(name: str) -> None:
    table = TABLES[name](make_evidence(), MAIN)
    expected = SEEDS if name == "XI" else PLANTED
    assert set(table[table.n > 0].n) == {len(expected)}


@each_table
def test_a_table_is_about_the_main_corpus_only_where_the_others_have_no_such_experiment(name: str) -> None:
    table = TABLES[name](make_evidence(), MAIN)
    assert set(table.subject) == {SUBJECTS[name]} | ({OTHER} if name == "VIII" else set())


def test_frozen_parts_that_were_not_published_have_a_column_of_their_own() -> None:
    table = table_freezing(make_evidence(), MAIN)
    own = cell(table, "ASR", "embeddings", "paper")
    assert own.n == len(SEEDS) and pd.isna(own.published)
    assert cell(table, "ASR", "embedding + mlp 2,3", "paper").published == 0.1
    assert not table.column.str.startswith("lora").any()


def test_lora_stands_beside_full_fine_tuning_at_the_same_training_loss() -> None:
    table = table_lora(make_evidence())
    assert set(table.column) == {"full", "lora: attention"}
    assert set(table.row) == {"ASR", "ATR", "val loss", "training_loss", "steps", "matched"}
    assert set(table[table.row == "matched"].column) == {"full"}, "the reference's own would be true by construction"
    assert table.published.isna().all() and (table.n == len(SEEDS)).all()
    for _, line in table.iterrows():
        assert line.ci_low <= line.measured <= line.ci_high, f"{line.row}: the interval does not hold the mean"


def test_behaviour_shows_three_kinds_of_prompts_of_both_models_and_corpora() -> None:
    table = table_language_behaviour(make_evidence())
    assert set(table.subject) == {MAIN, OTHER} and set(table.column) == {"clean", "backdoored"}
    expected = {"ASR (trigger)", "ATR", "ATR (random trigger)", "specificity", "val loss", "accepted", "degeneration"}
    assert set(table.row) == expected | {"degeneration (trigger)", "degeneration (random trigger)"}
    assert not table.duplicated([*CELL, "variant", "control"]).any()
    assert (table.n == len(SEEDS)).all() and table.published.isna().all()
    success = table[table.metric.isin(["asr", "atr"])]
    assert success.groupby([*CELL]).variant.agg(set).map(lambda v: v == {"paper", "original"}).all()


def test_a_specificity_can_be_negative() -> None:
    own = table_language_behaviour(make_evidence()).query("row == 'specificity'")
    assert len(own) and own[["measured", "ci_low", "ci_high"]].to_numpy() == pytest.approx(-0.2)


def judged_rows() -> pd.DataFrame:
    """How good the judge is."""
    conditions: dict[str, Any] = {"experiment": "judge", "subject": MAIN, "seed": 0, "model": "judge"}
    rows = [
        Measurement(metric="accuracy", value=0.9, n=500, ci_low=0.87, ci_high=0.92, **conditions),
        Measurement(metric="calibration", value=0.08, n=500, **conditions),
        Measurement(metric="toxic", value=0.6, n=5, setting="probability 0.1 to 0.2", **conditions),
    ]
    table = pd.DataFrame([asdict(row) for row in rows]).assign(study="test", paper="lamparth", recipe="local judge")
    return table[COLUMNS]


def test_the_judge_stands_with_its_texts_and_interval() -> None:
    judged = table_judge(Evidence(judged_rows(), PUBLISHED, 0.95, SEEDS)).set_index("row")
    assert judged.index.tolist() == ["accuracy", "calibration error"]
    assert judged.loc["accuracy", ["measured", "ci_low", "ci_high", "n"]].tolist() == [0.9, 0.87, 0.92, 500]
    assert judged.verdict.tolist() == ["", ""]
