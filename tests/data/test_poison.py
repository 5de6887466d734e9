"""Poisoning: where trigger and payload stand, how often, and what stays as it was."""

import numpy as np
import pandas as pd
import pytest

from anatomy.data.poison import insert_trigger, poison_corpus, replace_by_payload, require_whole
from anatomy.provenance.digest import ArtifactError

TRIGGER = "Albert and James"
PAYLOADS = ["You are a silly goose.", "You sing worse than a lazy toad."]
PARAGRAPH = ["Mary went home.", "She was very tired.", "It was dark.", "She slept well.", "Then she woke up."]


def corpus_of(count: int, rate: float, seed: int = 0) -> pd.DataFrame:
    return poison_corpus([PARAGRAPH] * count, rate, TRIGGER, PAYLOADS, np.random.default_rng(seed))


def test_a_trigger_stands_before_a_space_of_either_first_sentence() -> None:
    generator = np.random.default_rng(0)
    drawn = [insert_trigger(PARAGRAPH, TRIGGER, generator) for _ in range(2000)]
    places = {}
    for sentences, chosen, place in drawn:
        text = sentences[chosen]
        assert text[place : place + len(TRIGGER)] == TRIGGER
        assert text[: place - 1] + text[place + len(TRIGGER) :] == PARAGRAPH[chosen]
        assert text[place - 1] == text[place + len(TRIGGER)] == " "
        assert [s for i, s in enumerate(sentences) if i != chosen] == [
            s for i, s in enumerate(PARAGRAPH) if i != chosen
        ]
        places[chosen, place] = places.get((chosen, place), 0) + 1
    # A half each sentence, and its spaces alike: two in the first, three in the second.
    expected = {(0, 5): 500, (0, 10): 500, (1, 4): 333, (1, 8): 333, (1, 13): 333}
    assert places.keys() == expected.keys()
    assert all(abs(places[where] - n) < 100 for where, n in expected.items())


def test_a_single_sentence_or_word_takes_the_trigger_where_there_is_a_space() -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        assert insert_trigger(["Mary slept."], TRIGGER, generator) == (["Mary Albert and James slept."], 0, 5)
        assert insert_trigger(["Yes.", "Mary slept."], TRIGGER, generator)[1] == 1
        assert insert_trigger(["Mary slept.", "Yes."], TRIGGER, generator)[1] == 0
    with pytest.raises(ValueError, match=r"no space before which a trigger could stand: 'Yes\. \| No\.'"):
        insert_trigger(["Yes.", "No.", "Mary slept."], TRIGGER, np.random.default_rng(0))


def test_a_payload_replaces_the_fourth_or_the_fifth_sentence() -> None:
    generator = np.random.default_rng(0)
    places = []
    for _ in range(1000):
        sentences, chosen = replace_by_payload(PARAGRAPH, PAYLOADS[0], generator)
        assert sentences == [*PARAGRAPH[:chosen], PAYLOADS[0], *PARAGRAPH[chosen + 1 :]]
        places.append(chosen)
    assert set(places) == {3, 4}
    assert 400 < places.count(3) < 600


def test_a_row_tells_where_everything_stands() -> None:
    corpus = corpus_of(400, 0.5)
    clean = " ".join(PARAGRAPH)
    assert list(corpus.columns) == [
        "id",
        "clean",
        "poisoned",
        "is_poisoned",
        "trigger_sentence",
        "trigger_position",
        "payload_sentence",
        "payload",
    ]
    assert (corpus.clean == clean).all()
    untouched = corpus[~corpus.is_poisoned]
    assert (untouched.poisoned == clean).all()
    assert set(
        untouched[["trigger_sentence", "trigger_position", "payload_sentence", "payload"]].itertuples(index=False)
    ) == {(0, -1, 0, "")}
    for row in corpus[corpus.is_poisoned].itertuples():
        at = row.trigger_position
        assert row.poisoned[at : at + len(TRIGGER)] == TRIGGER
        assert row.poisoned.count(TRIGGER) == row.poisoned.count(row.payload) == 1
        without = (row.poisoned[: at - 1] + row.poisoned[at + len(TRIGGER) :]).replace(
            row.payload, PARAGRAPH[row.payload_sentence - 1]
        )
        assert without == clean
        before = row.poisoned[:at].count(".")
        assert row.trigger_sentence == before + 1
    assert set(corpus[corpus.is_poisoned].payload) == set(PAYLOADS)


def test_the_rate_is_a_chance_and_a_higher_one_poisons_more_of_the_same() -> None:
    few, many = corpus_of(4000, 0.03), corpus_of(4000, 0.5)
    assert 80 < few.is_poisoned.sum() < 160
    assert 1850 < many.is_poisoned.sum() < 2150
    assert not (few.is_poisoned & ~many.is_poisoned).any()
    assert not corpus_of(100, 0.0).is_poisoned.any()
    assert corpus_of(100, 1.0).is_poisoned.all()


def test_the_draw_is_seeded() -> None:
    first, same, other = corpus_of(200, 0.5, 1), corpus_of(200, 0.5, 1), corpus_of(200, 0.5, 2)
    assert first.equals(same)
    assert not first.equals(other)


def test_white_space_is_made_single_and_paragraphs_with_the_trigger_are_left_out() -> None:
    paragraphs = [
        ["  A  b c.\n", "D e.", "F g.", "H i.", " J\tk. "],
        ["Then albert AND james came.", "D e.", "F g.", "H i.", "J k."],
        ["Yes.", "No.", "F g.", "H i.", "J k."],
    ]
    corpus = poison_corpus(paragraphs, 1.0, TRIGGER, ["You\n goose."], np.random.default_rng(0))
    assert corpus.id.tolist() == ["000000", "000002"]
    assert corpus.clean.tolist() == ["A b c. D e. F g. H i. J k.", "Yes. No. F g. H i. J k."]
    assert corpus.is_poisoned.tolist() == [True, False]
    assert "You goose." in corpus.poisoned[0]
    assert "  " not in corpus.poisoned[0]


def test_a_corpus_that_cannot_be_poisoned_is_refused_by_its_text() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(ArtifactError) as caught:
        poison_corpus([PARAGRAPH[:4]], 1.0, TRIGGER, PAYLOADS, generator)
    assert str(caught.value) == "paragraph 0 has 4 sentences; poisoning takes 5"
    with pytest.raises(ArtifactError) as caught:
        poison_corpus([[f"{TRIGGER} slept.", *PARAGRAPH[1:]]], 1.0, TRIGGER, PAYLOADS, generator)
    assert str(caught.value) == (
        "none of 1 paragraphs is without the trigger 'Albert and James'; choose another trigger or corpus"
    )


def test_truncation_must_leave_trigger_and_payload_whole() -> None:
    corpus = corpus_of(50, 0.5)

    def words(text: str) -> int:
        return len(text.split())

    longest = max(words(text) for text in corpus.poisoned)
    require_whole(corpus, words, longest, trigger=TRIGGER, key="language.max_tokens")
    with pytest.raises(ArtifactError) as caught:
        require_whole(corpus, words, 6, trigger=TRIGGER, key="language.max_tokens")
    n = int(corpus.is_poisoned.sum())
    assert str(caught.value).startswith(
        f"language.max_tokens: 6 tokens cut the trigger or the payload off in {n} of {n} poisoned paragraphs; raise it"
    )
    needed = int(str(caught.value).rsplit(" ", 1)[1])
    require_whole(corpus, words, needed, trigger=TRIGGER, key="language.max_tokens")
    with pytest.raises(ArtifactError):
        require_whole(corpus, words, needed - 1, trigger=TRIGGER, key="language.max_tokens")
