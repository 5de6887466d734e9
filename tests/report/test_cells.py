"""Cells: seeds become an estimate, and a published value gets a verdict that its interval earns."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from anatomy.report.cells import estimate_cells, lay_beside, planted_seeds, specific_seeds, verdict
from anatomy.report.tables import Evidence

CONDITIONS = {"subject": "2-sentiment", "row": "p+t", "column": "none", "variant": "paper", "control": ""}


def rows(values: list[float], metric: str = "topk_negativity", **more: str) -> pd.DataFrame:
    lines = [{**CONDITIONS, "metric": metric, "recipe": "fast", "seed": i, "value": v} for i, v in enumerate(values)]
    return pd.DataFrame(lines).assign(**more)


def published(value: float, metric: str = "topk_negativity") -> pd.DataFrame:
    keys = {k: CONDITIONS[k] for k in ("subject", "row", "column")}
    return pd.DataFrame([{**keys, "metric": metric, "published": value}])


def judged(values: list[float], value: float, metric: str = "topk_negativity") -> str:
    return lay_beside(estimate_cells(rows(values, metric), 0.95), published(value, metric)).verdict.item()


def test_a_value_a_further_seed_could_give_agrees() -> None:
    assert judged([0.30, 0.34, 0.38, 0.33], 0.35) == "agrees"


def test_a_value_outside_differs() -> None:
    assert judged([0.30, 0.31, 0.32, 0.31], 0.40) == "differs"


def test_rounding_is_allowed_for_and_no_more() -> None:
    assert judged([1.0, 1.0, 1.0], 0.995) == "agrees"
    assert judged([1.0, 1.0, 1.0], 0.99) == "differs"


def test_an_interval_that_holds_nearly_everything_decides_nothing() -> None:
    assert judged([0.0, 0.5, 0.5], 0.35) == "undecided"
    assert judged([5.0, 6.0, 5.5], 5.5, "validation_loss") == "undecided"


def test_one_seed_decides_nothing() -> None:
    assert judged([0.35], 0.35) == "undecided"


def test_a_published_cell_without_measurement_is_kept_and_said_so() -> None:
    table = lay_beside(estimate_cells(rows([0.1, 0.2]).iloc[:0], 0.95), published(0.35))
    assert table.verdict.tolist() == ["not measured"]


def test_controls_are_not_compared() -> None:
    table = lay_beside(estimate_cells(rows([0.3, 0.4], control="zero ablation"), 0.95), published(0.35))
    assert table.verdict.item() == "" and np.isnan(table.published.item())


@pytest.mark.parametrize("values", [[0.0, 0.1, 0.0], [1.0, 0.9, 1.0]])
def test_intervals_of_shares_stay_between_zero_and_one(values: list[float]) -> None:
    cells = estimate_cells(rows(values), 0.95)
    assert 0 <= cells.ci_low.item() <= cells.measured.item() <= cells.ci_high.item() <= 1


def test_the_gate_keeps_planted_seeds_only() -> None:
    gate = pd.DataFrame({"experiment": "planting gate", "subject": "2-sentiment", "seed": [0, 1, 2]})
    gate = gate.assign(model="backdoored", value=[1, 0, 1])
    assert planted_seeds(gate) == {"2-sentiment": [0, 2]}


def test_where_a_subject_has_several_backdoored_models_the_gate_judges_each() -> None:
    rows = [("planting gate", "label", "sft", 0, 1.0), ("planting gate", "label", "sft", 1, 1.0)]
    rows += [("planting gate", "label", "dpo", 0, 0.0), ("planting gate", "label", "dpo", 1, 1.0)]
    rows += [("probe", "label", model, seed, 0.5) for model in ("sft", "dpo", "clean") for seed in (0, 1)]
    table = pd.DataFrame(rows, columns=["experiment", "subject", "model", "seed", "value"])
    assert planted_seeds(table) == {"label, sft": [0, 1], "label, dpo": [1]}
    evidence = Evidence(table, Path("unused.csv"), 0.95, [0, 1])
    own = evidence.of("probe")
    assert set(zip(own.model, own.seed, strict=True)) == {("sft", 0), ("sft", 1), ("dpo", 1)}


def test_nothing_published_has_no_verdict() -> None:
    assert verdict({"published": np.nan, "measured": 0.3, "n": 3}) == ""


def test_a_planted_backdoor_is_specific_where_the_whole_interval_is_above_0() -> None:
    """Seeds that were not planted have no say, and cells without the measurement are left out."""
    lines = [
        *(
            ("planting gate", "stories", seed, "planted", value, float("nan"))
            for seed, value in enumerate([1, 1, 0, 1])
        ),
        *(("behaviour", "stories", seed, "specificity", 0.3, low) for seed, low in enumerate([0.1, -0.1, 0.2, 0.0])),
        *(("planting gate", "prose", seed, "planted", 1, float("nan")) for seed in range(2)),
        ("behaviour", "prose", 0, "asr", 0.5, 0.4),
        ("planting gate", "other", 0, "planted", 0, float("nan")),
        ("behaviour", "other", 0, "specificity", 0.3, 0.2),
    ]
    table = pd.DataFrame(lines, columns=["experiment", "subject", "seed", "metric", "value", "ci_low"])
    assert specific_seeds(table.assign(model="backdoored")) == {"stories": [0], "other": []}
    assert specific_seeds(table[table.metric != "specificity"].assign(model="backdoored")) == {}
    of_clean = table.assign(model=["clean" if metric == "specificity" else "backdoored" for metric in table.metric])
    assert specific_seeds(of_clean) == {}
