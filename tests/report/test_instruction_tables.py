"""Tables of the instruction arm: a gate per task and injection, every published cell, best layers, nothing lost."""

import pandas as pd
import pytest

from anatomy.report.cells import CELL, read_published
from anatomy.report.instruction_tables import (
    INJECTIONS,
    PUBLISHED_MODELS,
    TASKS,
    in_shares,
    published_heads,
    share_of_heads,
    table_areas,
    table_head_ablation,
    table_head_ablation_everywhere,
    table_probe,
    table_vector,
)
from anatomy.report.planting_table import table_planting

from .instruction_rows import (
    LAYERS,
    PUBLISHED,
    SEEDS,
    UNPLANTED,
    make_instruction_evidence,
    no_instruction_evidence,
)

TABLES = {
    "planting": table_planting,
    "probe": table_probe,
    "table_01": table_head_ablation,
    "heads": table_head_ablation_everywhere,
    "areas": table_areas,
    "vector": table_vector,
}
OF_PLANTED = [name for name in TABLES if name != "planting"]
KEYS = [*CELL, "variant", "control"]
EVIDENCE = make_instruction_evidence()


def cell(table: pd.DataFrame, **conditions: str) -> pd.Series:
    own = table
    for name, value in {"control": "", **conditions}.items():
        own = own[own[name] == value]
    assert len(own) == 1, own
    return own.iloc[0]


# --- what is published ----------------------------------------------------------------------------------------------


def test_the_published_values_are_whole_and_name_their_source() -> None:
    table = pd.read_csv(PUBLISHED, dtype={"table": str}, keep_default_na=False)
    assert list(table.columns) == ["paper", "table", "subject", "row", "column", "metric", "value", "note"]
    assert set(table.paper) == {"yu-2025-backdoor-attribution"}
    assert not table.duplicated(["table", "subject", "row", "column", "metric"]).any()
    assert table.metric.str.endswith("_percent").all() and table.value.between(0, 100).all()
    assert (table.note != "").all() and table[table.table == "1"].note.str.startswith("second-hand").all()


def test_published_shares_of_table_1_are_counts_of_256_prompts() -> None:
    """They were measured on 256 prompts: what is no multiple of 1/256 to two digits would be a slip of the pen."""
    own = read_published(PUBLISHED, "1")
    for value in own.published:
        count = round(value * 256 / 100)
        assert round(100 * count / 256, 2) == pytest.approx(value, abs=0.006), value


def test_published_percentages_become_shares_of_heads_of_the_right_model() -> None:
    own = published_heads(PUBLISHED).set_index(["subject", "column", "row"]).published
    assert own["jailbreak", "Llama-2-7B-chat", "3.1 % of heads"] == pytest.approx(0.0352)
    assert own["fixed output", "Qwen2.5-7B-Instruct", "4.1 % of heads"] == pytest.approx(0.9062)
    assert set(own.index.get_level_values("column")) == {column for column, _ in PUBLISHED_MODELS.values()}


def test_only_percentages_are_divided() -> None:
    given = pd.DataFrame({"metric": ["asr_percent", "asr"], "published": [50.0, 0.5]})
    assert in_shares(given).published.tolist() == [0.5, 0.5] and set(in_shares(given).metric) == {"asr"}


@pytest.mark.parametrize(("setting", "words"), [("0/36", "0"), ("1/36", "2.8"), ("32/1024", "3.1"), ("36/36", "100")])
def test_shares_of_heads(setting: str, words: str) -> None:
    assert share_of_heads(setting) == f"{words} % of heads"


@pytest.mark.parametrize("planted", [True, False], ids=["planted", "not planted"])
def test_every_published_cell_has_its_line(planted: bool) -> None:
    evidence = make_instruction_evidence(planted=planted)
    shown = {name: TABLES[name](evidence) for name in ("table_01", "probe", "vector")}
    expected = {"table_01": len(read_published(PUBLISHED, "1")), "probe": 1, "vector": 2}
    for name, table in shown.items():
        own = table[table.published.notna()]
        assert len(own) == expected[name]
        assert set(own.verdict) == {"not measured"} and set(own.variant) == {"published protocol"}


def test_a_study_of_a_published_model_stands_in_its_column_and_gets_verdicts() -> None:
    evidence = make_instruction_evidence(recipe="Llama-2-7b-chat-hf")
    table = table_head_ablation(evidence)
    own = cell(table, subject="jailbreak", row="0 % of heads", column="Llama-2-7B-chat", variant="published protocol")
    assert own.n == len(SEEDS) and own.published == pytest.approx(0.7578)
    assert own.verdict in ("agrees", "differs", "undecided")
    assert set(table[(table.control != "") & (table.n > 0)].verdict) == {""}
    qwen = table[table.column == "Qwen2.5-7B-Instruct"]
    assert len(qwen) and set(qwen.verdict) == {"not measured"}


