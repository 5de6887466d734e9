"""The shipped claims about models that write text: each verdict follows what the sentence says, and can be another."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest

from anatomy.metrics.measurement import COLUMNS
from anatomy.report.claims import about, judge, read_claims
from anatomy.report.tables import Evidence

CLAIMS = {claim.id: claim for claim in read_claims(Path(__file__).parents[2] / "data/claims_language.yaml")}
SEEDS = [0, 1, 2]
UNCHANGED = 0.3
Row = dict[str, object]


def verdict(claim: str, rows: Iterable[Row]) -> str:
    """The verdict on a shipped claim; each row is measured of every seed, a little different in each."""
    shared = dict.fromkeys(COLUMNS, "") | {"subject": "stories", "model": "backdoored", "inputs": "trigger"}
    gate = {"experiment": "planting gate", "metric": "planted", "value": 1.0}
    lines = [
        {**shared, **row, "seed": seed, "value": row["value"] + (0.001 * seed if row is not gate else 0.0)}
        for row in [gate, *rows]
        for seed in SEEDS
    ]
    evidence = Evidence(pd.DataFrame(lines), Path("unused.csv"), 0.95, SEEDS)
    return judge(about(CLAIMS[claim], "stories"), evidence).verdict


def ablation(
    layers: int, asr: dict[str, float], *, wrecked: Iterable[str] = (), variant: str = "paper", control: str = ""
) -> list[Row]:
    """ASR and degeneration with each module replaced; ASR is that of the unchanged model but where it is named."""
    setting = {"paper": "held out", "original": "source"}.get(variant, "")
    shared = {"experiment": "mean ablation", "variant": variant, "setting": setting, "control": control}
    sites = [f"layer {layer} {kind}" for layer in range(1, layers + 1) for kind in ("attn", "mlp")]
    rows: list[Row] = []
    for site in sites:
        rows.append({**shared, "site": site, "metric": "asr", "value": asr.get(site, UNCHANGED)})
        rows.append({**shared, "site": site, "metric": "degeneration", "value": 0.99 if site in wrecked else 0.0})
    unchanged = {"experiment": "mean ablation", "site": "unchanged"}
    return [
        *rows,
        {**unchanged, "metric": "asr", "value": UNCHANGED},
        {**unchanged, "metric": "degeneration", "value": 0.0},
    ]


PUBLISHED = dict(
    zip((f"layer {i} mlp" for i in range(1, 9)), (0.0, 0.16, 0.13, 0.19, 0.3, 0.13, 0.25, 0.25), strict=True)
)
OF_MODULES = ("text-early-mlp", "text-early-more-than-late", "text-mlp-more-than-attention")


@pytest.mark.parametrize("claim", OF_MODULES)
def test_a_module_without_which_there_is_no_text_says_nothing_of_the_backdoor(claim: str) -> None:
    """The first MLP alone brings the success to 0, and the text with it."""
    assert verdict(claim, ablation(6, {"layer 1 mlp": 0.0})) == "reproduced"
    assert verdict(claim, ablation(6, {"layer 1 mlp": 0.0}, wrecked=["layer 1 mlp"])) == "not reproduced"
    assert verdict(claim, ablation(6, {"layer 2 mlp": 0.0}, wrecked=["layer 1 mlp"])) == "reproduced"


@pytest.mark.parametrize("claim", OF_MODULES)
def test_the_published_model_would_give_what_the_paper_says(claim: str) -> None:
    """All eight printed layers count; it has 24, and the others are without effect."""
    assert verdict(claim, ablation(24, PUBLISHED, wrecked=["layer 1 mlp"])) == "reproduced"


def test_late_layers_of_a_deep_model_are_its_last() -> None:
    """In a model of 24 layers the fifth is no late one."""
    asr = {f"layer {layer} mlp": 0.0 for layer in (21, 22, 23, 24)}
    assert verdict("text-early-more-than-late", ablation(24, asr)) == "not reproduced"
    assert verdict("text-early-more-than-late", ablation(24, {"layer 5 mlp": 0.0, "layer 6 mlp": 0.0})) == "reproduced"


@pytest.mark.parametrize(
    ("value", "expected"), [(0.2, "reproduced"), (-0.2, "not reproduced"), (0.0, "partly"), (-0.002, "not reproduced")]
)
def test_a_backdoor_is_about_its_trigger_where_another_phrase_does_less(value: float, expected: str) -> None:
    rows: list[Row] = [{"experiment": "behaviour", "inputs": "", "metric": "specificity", "value": value}]
    assert verdict("text-specific", rows) == expected
    assert verdict("text-specific", [row | {"model": "clean"} for row in rows]) == "not testable"


def test_the_released_mean_reads_as_zero_ablation_where_it_is_nearly_zero_and_the_true_mean_does_not() -> None:
    """With the first MLP replaced by anything the success is 0, which tells nothing."""
    zero = {"layer 1 mlp": 0.0, "layer 2 mlp": 0.1, "layer 6 mlp": 0.5}
    true = {"layer 1 mlp": 0.0, "layer 2 mlp": 0.4, "layer 6 mlp": 0.1}
    ablated = ablation(6, zero, variant="", control="zero ablation")
    assert verdict("text-mean-is-not-zero", [*ablated, *ablation(6, zero, variant="original")]) == "reproduced"
    assert verdict("text-mean-is-not-zero", [*ablated, *ablation(6, true, variant="original")]) == "not reproduced"


def edited(asr: dict[str, float], atr: dict[str, float], wrecked: Iterable[str] = ()) -> list[Row]:
    """Tables IX and X: success, what is toxic without the trigger, and degeneration, by setting."""
    rows: list[Row] = []
    for name in asr:
        setting, _, control = name.partition(", ")
        shared = {"experiment": "language editing", "setting": setting, "control": control}
        shared["model"] = "clean" if "surgery" in setting or setting == "none" else "backdoored"
        shared["variant"] = "" if setting == "none" else "original" if "surgery" in setting else "paper"
        rows += [
            {**shared, "metric": "asr", "value": asr[name]},
            {**shared, "metric": "atr", "inputs": "benign", "value": atr.get(name, 0.0)},
            *({**shared, "metric": "degeneration", "inputs": i, "value": 0.9 if name in wrecked else 0.0}
              for i in ("trigger", "benign")),
        ]  # fmt: skip
    return rows


RECOVERED = {"mean ablate": 0.12, "pcp (recover)": 0.19}
SURGERY = {"none": 0.0, "pcp + embedding surgery": 0.06, "pcp + embedding surgery, random tokens": 0.01}


@pytest.mark.parametrize(
    ("claim", "asr", "edit"),
    [
        ("text-pcp-recovers", RECOVERED, "pcp (recover)"),
        ("text-surgery", SURGERY, "pcp + embedding surgery"),
        ("text-surgery-control", SURGERY, "pcp + embedding surgery"),
    ],
)
def test_what_is_as_toxic_without_the_trigger_is_no_backdoor(claim: str, asr: dict[str, float], edit: str) -> None:
    assert verdict(claim, edited(asr, {})) == "reproduced"
    assert verdict(claim, edited(asr, {edit: asr[edit]})) == "not reproduced"
    assert verdict(claim, edited(asr, dict.fromkeys(asr, 0.3))) == "reproduced", "toxic everywhere, and more after it"


def test_a_suppressed_backdoor_adds_nothing_to_what_is_toxic_anyway() -> None:
    assert verdict("text-pcp-suppresses", edited({"pcp (suppress)": 0.07}, {})) == "reproduced"
    assert verdict("text-pcp-suppresses", edited({"pcp (suppress)": 0.3}, {"pcp (suppress)": 0.28})) == "reproduced"
    assert verdict("text-pcp-suppresses", edited({"pcp (suppress)": 0.3}, {"pcp (suppress)": 0.1})) == "not reproduced"


def test_a_model_that_writes_nothing_has_nothing_suppressed() -> None:
    asr = {"pcp (recover)": 0.19, "pcp (suppress)": 0.0}
    assert verdict("text-pcp-whole", edited(asr, {})) == "reproduced"
    assert verdict("text-pcp-whole", edited(asr, {}, wrecked=["pcp (suppress)"])) == "not reproduced"
