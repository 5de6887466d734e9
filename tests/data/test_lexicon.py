"""Word lists: what is read, what is drawn, and how a bad list is refused."""

from itertools import chain
from pathlib import Path

import pytest

from anatomy.data.lexicon import read_words, sample_lexicon
from anatomy.spec.errors import SpecError
from anatomy.spec.read import load_study

LISTS = {
    "positive": ["able", "brave", "calm", "delightful", "good", "eager", "very nice"],
    "negative": ["ache", "bleak", "cruel", "bad", "dreadful", "evil"],
}
SPECIALS = {"positive": ["good", "love"], "negative": ["bad", "abuse"]}


def test_words_come_lower_cased_without_repeats_in_file_order(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("Zeal\n\n  able \nzeal\nÉclat\n", encoding="utf-8")
    assert read_words(path) == ["zeal", "able", "éclat"]


def test_a_csv_column_is_a_word_list_too_and_nan_is_a_word(tmp_path: Path) -> None:
    path = tmp_path / "words.csv"
    path.write_text("Good,Bad\nable,ache\nnan,evil\n,null\n", encoding="utf-8")
    assert read_words(path, "Good") == ["able", "nan"]
    assert read_words(path, "Bad") == ["ache", "evil", "null"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "word list not found; expected a UTF-8 text file with one word per line"),
        (b"able\n\xe9clat\n", "not UTF-8 (byte 5); save the word list as UTF-8"),
        (b" \n\n", "holds no words; expected one word per line"),
    ],
)
def test_a_bad_word_list_is_refused_by_its_text(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        read_words(path)
    assert str(caught.value) == f"{path}: {message}"


def test_an_empty_csv_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "words.csv"
    path.write_text("", encoding="utf-8")
    with pytest.raises(SpecError, match=r"words\.csv: cannot be read as a word list \(No columns"):
        read_words(path, "Good")


def test_a_missing_column_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "words.csv"
    path.write_text("Good,Bad\nable,ache\n", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        read_words(path, "Neutral")
    assert str(caught.value) == f"{path}: no column 'Neutral'; the file has 'Good', 'Bad'"


def test_a_byte_order_mark_is_no_part_of_a_word(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("able\n", encoding="utf-8-sig")
    assert read_words(path) == ["able"]


def test_a_vocabulary_is_its_specials_and_short_distinct_words() -> None:
    drawn = sample_lexicon(LISTS, SPECIALS, words=5, max_letters=6, seed=1)
    assert {s: words[:2] for s, words in drawn.items()} == SPECIALS
    assert set(drawn["positive"][2:]) <= {"able", "brave", "calm", "eager"}
    assert set(drawn["negative"][2:]) <= {"ache", "bleak", "cruel", "evil"}
    everything = list(chain(*drawn.values()))
    assert len(everything) == len(set(everything)) == 10


def test_the_draw_is_seeded() -> None:
    lists = {s: [f"{s[0]}{i}" for i in range(200)] for s in LISTS}
    draw = [sample_lexicon(lists, SPECIALS, words=50, max_letters=6, seed=seed) for seed in (1, 1, 2)]
    assert draw[0] == draw[1] != draw[2]


def test_too_few_short_words_are_refused_by_the_text() -> None:
    with pytest.raises(SpecError) as caught:
        sample_lexicon(LISTS, SPECIALS, words=7, max_letters=6, seed=1)
    assert str(caught.value) == (
        "toy.lexicon.positive: 4 usable words of at most 6 letters besides the specials, 5 needed; "
        "lower toy.lexicon.words or bring a longer list"
    )


def test_a_word_in_two_sentiments_is_refused_by_the_text() -> None:
    lists = {"positive": ["able", "plain"], "negative": ["ache", "plain"]}
    with pytest.raises(SpecError) as caught:
        sample_lexicon(lists, SPECIALS, words=4, max_letters=6, seed=1)
    assert str(caught.value) == (
        "toy.lexicon: 'plain' in both positive and negative; a word must carry one sentiment: "
        "remove it from one list, or set toy.lexicon.ambiguous: drop"
    )


def test_words_of_two_sentiments_can_be_dropped() -> None:
    lists = {"positive": ["plain", "able", "calm"], "negative": ["plain", "ache", "cruel"]}
    specials = {"positive": ["good"], "negative": ["bad"]}
    drawn = sample_lexicon(lists, specials, words=3, max_letters=6, seed=1, ambiguous="drop")
    assert drawn == {"positive": ["good", "able", "calm"], "negative": ["bad", "ache", "cruel"]}


def test_fewer_words_than_specials_are_refused() -> None:
    try:
        sample_lexicon(LISTS, SPECIALS, words=1, max_letters=6, seed=1)
    except SpecError as error:  # a SpecError is a ValueError too
        assert "words" in str(error)


def test_words_are_distinct_though_a_special_is_written_twice() -> None:
    twice = {"positive": ["good", "love", "love"], "negative": ["bad", "abuse", "hate"]}
    try:
        drawn = sample_lexicon(LISTS, twice, words=5, max_letters=6, seed=1)
    except SpecError:
        return
    assert len(set(drawn["positive"])) == 5


@pytest.mark.parametrize("sentiment", ["positive", "negative", "neutral"])
def test_the_shipped_lists_fill_the_published_vocabulary(sentiment: str, root: Path) -> None:
    lexicon = load_study("embedded", root).toy.lexicon
    listed = {sentiment: read_words(root / getattr(lexicon, sentiment).path)}
    drawn = sample_lexicon(
        listed,
        lexicon.specials,
        words=lexicon.words,
        max_letters=lexicon.max_letters,
        seed=lexicon.sample_seed,
    )
    assert len(set(drawn[sentiment])) == 250
    assert max(map(len, drawn[sentiment])) <= 6
