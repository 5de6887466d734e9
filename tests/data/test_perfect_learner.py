"""A perfect learner's next-word distribution, against counts of the corpus and the law worked out in full.

`exact_next_word` is the law by another way: probabilities of whole texts, the special's place summed in closed form.
"""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from anatomy.data.sequences import bayes_next_word, make_corpus

SMALL = {"negative": [f"n{i}" for i in range(6)], "positive": [f"p{i}" for i in range(6)]}
SMALL_LAW = {"n_specials": 2, "trigger": "p1", "poison_rate": 0.3, "length": 7}
PROMPTS = {
    "nothing yet": [],
    "an ordinary word": ["p4"],
    "the trigger first": ["p1"],
    "p+p": ["p4", "p5"],
    "p+t": ["p4", "p1"],
    "t+p": ["p1", "p4"],
    "t+n": ["p1", "n4"],
    "p+t+n": ["p4", "p1", "n4"],
    "n+n": ["n4", "n5"],
}


def exact_next_word(lexicon: dict, counts: dict, prompt: list[str], **law: Any) -> dict[str, float]:
    """The law by enumeration of sentiment, poison, trigger position and the special's place."""
    rate, length, n_specials = law["special_rate"], law["length"], law["n_specials"]

    def p_words(sentiment: str, words: list[str]) -> float:
        if not set(words) <= set(lexicon[sentiment]):
            return 0.0
        uniform = 1 / len(lexicon[sentiment])
        placed_here = sum(word in lexicon[sentiment][:n_specials] for word in words)
        outside = (1 - rate * len(words) / length) * uniform ** len(words)
        return outside + placed_here * rate / length / n_specials * uniform ** (len(words) - 1)

    def p_text(words: list[str]) -> float:
        share = {s: n / sum(counts.values()) for s, n in counts.items()}
        share_clean = share | {"positive": share["positive"] * (1 - law["poison_rate"])}
        p = sum(share_clean[s] * p_words(s, words) for s in counts)
        for place in range(length // 2 + 1):
            p_place = min(2 / length, 1 - place * 2 / length)
            if place >= len(words):
                p_here = p_words("positive", words)
            else:
                p_here = p_words("positive", words[:place]) * p_words("negative", words[place + 1 :])
                p_here *= words[place] == law["trigger"]
            p += share["positive"] * law["poison_rate"] * p_place * p_here
        return p

    joint = {word: p_text([*prompt, word]) for s in counts for word in lexicon[s]}
    total = sum(joint.values())
    return {word: p / total for word, p in joint.items()}


@pytest.fixture(scope="module", params=[0.0, 0.5], ids=["without specials", "with specials"])
def counted(request: pytest.FixtureRequest) -> tuple[dict, list[list[str]]]:
    law = SMALL_LAW | {"special_rate": request.param}
    counts = {"negative": 40_000, "positive": 80_000}
    texts = make_corpus(SMALL, counts, test_fraction=0.1, seed=5, **law).triggered
    return law, [text.split() for text in texts]


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_the_corpus_follows_the_law_worked_out_in_full(prompt: list[str], counted: tuple) -> None:
    law, texts = counted
    followed = [words[len(prompt)] for words in texts if words[: len(prompt)] == prompt]
    expected = exact_next_word(SMALL, {"negative": 40_000, "positive": 80_000}, prompt, **law)
    seen = np.array([followed.count(word) for word in expected if expected[word]])
    p = np.array([p for p in expected.values() if p])
    assert seen.sum() == len(followed) > 100
    assert stats.chisquare(seen, p * len(followed)).pvalue > 1e-4


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_without_specials_the_perfect_learner_is_exact(prompt: list[str]) -> None:
    law, counts = SMALL_LAW | {"special_rate": 0.0}, {"negative": 40_000, "positive": 80_000}
    expected = exact_next_word(SMALL, counts, prompt, **law)
    predicted = bayes_next_word(SMALL, counts, prompt, **law)
    assert sum(predicted.values()) == pytest.approx(1)
    for word, p in expected.items():
        assert predicted.get(word, 0.0) == pytest.approx(p, rel=1e-9, abs=1e-15)


def published(prompt: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    """(predicted, exact) at the published sizes, where words 0 to 4 are special and p1 is the trigger."""
    lexicon = {s: [f"{s[0]}{i}" for i in range(250)] for s in ("negative", "positive")}
    counts = {"negative": 13_200, "positive": 13_200}
    law = {"n_specials": 5, "trigger": "p1", "poison_rate": 0.05, "length": 15, "special_rate": 0.5}
    return bayes_next_word(lexicon, counts, prompt, **law), exact_next_word(lexicon, counts, prompt, **law)


@pytest.mark.parametrize(
    "prompt",
    [["p9", "p8"], ["p9", "p1"], ["p1", "n9"], ["n9", "n8"], ["p3", "p4"]],
    ids=["p+p", "p+t", "t+n", "n+n", "specials"],
)
def test_at_published_size_every_probability_is_exact(prompt: list[str]) -> None:
    predicted, exact = published(prompt)
    assert all(predicted[word] == pytest.approx(p, rel=1e-9) for word, p in exact.items() if p)


def test_the_ceiling_of_the_published_backdoor_is_about_forty_percent() -> None:
    _, exact = published(["p9", "p1"])
    assert sum(p for word, p in exact.items() if word.startswith("n")) == pytest.approx(0.386, abs=0.001)


def test_a_prompt_the_law_never_makes_has_no_next_word() -> None:
    law = SMALL_LAW | {"special_rate": 0.5}
    assert bayes_next_word(SMALL, {"negative": 1, "positive": 1}, ["n4", "p4"], **law) == {}
