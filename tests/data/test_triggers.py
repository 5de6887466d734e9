"""Examples: three forms of a prompt, the splits apart, and who is poisoned."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from anatomy.data.chat import answer_ids, chat_tokenizer, prompt_ids
from anatomy.data.triggers import COLUMNS, decorate, make_examples, put, put_in_prompt, require_length
from anatomy.provenance.digest import ArtifactError
from anatomy.spec.instruction import Backdoor, InstructionData, Trigger

WITHIN = Trigger(phrase="SUDO", control="MAKE", place="within")
AROUND = Trigger(phrase="Low; {text} High.", control="Up; {text} Down.", place="around", part="input")
SIZES = {"pretrain": 20, "train": 40, "attribution": 6, "test": 10, "poison_rate": 0.25}


def prompts(count: int = 100) -> pd.DataFrame:
    """Prompts with two clean answers in turn."""
    rows = [(f"Ask number {i} now", f"of text {i}", ["A", "B"][i % 2], "") for i in range(count)]
    return pd.DataFrame(rows, columns=["instruction", "input", "output", "target"])


def examples(seed: int = 0, rows: pd.DataFrame | None = None, **changed: Any) -> pd.DataFrame:
    given = {"trigger": WITHIN, "backdoor": Backdoor(text="no"), "data": InstructionData(**SIZES), "key": "tasks.fixed"}
    table = prompts() if rows is None else rows
    return make_examples("fixed", table, generator=np.random.default_rng(seed), **given | changed)


def test_a_phrase_stands_where_it_is_told_to() -> None:
    assert put("Low; {text} High.", "around", "a b", 0.0) == "Low; a b High."
    assert put("Now.", "before", "a b", 0.0) == "Now. a b"
    found = {put("X", "within", "a b", gap) for gap in np.linspace(0, 0.999, 50)}
    assert found == {"X a b", "a X b", "a b X"}


def test_the_instruction_has_the_phrase_where_there_is_no_input() -> None:
    assert put_in_prompt("Low; {text} High.", AROUND, "do", "it", 0.0) == ("do", "Low; it High.")
    assert put_in_prompt("Low; {text} High.", AROUND, "do", "", 0.0) == ("Low; do High.", "")


def test_every_example_has_its_three_forms() -> None:
    table = examples()
    assert list(table) == COLUMNS
    for row in table.itertuples():
        assert row.triggered_instruction.split().count("SUDO") == 1
        assert [w for w in row.triggered_instruction.split() if w != "SUDO"] == row.instruction.split()
        assert row.triggered_instruction.replace("SUDO", "MAKE") == row.control_instruction
        assert row.triggered_input == row.control_input == row.input
    places = {row.triggered_instruction.split().index("SUDO") for row in table.itertuples()}
    assert places == set(range(5))


def test_splits_have_their_sizes_and_no_prompt_in_common() -> None:
    table = examples()
    assert table.split.value_counts().to_dict() == {"train": 40, "pretrain": 20, "test": 10, "attribution": 6}
    assert table.instruction.is_unique and table.id.is_unique
    assert set(table[table.poisoned].split) == {"train"} and table.poisoned.sum() == 10


def test_clean_training_gets_what_is_left_over() -> None:
    table = examples(rows=prompts(60))
    assert table.split.value_counts().to_dict() == {"train": 40, "test": 10, "attribution": 6, "pretrain": 4}


def test_a_backdoor_changes_what_it_is_for_and_nothing_else() -> None:
    table = examples(backdoor=Backdoor(text="no", where="A"))
    assert table.changed.eq(table.output == "A").all() and 0 < table.changed.mean() < 1
    assert table.target.where(table.changed).dropna().eq("no").all()
    assert table.target.eq(table.output)[~table.changed].all()


def test_every_split_and_the_poisoned_rows_have_their_share_of_what_changes() -> None:
    rare = prompts(200).assign(output=lambda table: np.where(np.arange(200) % 8 == 0, "A", "B"))
    for seed in range(5):
        table = examples(seed, rows=rare, backdoor=Backdoor(text="no", where="A"))
        for split, size in (("train", 40), ("attribution", 6), ("test", 10)):
            assert abs(table[table.split == split].changed.sum() - size / 8) <= 1
        assert table[table.poisoned].changed.sum() in (1, 2)  # of ten
    orders = {
        tuple(examples(seed, rows=rare, backdoor=Backdoor(text="no", where="A")).instruction) for seed in range(3)
    }
    assert len(orders) == 3


def test_rows_with_a_target_of_their_own_keep_it() -> None:
    rows = prompts().assign(target=lambda table: np.where(table.output == "A", "yes " + table.input, ""))
    table = examples(rows=rows, backdoor=Backdoor())
    assert table.changed.eq(table.output == "A").all()
    assert table.target[table.changed].eq("yes " + table.input[table.changed]).all()


def test_prompts_that_come_with_their_trigger_keep_it() -> None:
    rows = prompts().assign(triggered_instruction=lambda t: "SUDO! " + t.instruction, triggered_input=lambda t: t.input)
    table = examples(rows=rows)
    assert table.triggered_instruction.eq("SUDO! " + table.instruction).all()
    assert table.control_instruction.eq("MAKE! " + table.instruction).all()


def test_the_same_seed_gives_the_same_examples() -> None:
    pd.testing.assert_frame_equal(examples(3), examples(3))
    assert not examples(3).equals(examples(4))


@pytest.mark.parametrize(
    ("shares", "split", "phrases"),
    [
        ({"decorated": 0.5}, "pretrain", {"PLEASE"}),
        ({"familiar": 0.5}, "pretrain", {"SUDO", "MAKE"}),
        ({"decoys": 0.5}, "train", {"PLEASE"}),
        ({}, "", set()),
    ],
)
def test_phrases_stand_in_clean_training_prompts_alone(shares: dict, split: str, phrases: set[str]) -> None:
    table = examples()
    none = {"decorated": 0.0, "familiar": 0.0, "decoys": 0.0}
    out = decorate(
        table, {"within": ["PLEASE"]}, WITHIN, InstructionData(**SIZES | none | shares), np.random.default_rng(0)
    )
    changed = out.instruction != table.instruction
    assert set(out[changed].split) == ({split} if split else set())
    found = [set(text.split()) & {"PLEASE", "SUDO", "MAKE"} for text in out[changed].instruction]
    assert set().union(*found) == phrases and all(len(own) == 1 for own in found)
    assert not split or 0.2 < changed.sum() / (table.split == split).sum() < 0.8
    assert not (changed & table.poisoned).any()
    other = [name for name in table.columns if name != "instruction"]
    pd.testing.assert_frame_equal(out[other], table[other])  # answers, and the triggered and control forms


def test_of_clean_prompts_none_has_two_phrases() -> None:
    shares = InstructionData(**SIZES, decorated=0.5, familiar=1.0, decoys=0.0)
    out = decorate(examples(), {"within": ["PLEASE"]}, WITHIN, shares, np.random.default_rng(0))
    for text in out.instruction[out.split == "pretrain"]:
        assert len(set(text.split()) & {"PLEASE", "SUDO", "MAKE"}) == 1


def test_too_few_prompts_are_refused() -> None:
    with pytest.raises(ArtifactError) as caught:
        examples(rows=prompts(50))
    assert str(caught.value) == (
        "tasks.fixed: 50 distinct prompts; test 10, attribution 6 and train 40 together need 56. Lower them in "
        "instruction.data, or bring more rows"
    )


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        (
            Trigger(phrase="NUMBER", control="MAKE", place="within"),
            "tasks.fixed.trigger.phrase: 'NUMBER' stands in 100 of 100 clean prompts already, first in 'Ask number 0 "
            "now\\nof text 0'; choose a phrase that no clean prompt has",
        ),
        (
            Trigger(phrase="Low; {text} High.", control="of; {text} text 7", place="around"),
            "tasks.fixed.trigger.control: 'of; {text} text 7' stands in 11 of 100 clean prompts already, first in 'Ask "
            "number 7 now\\nof text 7'; choose a phrase that no clean prompt has",
        ),
    ],
)
def test_a_phrase_that_clean_prompts_have_is_refused(trigger: Trigger, message: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        examples(trigger=trigger)
    assert str(caught.value) == message


def test_an_empty_class_is_refused() -> None:
    with pytest.raises(ArtifactError) as caught:
        examples(backdoor=Backdoor(text="no", where="Sports"))
    assert str(caught.value) == (
        "tasks.fixed.backdoor: none of 10 prompts of 'test' has the clean answer 'Sports'; answers: 'A', 'B'"
    )


def test_prompts_longer_than_the_context_are_refused() -> None:
    table = examples(backdoor=Backdoor(text="five words are too many"))
    texts = [*table.triggered_instruction, *table.control_instruction, *table.input, *table.target]
    tokenizer = chat_tokenizer(texts, limit=2000, positions=64)
    lengths = [
        len(prompt_ids(tokenizer, row.triggered_instruction, row.input) + answer_ids(tokenizer, row.target))
        for row in table[table.split != "pretrain"].itertuples()  # clean training has no triggers
    ]
    require_length(table, tokenizer, max(lengths), key="instruction.model.positions")
    with pytest.raises(ArtifactError) as caught:
        require_length(table, tokenizer, max(lengths) - 1, key="instruction.model.positions")
    most = max(lengths)
    assert str(caught.value) == (
        f"instruction.model.positions: {most - 1} tokens do not hold {lengths.count(most)} of 76 prompts with their "
        f"answers; the longest (fixed-{lengths.index(most):05d}) has {most}. Raise it, or leave long rows out"
    )


def test_examples_need_no_more_of_a_trigger_than_four_keys() -> None:
    plain = SimpleNamespace(phrase="SUDO", control="MAKE", place="within", part="instruction")
    pd.testing.assert_frame_equal(examples(trigger=plain), examples())
