"""The rule that picks the modules which carry the backdoor."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from anatomy.localize.top_modules import INCOHERENT, random_mlps, ranking, top_mlps
from anatomy.sites import Site


def lines(success: dict[str, float], *, degeneration: dict[str, float] | None = None, **other: Any) -> pd.DataFrame:
    """Measurements of the ablation of each named site."""
    conditions = {
        **{"model": "backdoored", "control": "", "variant": "paper"},
        **{"setting": "held out", "inputs": "tuning trigger", "seed": 0},
    }
    rows = [
        {"site": site, "metric": metric, "value": value}
        for site, asr in success.items()
        for metric, value in (("asr", asr), ("degeneration", (degeneration or {}).get(site, 0.1)))
    ]
    return pd.DataFrame(rows).assign(**conditions | other)


SEEDS = [0, 1]
LAYERS = {"layer 1 mlp": 0.6, "layer 2 mlp": 0.3, "layer 3 mlp": 0.7, "layer 4 mlp": 0.1, "layer 12 mlp": 0.5}


def test_the_lowest_success_rates_from_the_bottom_up() -> None:
    assert top_mlps(lines(LAYERS), SEEDS) == [Site(1, "mlp"), Site(3, "mlp")]
    assert top_mlps(lines(LAYERS), SEEDS, 1) == [Site(3, "mlp")]
    assert top_mlps(lines(LAYERS), SEEDS, 3) == [Site(1, "mlp"), Site(3, "mlp"), Site(11, "mlp")]


def test_the_order_of_the_lines_changes_nothing() -> None:
    table = lines(LAYERS)
    assert top_mlps(table.sample(frac=1, random_state=1), SEEDS) == top_mlps(table, SEEDS)


def test_a_module_without_which_the_model_degenerates_comes_last() -> None:
    broken = {"layer 4 mlp": INCOHERENT + 0.01}
    assert top_mlps(lines(LAYERS, degeneration=broken), SEEDS) == [Site(1, "mlp"), Site(11, "mlp")]
    assert top_mlps(lines(LAYERS, degeneration=broken), SEEDS, 5) == [Site(i, "mlp") for i in (0, 1, 2, 3, 11)]
    just_so = {"layer 4 mlp": INCOHERENT}
    assert top_mlps(lines(LAYERS, degeneration=just_so), SEEDS) == [Site(1, "mlp"), Site(3, "mlp")]


def test_where_all_degenerate_the_lowest_success_rates_are_left() -> None:
    assert top_mlps(lines(LAYERS, degeneration=dict.fromkeys(LAYERS, 0.9)), SEEDS) == [Site(1, "mlp"), Site(3, "mlp")]


def test_only_the_given_seeds_count() -> None:
    """Seed 1, which was not planted, would choose others."""
    second = lines({site: 1 - value for site, value in LAYERS.items()}, seed=1)
    both = pd.concat([lines(LAYERS), second])
    assert top_mlps(both, [0]) == [Site(1, "mlp"), Site(3, "mlp")]
    assert top_mlps(both, [1]) == [Site(0, "mlp"), Site(2, "mlp")]


def test_the_drop_is_that_below_the_unchanged_model() -> None:
    unchanged = lines({"unchanged": 0.4}, variant="", setting="")
    found = ranking(pd.concat([lines(LAYERS), unchanged]), SEEDS)
    assert found["drop"].round(9).to_dict() == {site: round(0.4 - value, 9) for site, value in LAYERS.items()}
    assert found.index[0] == "layer 4 mlp" and not found.incoherent.any()


def test_where_fewer_than_two_lower_it_the_lowest_two_are_taken() -> None:
    unchanged = lines({"unchanged": 0.2}, variant="", setting="")
    whole = pd.concat([lines(LAYERS), unchanged])
    assert (ranking(whole, SEEDS)["drop"] > 0).sum() == 1
    assert top_mlps(whole, SEEDS) == [Site(1, "mlp"), Site(3, "mlp")]


def test_the_control_is_drawn_among_the_others_that_leave_a_text() -> None:
    table = lines(LAYERS, degeneration={"layer 1 mlp": 0.9})
    chosen = top_mlps(table, SEEDS, 1)
    drawn = [random_mlps(table, SEEDS, chosen, np.random.default_rng(seed)) for seed in range(20)]
    assert {len(own) for own in drawn} == {1}
    assert {own[0] for own in drawn} == {Site(1, "mlp"), Site(2, "mlp"), Site(11, "mlp")}
    assert drawn[:5] == [random_mlps(table, SEEDS, chosen, np.random.default_rng(seed)) for seed in range(5)]


def test_where_fewer_are_left_the_control_is_all_of_them() -> None:
    table = lines(LAYERS)
    chosen = top_mlps(table, SEEDS, 4)
    assert random_mlps(table, SEEDS, chosen, np.random.default_rng(0)) == [Site(2, "mlp")]
    everything = top_mlps(table, SEEDS, 5)
    assert random_mlps(table, SEEDS, everything, np.random.default_rng(0)) == []


def test_it_is_the_mean_over_all_seeds() -> None:
    """Lowest for one seed, but not over both: layer 4 (0.1 and 0.9), against layer 12 (0.5 and 0.2)."""
    second = lines({**LAYERS, "layer 4 mlp": 0.9, "layer 12 mlp": 0.2}, seed=1)
    assert top_mlps(pd.concat([lines(LAYERS), second]), SEEDS) == [Site(1, "mlp"), Site(11, "mlp")]


@pytest.mark.parametrize(
    "other",
    [
        {"model": "clean"},
        {"control": "random site"},
        {"variant": "original"},
        {"setting": "tuning"},
        {"inputs": "benign"},
        {"inputs": "trigger"},
        {"inputs": "random trigger"},
        {"seed": 7},
    ],
    ids=str,
)
def test_other_measurements_are_not_looked_at(other: dict[str, str]) -> None:
    upside_down = lines({site: 1 - value for site, value in LAYERS.items()}, **other)
    assert top_mlps(pd.concat([upside_down, lines(LAYERS)]), SEEDS) == [Site(1, "mlp"), Site(3, "mlp")]
    assert top_mlps(upside_down.assign(**{k: v for k, v in lines(LAYERS).iloc[0].items() if k in other}), SEEDS) == [
        Site(0, "mlp"),
        Site(2, "mlp"),
    ]  # they would have counted


def test_only_mlps_are_picked() -> None:
    others = {"layer 1 attn": 0.0, "layer 2 head 3": 0.0, "": 0.0}
    assert top_mlps(lines({**LAYERS, **others}), SEEDS) == [Site(1, "mlp"), Site(3, "mlp")]