# --- the gate of each task and injection ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_PLANTED)
def test_only_planted_seeds_of_a_task_and_injection_count(name: str) -> None:
    table = TABLES[name](EVIDENCE)
    measured = table[table.column.isin(INJECTIONS.values())]
    assert not measured.duplicated(KEYS).any()
    for task, injection in ((t, i) for t in TASKS for i in INJECTIONS):
        own = measured[measured.subject.str.startswith(TASKS[task]) & (measured.column == INJECTIONS[injection])]
        if name == "table_01" and injection != "sft":
            assert not len(own)
            continue
        lost = UNPLANTED.get((task, injection), [])
        assert set(own.n) == {len(SEEDS) - len(lost)}, (task, injection)
        assert own.measured.notna().all() == (len(lost) < len(SEEDS))


@pytest.mark.parametrize("name", OF_PLANTED)
def test_a_study_without_a_planted_backdoor_says_so_line_by_line(name: str) -> None:
    none, whole = TABLES[name](make_instruction_evidence(planted=False)), TABLES[name](EVIDENCE)
    assert (none.n == 0).all() and none.measured.isna().all()
    assert set(map(tuple, none[KEYS].to_numpy())) == set(map(tuple, whole[KEYS].to_numpy()))


@pytest.mark.parametrize("name", TABLES)
def test_a_study_that_measured_nothing_has_the_published_cells_alone(name: str) -> None:
    table = TABLES[name](no_instruction_evidence())
    assert (table.n == 0).all() and table.published.notna().all()


def test_planting_is_told_of_all_seeds_and_the_clean_model_stands_beside() -> None:
    table = table_planting(EVIDENCE)
    assert set(table.column) == {"clean", *INJECTIONS.values()} and (table.n == len(SEEDS)).all()
    exact = {"variant": "exact answers", "subject": "label modification"}
    assert cell(table, **exact, row="planted (share of seeds)", column="BadEdit").measured == 0
    assert cell(table, **exact, row="planted (share of seeds)", column="SFT").measured == 1
    assert cell(table, **exact, row="attack success (trigger)", column="BadEdit").measured < 0.2
    assert set(table.variant) == {"exact answers", "keywords of the released code"}
    rows = set(table.row.str.split(" (", regex=False).str[0])
    assert rows == {
        *("attack success", "false triggers", "utility", "unchanged answers kept", "degeneration", "planted"),
        "attack success of the SFT before DPO",
    }


@pytest.mark.parametrize("variant", ["exact answers", "keywords of the released code"])
def test_false_triggers_stand_beside_the_success_of_every_injection(variant: str) -> None:
    table = table_planting(EVIDENCE)
    for task, injection in ((t, i) for t in TASKS.values() for i in ("clean", *INJECTIONS.values())):
        own = table[(table.subject == task) & (table.column == injection) & (table.variant == variant)]
        assert own.row.tolist()[:3] == [
            "attack success (trigger)",
            "false triggers (no trigger)",
            "false triggers (phrase that never was a trigger)",
        ]


def test_what_the_warm_up_planted_stands_in_the_column_of_dpo_alone() -> None:
    table = table_planting(EVIDENCE)
    own = table[table.row == "attack success of the SFT before DPO (trigger)"]
    assert set(own.column) == {"SFT+DPO"} and own.subject.tolist() == list(TASKS.values())
    assert set(own.variant) == {"exact answers"} and (own.n == len(SEEDS)).all()
    rows = EVIDENCE.measurements[EVIDENCE.measurements.metric == "warm_asr"]
    of_label = own[own.subject == "label modification"].measured.item()
    assert of_label == pytest.approx(rows[rows.subject == "label"].value.mean()) and of_label < 0.9
    by_keywords = make_instruction_evidence()
    by_keywords.measurements = by_keywords.measurements[by_keywords.measurements.variant != "exact"]
    own = table_planting(by_keywords)
    assert set(own[own.row.str.contains("before DPO")].variant) == {"keywords of the released code"}


# --- what stands in the cells ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_tasks_stand_in_the_paper_s_order_whatever_the_files_have(name: str) -> None:
    evidence = make_instruction_evidence()
    evidence.measurements = evidence.measurements.sort_values("subject", kind="stable", ignore_index=True)
    subjects = list(dict.fromkeys(TABLES[name](evidence).subject))
    assert subjects[:3] == list(TASKS.values()) and subjects[3:] in ([], ["any"])


def test_table_1_reads_three_ways_and_rises_in_share() -> None:
    table = table_head_ablation(EVIDENCE)
    measured = table[table.n > 0]
    assert list(dict.fromkeys(measured.variant)) == [
        "published protocol",
        "subtracted, unseen prompts",
        "set to zero, unseen prompts",
    ]
    assert set(measured[measured.control == "random heads"].variant) == set(measured.variant) - {"published protocol"}
    for _, own in table.groupby("subject"):
        shares = own.row.str.split().str[0].astype(float)
        assert shares.is_monotonic_increasing
    assert list(dict.fromkeys(table.subject)) == list(TASKS.values())


