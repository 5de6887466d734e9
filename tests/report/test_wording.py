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
