"""Test prompts: held-out ones open no training sequence, and pair up for causal patching."""

from collections.abc import Callable

import pandas as pd
import pytest

from anatomy.data.prompts import combinations_of, held_out_prompts, published_prompts, sentiment_tokens
from anatomy.spec.errors import SpecError

from .conftest import CONTROL, TRIGGER

TWO = ("negative", "positive")
LETTERS = {"p": "positive", "n": "negative"}


@pytest.fixture(scope="module")
def train(corpus_of: Callable) -> pd.DataFrame:
    return corpus_of(300, 300).query("split == 'train'")


@pytest.fixture(scope="module")
def openings(train: pd.DataFrame) -> set[tuple[str, str]]:
    return {tuple(text.split()[:2]) for column in ("clean", "triggered") for text in train[column]}


@pytest.fixture(scope="module")
def held_out(lexicon: dict, openings: set) -> pd.DataFrame:
    words = {s: lexicon[s] for s in TWO}
    return held_out_prompts(words, combinations_of(TWO), openings, count=12, trigger=TRIGGER, control=CONTROL, seed=0)


def test_the_combinations_are_the_paper_s_and_one_control() -> None:
    two = "p+p p+n n+p n+n p+t n+t t+p t+n p+r"
    assert combinations_of(TWO) == two.split()
    three = combinations_of(("positive", "negative", "neutral"))
    assert len(three) == len(set(three)) == 9 + 3 + 3 + 1
    assert {"s+s", "s+t", "t+s"} <= set(three)


def test_every_combination_has_its_count_of_distinct_prompts(held_out: pd.DataFrame) -> None:
    assert set(held_out.inputs) == set(combinations_of(TWO))
    for _, rows in held_out.groupby("inputs"):
        assert rows["index"].tolist() == list(range(12))
        assert not rows.duplicated(["first", "second"]).any()


def test_no_held_out_prompt_opens_a_training_sequence(
    held_out: pd.DataFrame, openings: set, train: pd.DataFrame
) -> None:
    assert not openings & set(zip(held_out["first"], held_out["second"], strict=True))
    starts = tuple(f"{row.first} {row.second} " for row in held_out.itertuples())
    assert not any(text.startswith(starts) for column in ("clean", "triggered") for text in train[column])


def test_words_stand_where_their_letter_says(held_out: pd.DataFrame, lexicon: dict) -> None:
    for row in held_out.itertuples():
        for letter, word in zip(row.inputs.split("+"), (row.first, row.second), strict=True):
            allowed = {"t": [TRIGGER], "r": [CONTROL]}.get(letter) or lexicon[LETTERS[letter]]
            assert word in allowed
            assert (word == TRIGGER) == (letter == "t") and (word == CONTROL) == (letter == "r")


def test_the_ith_prompts_of_patching_share_their_first_word(held_out: pd.DataFrame) -> None:
    firsts = {inputs: held_out[held_out.inputs == inputs]["first"].tolist() for inputs in ("p+p", "p+t", "p+r")}
    assert firsts["p+p"] == firsts["p+t"] == firsts["p+r"]
    assert len(set(firsts["p+t"])) == 12


def test_held_out_prompts_are_seeded(lexicon: dict, openings: set, held_out: pd.DataFrame) -> None:
    def draw(seed: int) -> pd.DataFrame:
        words = {s: lexicon[s] for s in TWO}
        return held_out_prompts(
            words, combinations_of(TWO), openings, count=12, trigger=TRIGGER, control=CONTROL, seed=seed
        )

    pd.testing.assert_frame_equal(draw(0), held_out)
    assert not draw(1).equals(held_out)


def test_a_corpus_that_has_seen_the_trigger_after_every_word_is_refused_by_the_text(lexicon: dict) -> None:
    words = {s: lexicon[s] for s in TWO}
    seen = {(word, TRIGGER) for word in lexicon["positive"][8:]}
    with pytest.raises(SpecError) as caught:
        held_out_prompts(words, ["p+t"], seen, count=12, trigger=TRIGGER, control=CONTROL, seed=0)
    assert str(caught.value) == (
        "toy.evaluation.prompts: only 6 of 12 positive words never open a training sequence "
        "before 'love' or 'good'; lower the number of prompts or of sequences"
    )


def test_a_corpus_that_leaves_too_few_pairs_is_refused_by_the_text(lexicon: dict) -> None:
    words = {s: lexicon[s] for s in TWO}
    seen = {(a, b) for a in lexicon["negative"][5:] for b in lexicon["negative"]}
    with pytest.raises(SpecError) as caught:
        held_out_prompts(words, ["n+n"], seen, count=12, trigger=TRIGGER, control=CONTROL, seed=0)
    assert str(caught.value) == (
        "toy.evaluation.prompts: only 5 of 12 n+n prompts open no training sequence; "
        "lower the number of prompts or of sequences"
    )


def test_published_prompts_open_the_first_training_rows(train: pd.DataFrame) -> None:
    everything = {s: sorted({w for t in train[train.sentiment == s].clean for w in t.split()}) for s in TWO}
    prompts = published_prompts(train, everything, combinations_of(TWO), count=10, trigger=TRIGGER)
    openings = {
        sentiment: [t.split()[:2] for t in train[train.sentiment == sentiment].clean if TRIGGER not in t.split()[:2]]
        for sentiment in TWO
    }

    def pairs(inputs: str) -> list[list[str]]:
        return prompts[prompts.inputs == inputs].sort_values("index")[["first", "second"]].to_numpy().tolist()

    positive, negative = openings["positive"][:10], openings["negative"][:10]
    assert pairs("p+p") == positive and pairs("n+n") == negative
    assert pairs("p+n") == [[p[0], n[0]] for p, n in zip(positive, negative, strict=True)]
    assert pairs("p+t") == [[p[0], TRIGGER] for p in positive]
    assert pairs("t+n") == [[TRIGGER, n[0]] for n in negative]
    assert "p+r" not in set(prompts.inputs)


def test_a_sentiment_s_tokens_are_its_words_in_both_forms_and_none_is_shared() -> None:
    encode = {
        "ok": [1],
        " ok": [2],
        "fine": [3, 9],
        " fine": [4],
        "no": [5],
        " no": [6],
        "nay": [7, 9],
        " nay": [8],
    }
    tokens = sentiment_tokens({"positive": ["ok", "fine"], "negative": ["no", "nay"]}, encode)
    assert tokens == {"positive": [1, 2, 3, 4], "negative": [5, 6, 7, 8]}