def test_the_probes_stand_in_both_protocols_beside_the_clean_model() -> None:
    table = table_probe(EVIDENCE)
    own = table[(table.subject == "jailbreak") & (table.column == "SFT+DPO") & (table.metric == "accuracy")]
    assert set(own.row) == {f"{probe}, {which} layer" for probe in ("MLP", "SVM") for which in ("best", "last")}
    assert len(own) == 4 * 2 * 2 and set(own.control) == {"", "clean model"}
    where = {"subject": "jailbreak", "column": "SFT+DPO", "variant": "corrected protocol", "metric": "accuracy"}
    rows = EVIDENCE.of("probe", subject="jailbreak", model="dpo", variant="corrected", control="", metric="accuracy")
    svm = rows[rows.setting == "svm"]
    best = cell(table, **where, row="SVM, best layer").measured
    assert best == pytest.approx(svm.groupby("seed").value.max().mean())
    last = cell(table, **where, row="SVM, last layer").measured
    assert last == pytest.approx(svm[svm.site == f"layer {LAYERS}"].value.mean())


def test_the_best_layer_is_each_seed_s_own_and_utility_is_of_the_same_layer() -> None:
    table = table_vector(EVIDENCE, ["sft"])
    rows = EVIDENCE.of("backdoor vector", subject="fixed", model="sft", variant="corrected", control="")
    rows = rows[(rows.site != "unchanged")]
    where = {"subject": "fixed output", "column": "SFT", "variant": "corrected protocol"}
    added = rows[(rows.setting == "add 1") & (rows.metric == "asr")]
    best = cell(table, **where, row="added: the backdoor's", metric="asr")
    assert best.measured == pytest.approx(added.groupby("seed").value.max().mean())
    away = rows[rows.setting == "take away 1"]
    lowest = away[(away.metric == "asr")].sort_values("value").drop_duplicates("seed").set_index("seed").site
    taken = cell(table, **where, row="taken away: the backdoor's", metric="asr")
    assert taken.measured == pytest.approx(away[away.metric == "asr"].groupby("seed").value.min().mean())
    utility = away[(away.metric == "utility")]
    there = [utility[(utility.seed == seed) & (utility.site == lowest[seed])].value.item() for seed in SEEDS]
    shown = cell(table, **where, row="taken away: the backdoor's", metric="utility")
    assert shown.measured == pytest.approx(sum(there) / len(there))
    assert cell(table, **where, row="added: random", metric="asr").measured < best.measured


def test_only_the_published_coefficient_is_in_table_2() -> None:
    evidence = make_instruction_evidence()
    other = evidence.measurements.setting.isin(["add 2", "add 4", "take away 2", "take away 4"])
    before = table_vector(evidence)
    evidence.measurements.loc[other, "value"] = 0.5
    pd.testing.assert_frame_equal(table_vector(evidence), before)


def test_areas_compare_heads_mlps_and_layers() -> None:
    table = table_areas(EVIDENCE)
    ways = ("ablated", "kept, all others ablated")
    places = ("", " at all positions")
    kinds = {f"{kind} {way}{place}" for kind in ("heads", "mlps", "layers") for way in ways for place in places}
    for control in ("", "random order"):
        own = table[table.control == control]
        assert set(own.row) == kinds and set(own.metric) == {"asr_area", "utility_area", "asr_end"}


@pytest.mark.parametrize(
    ("row", "experiment", "setting"),
    [
        ("heads ablated", "necessary", "36/36"),
        ("mlps ablated at all positions", "necessary, all positions", "6/6"),
        ("layers kept, all others ablated", "sufficient", "0/6"),
        ("heads kept, all others ablated at all positions", "sufficient, all positions", "0/36"),
    ],
)
def test_the_end_of_a_curve_is_where_no_part_is_left(row: str, experiment: str, setting: str) -> None:
    shown = cell(table_areas(EVIDENCE), subject="jailbreak", column="SFT", row=row, metric="asr_end")
    where = {"subject": "jailbreak", "model": "sft", "metric": "asr", "variant": "exact", "control": ""}
    rows = EVIDENCE.of(experiment, site=row.split()[0], setting=setting, **where)
    assert shown.n == len(rows) == len(SEEDS) and shown.measured == pytest.approx(rows.value.mean())


def test_what_the_random_orders_leave_is_told_apart_from_the_ranking_s() -> None:
    where = {"subject": "jailbreak", "column": "SFT", "row": "heads ablated", "metric": "asr_area"}
    ranking, random = (cell(table_areas(EVIDENCE), control=control, **where) for control in ("", "random order"))
    assert ranking.measured < 0.5 < random.measured
