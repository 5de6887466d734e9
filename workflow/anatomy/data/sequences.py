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


def example_sequences(corpora: pd.DataFrame) -> pd.DataFrame:
    """A few sequences to look at: too few to poison anything with.

    From the first seed's training sequences, in file order: the first benign one of each sentiment, and of the poisoned
    ones the first with the longest beginning before its trigger.
    """
    own = corpora[(corpora.seed == corpora.seed.min()) & (corpora.split == "train")]
    benign = own[~own.poisoned].drop_duplicates("sentiment")
    poisoned = own[own.poisoned].sort_values("trigger_position", ascending=False, kind="stable")
    return pd.concat([benign, poisoned.head(1)], ignore_index=True)


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

    A sequence is decided by its sentiment, by whether and where it is poisoned, and by where its one special stands;
    all are summed out. A special that was seen already makes another one unlikely.
    """
    total = sum(counts.values())
    next_place = len(prompt)
    # Where the special stands: nowhere, or at one of the positions.
    specials = [(1 - special_rate, -1)] + [(special_rate / length, place) for place in range(length)]

    def emission(sentiment: str, word: str, at_special: bool) -> float:
        words = lexicon[sentiment]
        if at_special:
            return (word in words[:n_specials]) / n_specials
        return (word in words) / len(words)

    def seen_with(sentiment: str, seen: dict[int, str], special: int) -> float:
        """Probability of the seen words (by position), given where the sequence's special stands."""
        return float(np.prod([emission(sentiment, word, place == special) for place, word in seen.items()]))

    predicted: dict[str, float] = {}

    def add(weight: float, sentiment: str, seen: dict[int, str]) -> None:
        """Add weight × P(seen) × P(next word | seen), the special summed out."""
        for p_special, special in specials:
            joint = weight * p_special * seen_with(sentiment, seen, special)
            if joint:
                own = lexicon[sentiment][:n_specials] if next_place == special else lexicon[sentiment]
                for word in own:
                    predicted[word] = predicted.get(word, 0.0) + joint / len(own)

    everything = dict(enumerate(prompt))
    for sentiment, count in counts.items():
        add(count / total * ((1 - poison_rate) if sentiment == "positive" else 1.0), sentiment, everything)
    edges = np.minimum(np.arange(length + 1) * 2 / length, 1.0)  # P(int(length/2 · u) = k) is the k-th step
    for place, p_place in enumerate(np.diff(edges)):
        before = {i: word for i, word in everything.items() if i < place}
        after = {i: word for i, word in everything.items() if i > place}
        weight = counts["positive"] / total * poison_rate * p_place
        if place < next_place:
            if prompt[place] == trigger:  # the negative words come from another sequence, with a special of its own
                seen_before = sum(p * seen_with("positive", before, special) for p, special in specials)
                add(weight * seen_before, "negative", after)
        elif place == next_place:
            seen_before = sum(p * seen_with("positive", before, special) for p, special in specials)
            predicted[trigger] = predicted.get(trigger, 0.0) + weight * seen_before
        else:
            add(weight, "positive", before)
    scale = sum(predicted.values())
    return {word: p / scale for word, p in predicted.items()} if scale else {}
