"""A stage sees the keys its rule asked for and no others."""

import json
from pathlib import Path

import pytest

from anatomy.spec.read import load_study
from anatomy.spec.study import Study
from anatomy.spec.subtree import subtree, view


@pytest.fixture(scope="module")
def study(root: Path) -> Study:
    return load_study("embedded", root)


def test_exactly_the_keys_asked_for_are_cut_out(study: Study) -> None:
    cut = json.loads(subtree(study, "seeds", "toy.recipe", "toy.recipes.fast", "toy.evaluation.top_k"))
    whole = study.model_dump(mode="json")
    assert cut == {
        "seeds": whole["seeds"],
        "toy": {
            "recipe": "fast",
            "recipes": {"fast": whole["toy"]["recipes"]["fast"]},
            "evaluation": {"top_k": 10},
        },
    }


def test_the_order_of_asking_does_not_matter(study: Study) -> None:
    assert subtree(study, "toy.trigger", "seeds") == subtree(study, "seeds", "toy.trigger")


def test_a_section_and_a_key_inside_it_are_the_section(study: Study) -> None:
    for paths in (("toy.pcp", "toy.pcp.trials"), ("toy.pcp.trials", "toy.pcp")):
        assert subtree(study, *paths) == subtree(study, "toy.pcp")


def test_a_path_that_no_study_has_is_a_key_error(study: Study) -> None:
    with pytest.raises(KeyError, match="tigger"):
        subtree(study, "toy.tigger")


def test_the_view_gives_values_as_attributes_and_items(study: Study) -> None:
    spec = view(subtree(study, "seeds", "toy.recipe", "toy.recipes", "toy.amounts"))
    assert spec.seeds == study.seeds
    assert spec.toy.recipes[spec.toy.recipe].rate == study.toy.recipes["fast"].rate
    assert spec.toy.amounts.get("3-sentiment", []) == []


def test_a_key_not_asked_for_is_an_attribute_error_that_names_it(study: Study) -> None:
    spec = view(subtree(study, "seeds", "toy.recipe"))
    with pytest.raises(AttributeError) as caught:
        _ = spec.toy.trigger
    assert str(caught.value) == (
        "this stage's parameters have no 'trigger', only recipe; name it in the rule's stage_params"
    )


def test_what_is_pushed_is_a_parameter_of_no_rule(study: Study, root: Path) -> None:
    """Every key that a rule names stands in the rules as a word; sections of the archive are not among them."""
    rules = "".join(path.read_text() for path in (root / "workflow/rules").glob("*.smk"))
    assert not study.archive.push_hazards and '"archive' not in rules
    sends = study.model_copy(update={"archive": study.archive.model_copy(update={"push_hazards": True})})
    whole = ("study", "seeds", "confidence", "compute", "toy")  # what the widest rule reads
    assert subtree(sends, *whole) == subtree(study, *whole)
