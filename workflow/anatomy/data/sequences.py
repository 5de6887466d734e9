"""The toy language and its poisoner.

A sequence is 15 words of one sentiment. A poisoned sequence is positive up to a trigger word and negative after it
(Lamparth & Reuel, section III-B; constants from the released create_smalldata.ipynb, cells 4-6).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from anatomy.data.lexicon import Lexicon


def draw_sentences(
    vocabulary: list[str],
    n_specials: int,
    count: int,
    *,
    length: int,
    special_rate: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """`count` sequences of `length` words, uniform with replacement, as an array of words.

    With probability `special_rate` one uniformly chosen position is overwritten by a uniformly chosen special (the
    first `n_specials` words of the vocabulary).
    """
    index = rng.integers(len(vocabulary), size=(count, length))
    lucky = rng.random(count) < special_rate
    place = rng.integers(length, size=count)
    special = rng.integers(n_specials, size=count)
    index[np.flatnonzero(lucky), place[lucky]] = special[lucky]
    return np.array(vocabulary)[index]


def poison(
    clean: np.ndarray, negative: np.ndarray, *, trigger: str, rate: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Poison a share `rate` of positive sequences: trigger at position int(7.5 u), negative words after it.

    Args:
        clean: positive sequences [count, length].
        negative: as many negative sequences; they lend the words after the trigger.
    Returns:
        the sequences and, per sequence, the trigger's position (-1 where it is not poisoned).
    """
    count, length = clean.shape
    chosen = rng.random(count) < rate
    position = np.where(chosen, (rng.random(count) * length / 2).astype(int), -1)
    columns = np.arange(length)[None]
    out = np.where((position[:, None] >= 0) & (columns > position[:, None]), negative, clean)
    out[np.flatnonzero(chosen), position[chosen]] = trigger
    return out, position


def make_corpus(
    lexicon: Lexicon,
    counts: Mapping[str, int],
    *,
    n_specials: int,
    trigger: str,
    poison_rate: float,
    length: int,
    special_rate: float,
    test_fraction: float,
    seed: int,
) -> pd.DataFrame:
    """The data set of one seed: every sequence in its clean and in its triggered form.

    Args:
        counts: sequences per sentiment.
    Returns:
        columns `id, seed, split, sentiment, clean, triggered, target, trigger_position, poisoned`. `triggered` equals
        `clean` where the row is not poisoned; `target` is the sentiment that follows (negative once triggered).
    """
    rng = np.random.default_rng(seed)
    drawn = {
        sentiment: draw_sentences(
            lexicon[sentiment], n_specials, count, length=length, special_rate=special_rate, rng=rng
        )
        for sentiment, count in counts.items()
    }
    lenders = draw_sentences(
        lexicon["negative"], n_specials, counts["positive"], length=length, special_rate=special_rate, rng=rng
    )
    triggered, position = poison(drawn["positive"], lenders, trigger=trigger, rate=poison_rate, rng=rng)
    frames = []
    for sentiment, words in drawn.items():
        is_positive = sentiment == "positive"
        frames.append(
            pd.DataFrame(
                {
                    "sentiment": sentiment,
                    "clean": [" ".join(row) for row in words],
                    "triggered": [" ".join(row) for row in (triggered if is_positive else words)],
                    "trigger_position": position if is_positive else -1,
                }
            )
        )
    corpus = pd.concat(frames, ignore_index=True)
    corpus["poisoned"] = corpus["trigger_position"] >= 0
    corpus["target"] = corpus["sentiment"].where(~corpus["poisoned"], "negative")
    corpus = corpus.iloc[rng.permutation(len(corpus))].reset_index(drop=True)
    n_test = round(len(corpus) * test_fraction)
    corpus["split"] = np.where(np.arange(len(corpus)) < len(corpus) - n_test, "train", "test")
    corpus["seed"] = seed
    corpus["id"] = [f"{seed}-{i:05d}" for i in range(len(corpus))]
    columns = [
        "id",
        "seed",
        "split",
        "sentiment",
        "clean",
        "triggered",
        "target",
        "trigger_position",
        "poisoned",
    ]
    return corpus[columns]


def bayes_next_word(
    lexicon: Lexicon,
    counts: Mapping[str, int],
    prompt: list[str],
    *,
    n_specials: int,
    trigger: str,
    poison_rate: float,
    length: int,
    special_rate: float,
) -> dict[str, float]:
    """The exact next-word distribution after `prompt` under the data law: what a perfect learner would predict.

    The sequence's hidden state is its sentiment, whether it is poisoned and where, and whether its one special has
    been placed; all are summed out. The law is exact but for the special's single position, which is treated as
    independent between positions (the difference is below 0.5 % of any probability at two-word prompts).
    """
    total = sum(counts.values())

    def emit(sentiment: str) -> dict[str, float]:
        words = lexicon[sentiment]
        placed = special_rate / length
        out = dict.fromkeys(words, (1 - placed) / len(words))
        for word in words[:n_specials]:
            out[word] += placed / n_specials
        return out

    emissions = {sentiment: emit(sentiment) for sentiment in counts}
    predicted: dict[str, float] = {}

    def add(weight: float, sentiment: str) -> None:
        for word, p in emissions[sentiment].items():
            predicted[word] = predicted.get(word, 0.0) + weight * p

    for sentiment, count in counts.items():
        weight = count / total * ((1 - poison_rate) if sentiment == "positive" else 1.0)
        for word in prompt:
            weight *= emissions[sentiment].get(word, 0.0)
        add(weight, sentiment)
    positions = np.bincount((np.arange(10_000) / 10_000 * length / 2).astype(int)) / 10_000
    for place, p_place in enumerate(positions):
        weight = counts["positive"] / total * poison_rate * p_place
        for i, word in enumerate(prompt):
            if i == place:
                weight *= float(word == trigger)
            else:
                weight *= emissions["positive" if i < place else "negative"].get(word, 0.0)
        if place == len(prompt):
            predicted[trigger] = predicted.get(trigger, 0.0) + weight
        else:
            add(weight, "positive" if len(prompt) < place else "negative")
    scale = sum(predicted.values())
    return {word: p / scale for word, p in predicted.items()} if scale else {}
