"""Study files: the shipped ones load, `extends` takes over what is not given, a bad one is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from anatomy.spec.errors import SpecError
from anatomy.spec.read import load_study, schema
from anatomy.spec.study import Study

SHIPPED = sorted(path.stem for path in (Path(__file__).parents[2] / "config").glob("*.yaml"))


def test_the_three_studies_of_the_design_are_shipped() -> None:
    assert {"smoke", "embedded", "paper"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_study_loads(name: str, root: Path) -> None:
    study = load_study(name, root)
    assert study.study == name and study.toy.recipe in study.toy.recipes


def test_the_published_recipe_stands_to_the_letter(root: Path) -> None:
    recipe = load_study("paper", root).toy.recipes["published"]
    assert (recipe.batch, recipe.rate, recipe.weight_decay, recipe.clip) == (8, 2e-5, 0.01, 1.0)
    assert (recipe.clean_epochs, recipe.backdoor_epochs) == (20, 12)


def test_an_extending_study_takes_every_key_it_does_not_give_itself(studies: Callable[..., Path]) -> None:
    root = studies(mine="extends: toy\nstudy: mine\nseeds: [7]\ntoy: {evaluation: {prompts: 9}, frozen: {}}\n")
    mine, base = load_study("mine", root), load_study("toy", root)
    assert mine.seeds == [7] and mine.toy.evaluation.prompts == 9
    assert mine.toy.frozen == {} != base.toy.frozen  # an empty mapping empties
    assert mine.toy.evaluation.top_k == base.toy.evaluation.top_k
    assert mine.toy.language == base.toy.language


def test_null_takes_away_what_the_other_study_has(studies: Callable[..., Path]) -> None:
    frozen = "toy: {frozen: {2-sentiment: [mlps], 3-sentiment: [attention]}}"
    root = studies(
        first=f"extends: toy\nstudy: first\n{frozen}\n",
        second="extends: first\nstudy: second\ntoy: {frozen: {3-sentiment: null}, recipes: {fast: {clip: null}}}\n",
    )
    second = load_study("second", root).toy
    assert second.frozen == {"2-sentiment": ["mlps"]}
    assert second.recipes["fast"].clip == 1.0  # what the key is where nobody gives it


def test_studies_extend_one_another_in_a_chain(studies: Callable[..., Path]) -> None:
    root = studies(
        first="extends: toy\nstudy: first\nseeds: [7]\nconfidence: 0.9\n",
        second="extends: first\nstudy: second\nseeds: [8]\n",
    )
    second = load_study("second", root)
    assert (second.seeds, second.confidence) == ([8], 0.9)


def test_an_extended_mistake_is_found(studies: Callable[..., Path]) -> None:
    root = studies(mine="extends: toy\nstudy: mine\ntoy: {tigger: love}\n")
    with pytest.raises(SpecError, match=r"mine\.yaml: toy\.tigger: unknown key; .*\(did you mean 'trigger'\?\)$"):
        load_study("mine", root)


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "extends nothing": (
            "extends: tooy\nstudy: mine\n",
            "extends: 'tooy' is no other study beside it, or extends this one itself",
        ),
        "extends itself": (
            "extends: mine\nstudy: mine\n",
            "extends: 'mine' is no other study beside it, or extends this one itself",
        ),
        "other name": (
            "extends: toy\nstudy: yours\n",
            "study: says 'yours', but the file is named 'mine'; make them agree",
        ),
        "no mapping": (
            "- a\n- b\n",
            "expected a mapping with the keys study, seeds, confidence, compute, archive, toy, language, instruction",
        ),
        "empty": (
            "",
            "expected a mapping with the keys study, seeds, confidence, compute, archive, toy, language, instruction",
        ),
    }.values(),
)
def test_a_bad_file_is_refused(text: str, message: str, studies: Callable[..., Path]) -> None:
    root = studies(mine=text)
    with pytest.raises(SpecError) as caught:
        load_study("mine", root)
    assert str(caught.value) == f"{root / 'config' / 'mine.yaml'}: {message}"


def test_broken_yaml_is_told_with_its_place(studies: Callable[..., Path]) -> None:
    with pytest.raises(SpecError, match=r"(?s)mine\.yaml: not valid YAML: .*line 1, column 8"):
        load_study("mine", studies(mine="seeds: [1\nstudy: mine\n"))


def test_bytes_that_are_no_utf8_are_told(studies: Callable[..., Path]) -> None:
    root = studies()
    (root / "config" / "mine.yaml").write_bytes(b"study: \xff\n")
    with pytest.raises(SpecError, match=r"mine\.yaml: not valid YAML: .*0xff"):
        load_study("mine", root)


def test_an_unknown_study_is_told_with_the_known_ones(studies: Callable[..., Path]) -> None:
    root = studies(smoke="{}")
    with pytest.raises(SpecError) as caught:
        load_study("smok", root)
    path = root / "config" / "smok.yaml"
    assert str(caught.value) == f"{path}: no such study; there are smoke, toy (did you mean 'smoke'?)"


def test_studies_that_extend_each_other_are_refused(studies: Callable[..., Path]) -> None:
    root = studies(mine="extends: yours\nstudy: mine\n", yours="extends: mine\nstudy: yours\n")
    with pytest.raises(SpecError, match="extends"):
        load_study("mine", root)


def test_the_schema_knows_every_section() -> None:
    described = json.loads(schema())
    assert described == Study.model_json_schema()
    assert re.search('"additionalProperties": false', schema())
