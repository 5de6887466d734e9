"""Conditions in words: the nearest that was measured, and nothing guessed where nothing was."""

import pandas as pd
import pytest

from anatomy.report.wording import in_the_words_of

PROBES = ["mlp", "svm"]
SITES = ["layer 1 att0", "layer 2 att1", "layer 1 mlp", "layer 2 block"]
ROWS = [
    *(("head ablation", "heads", f"{count}/36", "asr", "exact") for count in (0, 1, 2)),
    *(("necessary", "heads", f"{count}/36", "asr", "exact") for count in (0, 4, 8, 36)),
    *(("necessary", "mlps", f"{count}/6", "asr", "exact") for count in range(7)),
    *(("probe transfer", "layer 1", f"{name}, layer {layer}", "accuracy", "") for name in PROBES for layer in "12"),
    *(("attribution", site, "", "acie", "") for site in SITES),
    ("behaviour", "", "", "asr", "original"),
]
MEASURED = pd.DataFrame(ROWS, columns=["experiment", "site", "setting", "metric", "variant"])


@pytest.mark.parametrize(
    ("experiment", "site", "words", "setting"),
    [
        ("head ablation", "heads", "about 3 % of the parts", "1/36"),
        ("head ablation", "heads", "about 0.5 % of the parts", "1/36"),  # some: never none
        ("head ablation", "heads", "about 10 % of the parts", "2/36"),
        ("necessary", "heads", "about 10 % of the parts", "4/36"),
        ("necessary", "mlps", "about 50 % of the parts", "3/6"),
        ("necessary", "heads", "no part", "0/36"),
        ("necessary", "mlps", "all parts", "6/6"),
        ("necessary", "mlps", "3/6", "3/6"),
        ("head ablation", "layers", "about 3 % of the parts", "about 3 % of the parts"),  # not measured
    ],
)
def test_a_share_of_the_parts_is_the_nearest_of_that_experiment(
    experiment: str, site: str, words: str, setting: str
) -> None:
    select = {"experiment": experiment, "site": site, "setting": words}
    assert in_the_words_of(MEASURED, select) == select | {"setting": setting}


def test_every_layer_and_every_head() -> None:
    every = in_the_words_of(MEASURED, {"experiment": "probe transfer", "setting": "svm, every layer"})
    assert every["setting"] == ["svm, layer 1", "svm, layer 2"]
    assert in_the_words_of(MEASURED, {"experiment": "attribution", "site": "every head"})["site"] == [
        "layer 1 att0",
        "layer 2 att1",
    ]


def ablated(layers: int, wrecked: dict[str, list[float]] | None = None, **conditions: str) -> pd.DataFrame:
    """ASR and degeneration of every module over seeds; degeneration is 0 but for those that are named."""
    shared = {
        "experiment": "mean ablation",
        "variant": "paper",
        "setting": "held out",
        "inputs": "trigger",
    } | conditions
    sites = [f"layer {layer} {kind}" for layer in range(1, layers + 1) for kind in ("attn", "mlp", "att0")]
    return pd.DataFrame(
        [
            {**shared, "site": site, "seed": seed, "metric": metric, "value": value}
            for site in [*sites, "unchanged"]
            for seed, wreck in enumerate((wrecked or {}).get(site, [0.0, 0.0]))
            for metric, value in (("asr", 0.3), ("degeneration", wreck))
        ]
    )


MLPS = {"experiment": "mean ablation", "metric": "asr", "variant": "paper", "inputs": "trigger"}


@pytest.mark.parametrize(
    ("layers", "first", "last"), [(1, [1], [1]), (2, [1], [2]), (3, [1], [3]), (6, [1, 2], [5, 6]), (8, [1, 2], [7, 8])]
)
def test_thirds_are_of_the_layers_that_the_model_has(layers: int, first: list[int], last: list[int]) -> None:
    for words, expected in (("first third of the layers", first), ("last third of the layers", last)):
        found = in_the_words_of(ablated(layers), {**MLPS, "site": f"mlp, {words}"})["site"]
        assert found == [f"layer {layer} mlp" for layer in expected]


def test_the_first_third_of_the_published_model_is_what_is_printed() -> None:
    found = in_the_words_of(ablated(24), {**MLPS, "site": "attn, first third of the layers"})["site"]
    assert found == [f"layer {layer} attn" for layer in range(1, 9)]


def test_every_module_is_no_head() -> None:
    found = in_the_words_of(ablated(2), {**MLPS, "site": "module, every layer"})["site"]
    assert found == ["layer 1 attn", "layer 1 mlp", "layer 2 attn", "layer 2 mlp"]


def test_modules_without_which_the_model_writes_no_text_are_left_out() -> None:
    """On average over seeds, under the claim's own conditions."""
    rows = ablated(6, {"layer 1 mlp": [1.0, 0.9], "layer 2 mlp": [0.8, 0.2]})
    words = {**MLPS, "site": "mlp, first third of the layers, model whole"}
    assert in_the_words_of(rows, words)["site"] == ["layer 2 mlp"]
    assert in_the_words_of(rows, words | {"site": "mlp, first third of the layers"})["site"] == [
        "layer 1 mlp",
        "layer 2 mlp",
    ]
    elsewhere = pd.concat([rows, ablated(6, {"layer 2 mlp": [1.0, 1.0]}, variant="original")])
    assert in_the_words_of(elsewhere, words)["site"] == ["layer 2 mlp"]
    assert in_the_words_of(elsewhere, words | {"variant": "original"})["site"] == ["layer 1 mlp"]


def test_words_for_modules_that_nothing_answers_to_stay() -> None:
    words = {**MLPS, "site": "mlp, first third of the layers, model whole"}
    wrecked = ablated(6, {"layer 1 mlp": [1.0, 1.0], "layer 2 mlp": [1.0, 1.0]})
    for rows in (wrecked, ablated(6)[lambda t: t.metric == "asr"], ablated(6)[:0]):
        assert in_the_words_of(rows, words) == words


def test_the_layers_above_the_first_are_those_of_the_model() -> None:
    rows = [("probe", f"layer {layer}", "mlp", "accuracy", "corrected") for layer in (1, 2, 3, 11)]
    own = pd.concat([MEASURED, pd.DataFrame(rows, columns=MEASURED.columns)])
    select = {"experiment": "probe", "site": "every layer but the first"}
    assert in_the_words_of(own, select)["site"] == ["layer 2", "layer 3", "layer 11"]
    assert in_the_words_of(MEASURED, select) == select


def test_the_main_evaluator_is_exact_where_answers_can_be() -> None:
    select = {"experiment": "behaviour", "metric": "asr", "variant": "main evaluator"}
    assert in_the_words_of(MEASURED, select)["variant"] == "original"
    exact = pd.concat([MEASURED, MEASURED[-1:].assign(variant="exact")])
    assert in_the_words_of(exact, select)["variant"] == "exact"


def test_other_conditions_stay() -> None:
    select = {"experiment": "mean ablation", "site": ["layer 1 mlp"], "setting": "held out", "variant": "paper"}
    assert in_the_words_of(MEASURED, select) == select
