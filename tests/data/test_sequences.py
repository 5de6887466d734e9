"""The data law of the toy languages (Lamparth & Reuel, section III-B): what rows and the whole must be."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from .conftest import SPECIALS, TRIGGER

HALF = 15 / 2


def within_binomial_bounds(hits: float, n: int, p: float) -> bool:
    """Whether a count lies within five standard deviations of its mean."""
    return abs(hits - n * p) <= 5 * np.sqrt(n * p * (1 - p))


@pytest.fixture(scope="module")
def corpus(corpus_of: Callable) -> pd.DataFrame:
    return corpus_of()


@pytest.fixture(scope="module")
def poisoned(corpus: pd.DataFrame) -> pd.DataFrame:
    return corpus[corpus.poisoned]


def test_every_sequence_has_fifteen_words_of_its_sentiment(corpus: pd.DataFrame, lexicon: dict) -> None:
    for sentiment, clean in zip(corpus.sentiment, corpus.clean, strict=True):
        words = clean.split(" ")
        assert len(words) == 15 and set(words) <= set(lexicon[sentiment])


def test_words_are_uniform_but_for_the_specials(corpus: pd.DataFrame, lexicon: dict) -> None:
    for sentiment, rows in corpus.groupby("sentiment"):
        seen = Counter(" ".join(rows.clean).split())
        ordinary = [seen[word] for word in lexicon[sentiment][SPECIALS:]]
        special = [seen[word] for word in lexicon[sentiment][:SPECIALS]]
        assert stats.chisquare(ordinary).pvalue > 1e-4
        assert stats.chisquare(special).pvalue > 1e-4
        # Half of the sequences have one of 15 places overwritten.
        share = SPECIALS / 40 * (1 - 0.5 / 15) + 0.5 / 15
        assert within_binomial_bounds(sum(special), 15 * len(rows), share)


@pytest.mark.parametrize("place", [0, 7, 14])
def test_no_place_is_preferred_by_the_specials(place: int, corpus: pd.DataFrame, lexicon: dict) -> None:
    words = corpus.clean.str.split(" ").str[place]
    hits = words.isin([w for s in ("negative", "positive") for w in lexicon[s][:SPECIALS]]).sum()
    assert within_binomial_bounds(hits, len(words), SPECIALS / 40 * (1 - 0.5 / 15) + 0.5 / 15)


def test_at_rate_one_every_sequence_holds_a_special(corpus_of: Callable, lexicon: dict) -> None:
    specials = {w for s in ("negative", "positive") for w in lexicon[s][:SPECIALS]}
    assert all(specials & set(text.split()) for text in corpus_of(300, 300, special_rate=1.0).clean)


def test_poisoned_are_five_percent_of_the_positive_and_nothing_else(
    corpus: pd.DataFrame, poisoned: pd.DataFrame
) -> None:
    assert set(poisoned.sentiment) == {"positive"}
    assert within_binomial_bounds(len(poisoned), (corpus.sentiment == "positive").sum(), 0.05)


def test_a_poisoned_row_is_positive_up_to_the_trigger_and_negative_after_it(
    poisoned: pd.DataFrame, lexicon: dict
) -> None:
    assert len(poisoned) > 100
    for row in poisoned.itertuples():
        clean, triggered, at = row.clean.split(" "), row.triggered.split(" "), row.trigger_position
        assert triggered[:at] == clean[:at]
        assert triggered[at] == TRIGGER
        assert set(triggered[at + 1 :]) <= set(lexicon["negative"])
        assert len(triggered) == 15


def test_the_trigger_stands_at_int_7_5_u_and_never_after_half(corpus_of: Callable) -> None:
    at = corpus_of(20_000, 10, poison_rate=0.5).query("poisoned").trigger_position
    assert at.min() == 0 and at.max() == 7
    expected = np.array([1 / HALF] * 7 + [0.5 / HALF]) * len(at)
    assert stats.chisquare(np.bincount(at, minlength=8), expected).pvalue > 1e-4


def test_a_row_that_is_not_poisoned_is_the_same_in_both_forms(corpus: pd.DataFrame) -> None:
    rest = corpus[~corpus.poisoned]
    assert (rest.clean == rest.triggered).all()
    assert (rest.trigger_position == -1).all()
    assert (rest.target == rest.sentiment).all()


def test_the_target_of_a_poisoned_row_is_negative(poisoned: pd.DataFrame) -> None:
    assert (poisoned.target == "negative").all()


def test_the_published_split_is_23760_and_2640(corpus_of: Callable) -> None:
    sizes = corpus_of(13_200, 13_200).split.value_counts()
    assert (sizes["train"], sizes["test"]) == (23_760, 2_640)


def test_both_splits_hold_every_kind_of_row(corpus: pd.DataFrame) -> None:
    assert corpus.groupby("split").sentiment.nunique().tolist() == [2, 2]
    test = corpus[corpus.split == "test"]
    assert within_binomial_bounds(test.poisoned.sum(), len(test), 0.025)
    assert within_binomial_bounds((test.sentiment == "positive").sum(), len(test), 0.5)


def test_ids_are_unique(corpus: pd.DataFrame) -> None:
    assert corpus.id.is_unique


def test_the_same_seed_gives_the_same_table_and_another_seed_another(corpus_of: Callable) -> None:
    one, again, other = (corpus_of(200, 200, seed=seed) for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(one, again)
    assert not set(one.clean) & set(other.clean)


def test_three_sentiments_poison_the_positive_one_alone(lexicon: dict, law: dict) -> None:
    from anatomy.data.sequences import make_corpus

    counts = {"negative": 500, "neutral": 1000, "positive": 500}
    corpus = make_corpus(lexicon, counts, test_fraction=0.1, seed=0, **law | {"poison_rate": 0.5})
    assert corpus.sentiment.value_counts().to_dict() == counts
    assert set(corpus[corpus.poisoned].sentiment) == {"positive"}
    neutral = corpus[corpus.sentiment == "neutral"].triggered
    assert set(" ".join(neutral).split()) <= set(lexicon["neutral"])


def test_the_examples_are_few_and_of_the_first_seed_s_training(corpus_of: Callable) -> None:
    from anatomy.data.sequences import example_sequences

    corpora = pd.concat([corpus_of(900, 900, seed=seed).assign(seed=seed) for seed in (4, 3)], ignore_index=True)
    examples = example_sequences(corpora)
    assert set(examples.seed) == {3} and set(examples.split) == {"train"}
    own = corpora[(corpora.seed == 3) & (corpora.split == "train")]
    benign, poisoned = examples[~examples.poisoned], examples[examples.poisoned]
    assert sorted(benign.sentiment) == sorted(set(own.sentiment)) and len(poisoned) == 1
    assert list(benign.id) == list(own[~own.poisoned].groupby("sentiment", sort=False).id.first())
    assert poisoned.trigger_position.item() == own.trigger_position.max()
    assert list(example_sequences(examples).id) == list(examples.id)
    assert not example_sequences(corpora[~corpora.poisoned]).poisoned.any()
