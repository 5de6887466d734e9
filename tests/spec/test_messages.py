"""A wrong study file is refused with a line that says where, what was wrong, and what was expected."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from anatomy.spec.errors import SpecError
from anatomy.spec.read import parse_study

RECIPE_KEYS = "batch, rate, weight_decay, clip, clean_epochs, backdoor_epochs"
SPECIALS = "happy, love, good, luck, cheer"
MESSAGES = {
    "a misspelt key names the nearest one": (
        ("toy.evaluation.promts", 50),
        "s.yaml: toy.evaluation.promts: unknown key; "
        "allowed here: prompts, top_k, gate, emergence, probes_per_epoch (did you mean 'prompts'?)",
    ),
    "an unknown key near to none": (
        ("compute.zzz", 1),
        "s.yaml: compute.zzz: unknown key; allowed here: device, threads, compute_class",
    ),
    "an unknown key of the study itself": (
        ("sedes", [0]),
        "s.yaml: sedes: unknown key; allowed here: study, seeds, confidence, compute, archive, toy, language, "
        "instruction (did you mean 'seeds'?)",
    ),
    "an unknown key below a name that the user chose": (
        ("toy.recipes.fast.rat", 1.0),
        f"s.yaml: toy.recipes.fast.rat: unknown key; allowed here: {RECIPE_KEYS} (did you mean 'rate'?)",
    ),
    "an unknown sentiment": (
        ("toy.lexicon.specials.angry", ["grr"]),
        "s.yaml: toy.lexicon.specials.angry: should be 'positive', 'negative' or 'neutral', got 'angry'",
    ),
    "an unknown subject": (
        ("toy.language.subjects.4-sentiment", {"positive": 1}),
        "s.yaml: toy.language.subjects.4-sentiment: should be '2-sentiment' or '3-sentiment', got '4-sentiment'",
    ),
    "a text instead of a number": (
        ("toy.evaluation.top_k", "10"),
        "s.yaml: toy.evaluation.top_k: should be a valid integer, got '10'",
    ),
    "a number instead of a text": (
        ("toy.trigger", 3),
        "s.yaml: toy.trigger: should be a valid string, got 3",
    ),
    "a number out of range": (
        ("toy.model.dropout", 1.0),
        "s.yaml: toy.model.dropout: should be less than 1, got 1.0",
    ),
    "a word that is no choice": (
        ("compute.device", "tpu"),
        "s.yaml: compute.device: should be 'auto', 'cpu' or 'cuda', got 'tpu'",
    ),
    "a list entry of the wrong type": (
        ("seeds", [0, "1"]),
        "s.yaml: seeds.1: should be a valid integer, got '1'",
    ),
    "no seeds": (("seeds", []), "s.yaml: seeds: empty; at least 1 entry needed"),
    "a seed twice": (("seeds", [0, 1, 0]), "s.yaml: seeds [0, 1, 0] repeat; every seed counts once"),
    "no specials": (
        ("toy.lexicon.specials.positive", []),
        "s.yaml: toy.lexicon.specials.positive: empty; at least 1 entry needed",
    ),
    "a trigger that is no positive special": (
        ("toy.trigger", "awful"),
        f"s.yaml: toy: trigger 'awful' is not in lexicon.specials.positive ({SPECIALS}); "
        "the backdoor turns a positive word, so add it there or choose another trigger",
    ),
    "a control that is the trigger": (
        ("toy.control", "love"),
        "s.yaml: toy: control 'love' must be in lexicon.specials.positive and differ from the trigger",
    ),
    "a recipe that is not there": (
        ("toy.recipe", "slow"),
        "s.yaml: toy: recipe 'slow' is not among recipes (published, fast)",
    ),
    "a subject without its sentiments": (
        ("toy.language.subjects.3-sentiment", {"positive": 5, "negative": 5}),
        "s.yaml: toy: language.subjects.3-sentiment needs exactly the sentiments negative, neutral, positive",
    ),
    "a subject without a rank": (
        ("toy.pcp.mlp_rank", {"2-sentiment": 1}),
        "s.yaml: toy: pcp.mlp_rank has no entry for 3-sentiment",
    ),
    "a sentiment without specials": (
        ("toy.lexicon.specials", {"positive": SPECIALS.split(", "), "negative": SPECIALS.split(", ")}),
        "s.yaml: toy: lexicon.specials has no entry for neutral",
    ),
    "specials of unequal number": (
        ("toy.lexicon.specials", {"positive": SPECIALS.split(", "), "negative": ["bad"], "neutral": ["chair"]}),
        "s.yaml: toy: lexicon.specials.negative and .positive differ in length; give as many of each",
    ),
    "bounds the wrong way round": (
        ("toy.pcp.mlp_bounds", [1.5, 0.05]),
        "s.yaml: toy: pcp.mlp_bounds [1.5, 0.05]: expected 0 <= lower < upper",
    ),
    "too few components": (
        ("toy.pcp.components", 2),
        "s.yaml: toy: pcp.components 2 is less than a rank that is asked for",
    ),
    "another number of layers": (
        ("toy.model.layers", 2),
        "s.yaml: toy: model.layers 2: the replaced modules of Tables III to XIV need 3 layers",
    ),
    "a width that the heads cannot share": (
        ("toy.model.width", 65),
        "s.yaml: toy.model: width 65 cannot be shared by 4 heads; choose a multiple",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_message(case: str, changed: Callable[[str, Any], dict[str, Any]]) -> None:
    (path, value), expected = MESSAGES[case]
    with pytest.raises(SpecError) as caught:
        parse_study(changed(path, value), source="s.yaml")
    assert str(caught.value) == expected


def test_a_missing_key_is_named(raw: dict[str, Any]) -> None:
    del raw["toy"]["recipes"]["fast"]["rate"]
    with pytest.raises(SpecError) as caught:
        parse_study(raw, source="s.yaml")
    assert str(caught.value) == "s.yaml: toy.recipes.fast.rate: missing; it must be given"


def test_every_mistake_is_told_at_once(raw: dict[str, Any]) -> None:
    raw["seeds"], raw["confidence"], raw["compute"]["threads"] = [], 1.5, 0
    with pytest.raises(SpecError) as caught:
        parse_study(raw, source="s.yaml")
    assert str(caught.value).splitlines() == [
        "s.yaml: seeds: empty; at least 1 entry needed",
        "s.yaml: confidence: should be less than 1, got 1.5",
        "s.yaml: compute.threads: should be greater than or equal to 1, got 0",
    ]


def test_specials_without_positive_ones_are_a_known_error(
    changed: Callable[[str, Any], dict[str, Any]],
) -> None:
    with pytest.raises(SpecError, match="positive"):
        parse_study(changed("toy.lexicon.specials", {"negative": ["bad"], "neutral": ["chair"]}), source="s.yaml")


def test_a_date_is_a_known_error(changed: Callable[[str, Any], dict[str, Any]]) -> None:
    with pytest.raises(SpecError, match="study"):
        parse_study(changed("study", datetime.date(2026, 1, 2)), source="s.yaml")
