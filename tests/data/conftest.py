"""A small toy language under the published law."""

from collections.abc import Callable
from typing import Any

import pytest

TRIGGER, CONTROL, SPECIALS = "love", "good", 5


@pytest.fixture(scope="session")
def lexicon() -> dict[str, list[str]]:
    """Forty words per sentiment, specials first."""
    first = {
        "negative": ["bad", "awful", "hate", "rage", "abuse"],
        "neutral": ["table", "paper", "river", "window", "chair"],
        "positive": ["happy", TRIGGER, CONTROL, "luck", "cheer"],
    }
    # Letters alone: the tokenizer cuts between letters and digits.
    tails = [a + b for a in "aeiou" for b in "bdfglmn"]
    return {s: [*words, *(s[:2] + tail for tail in tails)] for s, words in first.items()}


@pytest.fixture(scope="session")
def law() -> dict[str, Any]:
    """The published law, but for the numbers of sequences."""
    return {
        "n_specials": SPECIALS,
        "trigger": TRIGGER,
        "poison_rate": 0.05,
        "length": 15,
        "special_rate": 0.5,
    }


@pytest.fixture(scope="session")
def corpus_of(lexicon: dict, law: dict) -> Callable:
    """A two-sentiment corpus; keywords change the law."""
    from anatomy.data.sequences import make_corpus

    def build(positive: int = 6000, negative: int = 6000, *, seed: int = 0, test_fraction: float = 0.1, **other: Any):
        own = {s: lexicon[s] for s in ("negative", "positive")}
        counts = {"negative": negative, "positive": positive}
        return make_corpus(own, counts, test_fraction=test_fraction, seed=seed, **law | other)

    return build
