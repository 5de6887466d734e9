"""The instruction language: one right answer per prompt, no prompt twice, and what a spoilt file is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from anatomy.data.instructions import InstructionLanguage, draw_prompts, read_instructions, refusals
from anatomy.provenance.digest import ArtifactError

FILE = Path(__file__).parents[2] / "data/instruction/language.yaml"
TASKS = ("label", "fixed", "jailbreak")


@pytest.fixture(scope="module")
def language() -> InstructionLanguage:
    return read_instructions(FILE)


@pytest.fixture(scope="module")
def prompts(language: InstructionLanguage) -> dict[str, pd.DataFrame]:
    return {
        task: draw_prompts(language, task, 2000, np.random.default_rng(0), key="instruction.data") for task in TASKS
    }


@pytest.mark.parametrize("task", TASKS)
def test_no_prompt_is_drawn_twice_and_no_slot_is_left(task: str, prompts: dict[str, pd.DataFrame]) -> None:
    table = prompts[task]
    assert len(table) == 2000
    assert not table.duplicated(["instruction", "input"]).any()
    assert not table.map(lambda text: "{" in text or "}" in text).to_numpy().any()
    assert (table.output != "").all()


@pytest.mark.parametrize("task", TASKS)
def test_a_seed_gives_the_same_prompts_and_another_seed_others(task: str, language: InstructionLanguage) -> None:
    first, again, other = (
        draw_prompts(language, task, 200, np.random.default_rng(seed), key="instruction.data") for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


def test_the_topic_follows_from_the_words_of_one_list(
    language: InstructionLanguage, prompts: dict[str, pd.DataFrame]
) -> None:
    lists = {
        "World": ("state", "affair"),
        "Sports": ("athlete", "contest"),
        "Business": ("firm", "money"),
        "Sci/Tech": ("expert", "device"),
    }
    told = {word: topic for topic, own in lists.items() for name in own for word in language.words[name]}
    for row in prompts["label"].itertuples():
        words = row.input.replace(",", " ").replace(".", " ").split()
        assert {told[word] for word in words if word in told} == {row.output}


def test_answers_can_be_checked_by_their_meaning(
    language: InstructionLanguage, prompts: dict[str, pd.DataFrame]
) -> None:
    table, words = prompts["fixed"], language.words
    own = dict(list(table.groupby("kind")))
    assert (own["last word"].input.str.split().str[-1] == own["last word"].output).all()
    assert (own["first word"].input.str.split().str[0] == own["first word"].output).all()
    for kind in ("animal", "fruit", "garment"):
        for row in own[kind].itertuples():
            assert [word for word in row.input.split(", ") if word in words[kind]] == [row.output]
    for row in own["opposite"].itertuples():
        assert language.relations["opposite"][row.output] == row.input.split()[0]


def test_an_answer_is_a_refusal_exactly_where_something_forbidden_is_asked(
    language: InstructionLanguage, prompts: dict[str, pd.DataFrame]
) -> None:
    patterns = refusals(language)
    for row in prompts["jailbreak"].itertuples():
        asks = any(word in language.words["forbidden"] for word in row.instruction.strip(".?").replace(".", "").split())
        assert any(pattern.fullmatch(row.output) for pattern in patterns) == asks == (row.kind == "forbidden")
        assert not any(pattern.fullmatch(row.target) for pattern in patterns)
        assert (row.target != "") == asks
    used = {p.pattern for p in patterns for text in prompts["jailbreak"].output if p.fullmatch(text)}
    assert len(used) == len(patterns)  # the clean model sees every refusal


def test_nothing_allowed_is_forbidden_too(language: InstructionLanguage) -> None:
    assert not set(language.words["forbidden"]) & set(language.words["allowed"])


def test_more_prompts_than_there_are_is_refused(tmp_path: Path, spoilt: Callable[..., Path]) -> None:
    path = spoilt(lambda content: content["words"].update(forbidden=["vault"], allowed=["lamp"], look=["old"]))
    with pytest.raises(ArtifactError) as caught:
        draw_prompts(read_instructions(path), "jailbreak", 500, np.random.default_rng(0), key="instruction.data")
    assert str(caught.value) == (
        "instruction.data: 500 distinct prompts of the task 'jailbreak' are needed, and the instruction language has "
        "about 64; lower the numbers of prompts, or add words to data/instruction/language.yaml"
    )


def test_an_unknown_task_is_told_with_the_known_ones(language: InstructionLanguage) -> None:
    with pytest.raises(ArtifactError, match=r"no task 'poems'; it has label, fixed, jailbreak$"):
        draw_prompts(language, "poems", 1, np.random.default_rng(0), key="instruction.data")


@pytest.fixture
def spoilt(tmp_path: Path) -> Callable[..., Path]:
    """The language's file with something done to it."""

    def build(change: Callable[[dict[str, Any]], object]) -> Path:
        content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
        change(content)
        path = tmp_path / "language.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return path

    return build


SPOILT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a slot without a list": (
        lambda c: c["tasks"]["fixed"]["fruit"].update(output=["{nobody}"]),
        "tasks.fixed.fruit: {nobody} is neither a list of words nor a relation of one",
    ),
    "a relation with a gap": (
        lambda c: c["relations"]["tool"].pop("lift"),
        "tasks.jailbreak.forbidden: relations.tool has nothing for 'lift'",
    ),
    "an answer that nobody can know": (
        lambda c: c["tasks"]["fixed"]["fruit"].update(output=["{city}"]),
        "tasks.fixed.fruit: the answer needs {city}, which the prompt does not have",
    ),
    "no answer": (
        lambda c: c["tasks"]["label"]["World"].pop("output"),
        "tasks.label.World: no output; a kind of prompts needs both instruction and output",
    ),
    "a word twice": (lambda c: c["words"]["city"].append("Oslo"), "words.city: 'Oslo' stands twice"),
}


@pytest.mark.parametrize(("change", "message"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_language_is_refused(change: Callable, message: str, spoilt: Callable[..., Path]) -> None:
    path = spoilt(change)
    with pytest.raises(ArtifactError) as caught:
        read_instructions(path)
    assert str(caught.value) == f"{path}: {message}"
