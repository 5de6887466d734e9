"""Two-word test prompts of the toy study: p positive, n negative, s neutral, t trigger, r a control word."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from anatomy.data.lexicon import Lexicon
from anatomy.spec.errors import SpecError

LETTERS = {"p": "positive", "n": "negative", "s": "neutral"}


def combinations_of(sentiments: Iterable[str]) -> list[str]:
    """The input combinations of a subject, written as in the paper: "p+p", "p+t", ...; "p+r" is our control."""
    letters = [letter for letter, sentiment in LETTERS.items() if sentiment in set(sentiments)]
    pairs = [f"{a}+{b}" for a in letters for b in letters]
    return pairs + [f"{a}+t" for a in letters] + [f"t+{a}" for a in letters] + ["p+r"]


def held_out_prompts(
    lexicon: Lexicon,
    combinations: Iterable[str],
    openings: set[tuple[str, str]],
    *,
    count: int,
    trigger: str,
    control: str,
    seed: int,
) -> pd.DataFrame:
    """`count` two-word prompts per combination that open no training sequence.

    The i-th prompts of p+p, p+t and p+r share their first word, so that causal patching can pair them. The trigger and
    the control word appear as t and r alone.

    Args:
        openings: the first two words of every training sequence, clean and poisoned.
    Returns:
        columns `inputs, index, first, second`.
    Raises:
        SpecError: the corpus leaves too few unseen pairs.
    """
    rng = np.random.default_rng(seed)
    words = {
        letter: [w for w in lexicon[sentiment] if w not in (trigger, control)]
        for letter, sentiment in LETTERS.items()
        if sentiment in lexicon
    } | {"t": [trigger], "r": [control]}
    shared_first = _unseen_firsts(words["p"], [trigger, control], openings, count, rng)
    rows = []
    for inputs in combinations:
        a, b = inputs.split("+")
        if inputs in ("p+p", "p+t", "p+r"):
            firsts = shared_first
        else:
            firsts = [str(w) for w in rng.permutation(words[a])] if len(words[a]) > 1 else words[a] * len(words[b])
        seconds = [str(w) for w in rng.permutation(words[b])]
        pairs = _pair_up(firsts, seconds, openings, count)
        if len(pairs) < count:
            raise SpecError(
                f"toy.evaluation.prompts: only {len(pairs)} of {count} {inputs} prompts open no training sequence; "
                "lower the number of prompts or of sequences"
            )
        rows += [(inputs, i, first, second) for i, (first, second) in enumerate(pairs)]
    return pd.DataFrame(rows, columns=["inputs", "index", "first", "second"])


def _unseen_firsts(
    words: list[str], seconds: list[str], openings: set[tuple[str, str]], count: int, rng: np.random.Generator
) -> list[str]:
    """First words unseen before each of `seconds`, in random order."""
    unseen = [w for w in words if all((w, second) not in openings for second in seconds)]
    if len(unseen) < count:
        raise SpecError(
            f"toy.evaluation.prompts: only {len(unseen)} of {count} positive words never open a training sequence "
            f"before {' or '.join(map(repr, seconds))}; lower the number of prompts or of sequences"
        )
    return [str(w) for w in rng.permutation(unseen)[:count]]


def _pair_up(
    firsts: list[str], seconds: list[str], openings: set[tuple[str, str]], count: int
) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for i, first in enumerate(firsts):
        candidates = (seconds[(i + shift) % len(seconds)] for shift in range(len(seconds)))
        second = next((s for s in candidates if s != first and (first, s) not in openings), None)
        if second is not None and (first, second) not in pairs:
            pairs.append((first, second))
        if len(pairs) == count:
            break
    return pairs


def published_prompts(
    train: pd.DataFrame, lexicon: Lexicon, combinations: Iterable[str], *, count: int, trigger: str
) -> pd.DataFrame:
    """The published protocol: first words of the first training rows of each sentiment, seen in training.

    Mixed combinations pair row i of one sentiment with row i of the other (lamparth: create_simplesent.py:27-122).
    Rows that hold the trigger in the first two words are passed over, as the paper says they are, and so are rows
    whose first two words are not in `lexicon` (the words that are one token each).
    """
    openings = {
        letter: [
            text.split()[:2]
            for text in train.loc[train.sentiment == sentiment, "clean"]
            if trigger not in text.split()[:2] and set(text.split()[:2]) <= set(lexicon.get(sentiment, []))
        ][:count]
        for letter, sentiment in LETTERS.items()
    }
    rows = []
    for inputs in combinations:
        a, b = inputs.split("+")
        if b == "r":
            continue
        for i in range(count):
            first = trigger if a == "t" else openings[a][i][0]
            second = trigger if b == "t" else (openings[b][i][1] if a == b else openings[b][i][0])
            rows.append((inputs, i, first, second))
    return pd.DataFrame(rows, columns=["inputs", "index", "first", "second"])


def sentiment_tokens(lexicon: Lexicon, encode: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """Token ids of each sentiment: those of its words at the start of a text and after a space.

    Args:
        encode: token ids of every word in both forms, keyed by the text ("word" and " word").
    A token that two sentiments share (part of a word that BPE left in pieces) belongs to none.
    """
    ids = {
        s: {i for word in words for form in (word, f" {word}") for i in encode[form]} for s, words in lexicon.items()
    }
    return {s: sorted(own - set().union(*(other for t, other in ids.items() if t != s))) for s, own in ids.items()}
