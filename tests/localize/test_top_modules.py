"""The rule that picks the modules which carry the backdoor."""

from typing import Any

import pandas as pd
import pytest

from anatomy.localize.top_modules import INCOHERENT, top_mlps
from anatomy.sites import Site


def lines(success: dict[str, float], *, degeneration: dict[str, float] | None = None, **other: Any) -> pd.DataFrame:
    """Measurements of the ablation of each named site."""
    conditions = {
        **{"model": "backdoored", "control": "", "variant": "paper"},
        **{"setting": "held out", "inputs": "trigger", "seed": 0},
    }
    rows = [
        {"site": site, "metric": metric, "value": value}
        for site, asr in success.items()
        for metric, value in (("asr", asr), ("degeneration", (degeneration or {}).get(site, 0.1)))
    ]
    return pd.DataFrame(rows).assign(**conditions | other)


LAYERS = {"layer 1 mlp": 0.6, "layer 2 mlp": 0.3, "layer 3 mlp": 0.7, "layer 4 mlp": 0.1, "layer 12 mlp": 0.5}


def test_the_lowest_success_rates_from_the_bottom_up() -> None:
    assert top_mlps(lines(LAYERS)) == [Site(1, "mlp"), Site(3, "mlp")]
    assert top_mlps(lines(LAYERS), 1) == [Site(3, "mlp")]
    assert top_mlps(lines(LAYERS), 3) == [Site(1, "mlp"), Site(3, "mlp"), Site(11, "mlp")]


def test_the_order_of_the_lines_changes_nothing() -> None:
    table = lines(LAYERS)
    assert top_mlps(table.sample(frac=1, random_state=1)) == top_mlps(table)


def test_a_module_without_which_the_model_degenerates_comes_last() -> None:
    broken = {"layer 4 mlp": INCOHERENT + 0.01}
    assert top_mlps(lines(LAYERS, degeneration=broken)) == [Site(1, "mlp"), Site(11, "mlp")]
    assert top_mlps(lines(LAYERS, degeneration=broken), 5) == [Site(i, "mlp") for i in (0, 1, 2, 3, 11)]
    just_so = {"layer 4 mlp": INCOHERENT}
    assert top_mlps(lines(LAYERS, degeneration=just_so)) == [Site(1, "mlp"), Site(3, "mlp")]


def test_where_all_degenerate_the_lowest_success_rates_are_left() -> None:
    assert top_mlps(lines(LAYERS, degeneration=dict.fromkeys(LAYERS, 0.9))) == [Site(1, "mlp"), Site(3, "mlp")]


def test_it_is_the_mean_over_all_seeds() -> None:
    """Lowest for one seed, but not over both: layer 4 (0.1 and 0.9), against layer 12 (0.5 and 0.2)."""
    second = lines({**LAYERS, "layer 4 mlp": 0.9, "layer 12 mlp": 0.2}, seed=1)
    assert top_mlps(pd.concat([lines(LAYERS), second])) == [Site(1, "mlp"), Site(11, "mlp")]


@pytest.mark.parametrize(
    "other",
    [
        {"model": "clean"},
        {"control": "random site"},
        {"variant": "original"},
        {"setting": "tuning"},
        {"inputs": "benign"},
        {"inputs": "random trigger"},
    ],
    ids=str,
)
def test_other_measurements_are_not_looked_at(other: dict[str, str]) -> None:
    upside_down = lines({site: 1 - value for site, value in LAYERS.items()}, **other)
    assert top_mlps(pd.concat([upside_down, lines(LAYERS)])) == [Site(1, "mlp"), Site(3, "mlp")]
    assert top_mlps(upside_down.assign(**{k: v for k, v in lines(LAYERS).iloc[0].items() if k in other})) == [
        Site(0, "mlp"),
        Site(2, "mlp"),
    ]  # they would have counted


def test_only_mlps_are_picked() -> None:
    others = {"layer 1 attn": 0.0, "layer 2 head 3": 0.0, "": 0.0}
    assert top_mlps(lines({**LAYERS, **others})) == [Site(1, "mlp"), Site(3, "mlp")]
