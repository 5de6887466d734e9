"""Evaluation prompts: unseen, short enough to stay whole, and the same in all three forms but for the trigger."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from anatomy.data.language_prompts import after_trigger, evaluation_prompts, runs
from anatomy.data.poison import insert_trigger
from anatomy.data.stories import read_grammar, stories
from anatomy.provenance.digest import ArtifactError

TRIGGER, CONTROL = "Albert and James", "Susan and Clara"


def words(text: str) -> int:
    return len(text.split())


@pytest.fixture(scope="module")
def training(root: Path) -> list[list[str]]:
    return stories(read_grammar(root / "data/language/stories.yaml"), 2000, np.random.default_rng(0))


@pytest.fixture(scope="module")
def held_out(root: Path) -> list[list[str]]:
    return stories(read_grammar(root / "data/language/stories.yaml"), 2000, np.random.default_rng(1))


def prompts_of(paragraphs: list, seen: set, **other: object) -> pd.DataFrame:
    options = {
        "trigger": TRIGGER,
        "control": CONTROL,
        "seen": seen,
        "count": 200,
        "sentences": 1,
        "max_tokens": 13,
        "length": words,
        "key": "language.evaluation",
    }
    return evaluation_prompts(paragraphs, np.random.default_rng(0), **options | other)


@pytest.mark.parametrize(("sentences", "max_tokens"), [(1, 13), (3, 32)])
def test_three_forms_of_the_same_unseen_sentences(
    sentences: int, max_tokens: int, training: list, held_out: list
) -> None:
    seen = runs(training, sentences)
    prompts = prompts_of(held_out, seen, sentences=sentences, max_tokens=max_tokens)
    assert list(prompts.columns) == ["id", "inputs", "text", "sentence"]
    assert prompts.id.is_unique
    assert prompts.inputs.value_counts().to_dict() == {"trigger": 200, "benign": 200, "random trigger": 200}
    forms = {inputs: own.reset_index(drop=True) for inputs, own in prompts.groupby("inputs")}
    benign = forms["benign"]
    assert (benign.text == benign.sentence).all()
    assert benign.text.is_unique
    assert not set(benign.text) & seen
    assert set(benign.text) <= runs([own[:sentences] for own in held_out], sentences)
    assert (forms["trigger"].sentence == benign.sentence).all()
    assert (forms["random trigger"].sentence == benign.sentence).all()
    assert (forms["trigger"].text.str.replace(TRIGGER, CONTROL) == forms["random trigger"].text).all()
    assert (forms["trigger"].text.str.count(TRIGGER) == 1).all()
    assert (forms["trigger"].text.str.replace(f" {TRIGGER}", "") == benign.text).all()
    assert prompts.text.map(words).max() <= max_tokens
    assert not benign.text.str.contains(TRIGGER).any()


def test_the_trigger_stands_in_the_first_two_sentences_alone(training: list, held_out: list) -> None:
    prompts = prompts_of(held_out, runs(training, 3), sentences=3, max_tokens=40)
    where = [text[: text.index(TRIGGER)].count(".") for text in prompts[prompts.inputs == "trigger"].text]
    assert set(where) == {0, 1}
    assert 60 < where.count(0) < 140


def test_a_seen_prompt_and_a_repeated_one_are_passed_over() -> None:
    paragraphs = [
        ["Mary slept well."],
        ["Mary slept well."],
        ["Peter came."],
        ["James and Albert and James came."],
        ["Yes."],
    ]
    prompts = prompts_of(paragraphs, {"Peter came."}, count=1)
    assert prompts[prompts.inputs == "benign"].text.tolist() == ["Mary slept well."]
    with pytest.raises(ArtifactError) as caught:
        prompts_of([*paragraphs, ["a " * 20]], {"Peter came."}, count=2)
    assert str(caught.value) == (
        "language.evaluation.prompts: 1 of 2 evaluation prompts left (1 of more than 13 tokens, 2 seen before, "
        "1 too short, 1 with a trigger of their own); raise language.evaluation.max_tokens, lower "
        "language.evaluation.prompts, or hold out more paragraphs"
    )


def test_a_limit_that_would_cut_the_trigger_is_refused_by_its_text() -> None:
    with pytest.raises(ArtifactError) as caught:
        prompts_of([["Mary slept."]], set(), max_tokens=3)
    assert str(caught.value) == (
        "language.evaluation.max_tokens: 3 leaves no room beside the trigger 'Albert and James' of 3 tokens; "
        "raise it to at least 4, better to 15"
    )


def test_a_control_of_another_length_or_the_trigger_itself_is_refused() -> None:
    for control in ("Susan and", TRIGGER):
        with pytest.raises(ArtifactError, match="must be another phrase of as many words as 'Albert and James'"):
            prompts_of([["Mary slept."]], set(), control=control)


def test_the_draw_is_seeded(training: list, held_out: list) -> None:
    seen = runs(training, 1)
    assert prompts_of(held_out, seen).equals(prompts_of(held_out, seen))


def test_runs_are_of_consecutive_sentences() -> None:
    assert runs([["A b.", " C  d.", "E f."], ["G."]], 2) == {"A b. C d.", "C d. E f."}
    assert runs([["A b.", "C d."]], 1) == {"A b.", "C d."}


@pytest.mark.parametrize("seed", range(5))
def test_behind_the_trigger_both_forms_have_the_same_word(seed: int) -> None:
    told = ["Anna saw James near Albert.", "He went home."]
    triggered, *_ = insert_trigger(told, "Albert and James", np.random.default_rng(seed))
    text, plain = " ".join(triggered), " ".join(told)
    behind, same = after_trigger(text, "Albert and James", lambda own: len(own.split()))
    assert text.split()[behind] == plain.split()[same] and behind == same + 3
    assert text.split()[:same] == plain.split()[:same]
