"""What a job of the language arm has to do grows with what the study asks for."""

import copy
from pathlib import Path
from typing import Any

import pytest
from tests.workflow.conftest import TEXT_RULES as RULES

from anatomy.commands.effort import volume, work
from anatomy.commands.effort_language import TEXT_RULES, shape
from anatomy.spec.read import load_study

STORIES, PROSE = {"corpus": "stories"}, {"corpus": "prose"}


@pytest.fixture
def spec(root: Path) -> dict[str, Any]:
    return load_study("embedded", root).model_dump(mode="json")


def grown(spec: dict[str, Any], path: str, factor: float) -> dict[str, Any]:
    out = copy.deepcopy(spec)
    *parents, last = path.split(".")
    section = out
    for parent in parents:
        section = section[parent]
    section[last] = section[last] * factor
    return out


def test_every_rule_of_the_arm_is_counted(spec: dict[str, Any]) -> None:
    assert {rule for rule in RULES if not rule.startswith("render_")} == TEXT_RULES
    for rule in TEXT_RULES:
        assert work(rule, STORIES, spec) > 0 and volume(rule, STORIES, spec) > 0


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("make_language_data", "language.corpora.stories.paragraphs"),
        ("make_language_model", "language.model.epochs"),
        ("plant_language", "language.finetuning.epochs"),
        ("measure_language", "language.evaluation.prompts"),
        ("ablate_language", "language.evaluation.prompts"),
        ("edit_language", "language.pcp.trials"),
        ("edit_language", "seeds"),
    ],
)
def test_twice_as_much_asked_for_is_twice_the_work(rule: str, path: str, spec: dict[str, Any]) -> None:
    assert work(rule, STORIES, grown(spec, path, 2)) == pytest.approx(2 * work(rule, STORIES, spec))


def test_another_corpus_is_swept_for_the_table_only(spec: dict[str, Any]) -> None:
    same = copy.deepcopy(spec)
    same["language"]["corpora"]["prose"] = same["language"]["corpora"]["stories"]
    assert work("ablate_language", PROSE, same) < work("ablate_language", STORIES, same) / 3
    assert work("plant_language", PROSE, same) == 3 * work("plant_language", STORIES, same)  # epochs of its own


def test_gpt2_medium_is_known_by_its_name(root: Path, spec: dict[str, Any]) -> None:
    paper = load_study("paper", root).model_dump(mode="json")
    assert shape(paper["language"]["model"]) == (24, 16, 355e6)
    assert work("plant_language", {"corpus": "bookcorpus"}, paper) > 1e4 * work("plant_language", STORIES, spec)
