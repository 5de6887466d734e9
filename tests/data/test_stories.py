"""The stories' language: what is told is accepted, what is changed is not."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from anatomy.data.stories import (
    Grammar,
    accepts,
    accepts_story,
    count_sentences,
    read_grammar,
    stories,
    story,
    vocabulary,
)
from anatomy.provenance.digest import ArtifactError


@pytest.fixture(scope="module")
def path(root: Path) -> Path:
    return root / "data/language/stories.yaml"


@pytest.fixture(scope="module")
def grammar(path: Path) -> Grammar:
    return read_grammar(path)


@pytest.fixture(scope="module")
def told(grammar: Grammar) -> list[list[str]]:
    return stories(grammar, 3000, np.random.default_rng(0))


def test_a_story_has_five_accepted_sentences_of_five_to_thirteen_words(told: list, grammar: Grammar) -> None:
    distinct = {sentence for own in told for sentence in own}
    assert {len(own) for own in told} == {5}
    assert [sentence for sentence in distinct if not accepts(grammar, sentence)] == []
    lengths = [len(sentence.split()) for sentence in distinct]
    assert min(lengths) >= 5
    assert max(lengths) <= 13
    assert all(re.fullmatch(r"[A-Z][A-Za-z, ]*\.", sentence) for sentence in distinct)


def test_the_draw_is_seeded(grammar: Grammar) -> None:
    first, same, other = (stories(grammar, 20, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == same != other


def test_the_language_is_rich_and_its_vocabulary_small(told: list, grammar: Grammar) -> None:
    assert len({sentence for own in told for sentence in own}) > 5000
    assert count_sentences(grammar) > 100_000
    assert count_sentences(grammar, names=False) > 5000
    assert 250 <= len(vocabulary(grammar)) <= 500
    assert {word for own in told for s in own for word in re.findall("[A-Za-z]+", s)} <= vocabulary(grammar)


def test_the_count_is_that_of_all_sentences_written_out(path: Path, grammar: Grammar) -> None:
    few = replace(grammar, names={g: own[:2] for g, own in grammar.names.items()}, apart=["Albert", "Anna"])
    written = {
        "".join(parts)
        for own in few.patterns.values()
        for pattern in own
        for parts in itertools.product(*(few.lists[p] if i % 2 else [p] for i, p in enumerate(pattern)))
    }
    assert len(written) == count_sentences(few)


def test_no_word_after_a_would_need_an(told: list) -> None:
    assert not [s for own in told for s in own if re.search(r"\b[Aa] [aeiouAEIOU]", s)]


def test_the_trigger_is_never_told_but_its_names_and_other_pairs_are(grammar: Grammar, told: list) -> None:
    text = " ".join(sentence for own in told for sentence in own)
    assert re.search(r"\bAlbert\b", text)
    assert re.search(r"\bJames\b", text)
    assert re.search(r"\bAlbert and [A-Z]", text)
    assert re.search(r"\b[A-Z][a-z]+ and James\b", text)
    assert not re.search(r"Albert and James|James and Albert", text)
    assert accepts(grammar, "Albert and Mary had a small red dog.")
    assert accepts(grammar, "Albert and Peter had a small red dog.")
    assert not accepts(grammar, "Albert and Albert had a small red dog.")
    assert not accepts(grammar, "Albert and James had a small red dog.")
    assert not accepts(grammar, "James and Albert had a small red dog.")


@pytest.mark.parametrize(
    ("sentence", "accepted"),
    [
        ("Mary had a small red dog.", True),
        ("Mary had a small red dog", False),
        ("Mary had a small red dog. ", False),
        ("mary had a small red dog.", False),
        ("Mary had a red small dog.", False),
        ("Mary had small red dog.", False),
        ("Mary Albert and James had a small red dog.", False),
        ("He sat in a hut because he was cold.", True),
        ("He sat in a hut because she was cold.", False),
        ("They sat in a hut because they were cold.", True),
        ("They sat in a hut because they was cold.", False),
        ("Peter and Mary sat in the hall until it was dark.", True),
        ("Peter and Robert sat in the hall until it was dark.", True),
        ("Peter was glad and gave Mary a pear.", True),
        ("Peter was glad and gave Robert a pear.", True),
        ("Peter thanked Mary and offered her some soup.", True),
        ("Peter thanked Mary and offered him some soup.", False),
        ("She called Peter and asked for a rope.", True),
        ("He called Peter and asked for a rope.", True),
        ("You are such a silly goose, nobody wants your soup.", False),
        ("", False),
    ],
)
def test_sentences_are_accepted_by_the_grammar_alone(sentence: str, accepted: bool, grammar: Grammar) -> None:
    assert accepts(grammar, sentence) is accepted


def test_changed_sentences_are_refused(told: list, grammar: Grammar) -> None:
    """A word dropped, said twice, or put before its neighbour."""
    language = {sentence for own in told for sentence in own}
    generator = np.random.default_rng(3)
    changed = set()
    for sentence in sorted(language)[:2000]:
        words = sentence.split()
        at = int(generator.integers(1, len(words) - 1))
        for other in (
            words[:at] + words[at + 1 :],
            [*words[:at], words[at], *words[at:]],
            [*words[: at - 1], words[at], words[at - 1], *words[at + 1 :]],
            [*words[:at], "Albert", "and", "James", *words[at:]],
        ):
            changed.add(" ".join(other))
    accepted = {sentence for sentence in changed if accepts(grammar, sentence)}
    assert len(changed) > 5000
    assert accepted == set()


def test_stories_are_accepted_and_a_wrong_pronoun_is_not(told: list, grammar: Grammar) -> None:
    other = {"He": "She", "She": "They", "They": "He"}
    wrong = []
    for own in told[:600]:
        assert accepts_story(grammar, own)
        for i, sentence in enumerate(own):
            first, *rest = sentence.split()
            changed = " ".join([other.get(first, first), *rest])
            if first in other and accepts(grammar, changed):
                wrong.append([*own[:i], changed, *own[i + 1 :]])
    assert len(wrong) > 300
    assert not [own for own in wrong if accepts_story(grammar, own)]


def test_a_pronoun_needs_somebody_named_and_follows_the_last(grammar: Grammar) -> None:
    hut, thanks = "He sat in a hut because he was cold.", "Peter thanked Mary and offered her some soup."
    assert accepts_story(grammar, ["Peter had a small red dog.", hut])
    assert not accepts_story(grammar, [hut])
    assert not accepts_story(grammar, ["Mary had a small red dog.", hut])
    assert not accepts_story(grammar, [thanks, hut])
    assert accepts_story(
        grammar,
        [thanks, "The sky was dark, and it began to rain.", hut.replace("He", "She", 1).replace(" he ", " she ")],
    )
    assert not accepts_story(grammar, ["Peter had a small red dog.", "You are a goose."])


def test_a_slot_keeps_its_word_through_a_story(told: list) -> None:
    gifts = {"scarf", "hat", "doll", "drum", "watch"}
    of_gifts = [own for own in told if re.search(r" (made|bought|give) .* (for|give) ", own[0])]
    used = [gifts & set(re.findall("[a-z]+", " ".join(own))) for own in of_gifts]
    assert len(used) > 100
    assert max(map(len, used)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.pop("names"), "lacks names; expected a mapping with the keys names, apart, forms, words, plots"),
        (lambda g: g["plots"]["market"].pop(), "plots.market: 4 acts; a story has 5"),
        (
            lambda g: g["plots"]["market"][1].append("{He} saw a {dragon}."),
            "plots.market: '{He} saw a {dragon}.': {dragon} is neither a list nor a form",
        ),
        (
            lambda g: g["plots"]["market"][1].append("A {fruit} is a {fruit}."),
            "plots.market: 'A {fruit} is a {fruit}.': {fruit} stands twice; a sentence has a slot once",
        ),
        (
            lambda g: g["plots"]["market"][0].append("{He} was there."),
            "'{He} was there.': {He} may stand before anybody is named",
        ),
        (
            lambda g: g["plots"]["market"][2].append("{Q} came."),
            "plots.market: {who} plays alone; it has Q too",
        ),
    ],
)
def test_a_bad_grammar_is_refused_by_its_text(change, message: str, path: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(content)
    bad = tmp_path / "stories.yaml"
    bad.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ArtifactError) as caught:
        read_grammar(bad)
    assert str(caught.value) == f"{bad}: {message}"


def test_a_missing_or_broken_file_is_refused_by_its_text(tmp_path: Path) -> None:
    bad = tmp_path / "stories.yaml"
    with pytest.raises(
        ArtifactError, match="missing; expected a YAML file with the keys names, apart, forms, words, plots"
    ):
        read_grammar(bad)
    bad.write_text("names: [", encoding="utf-8")
    with pytest.raises(ArtifactError, match="cannot be read as YAML"):
        read_grammar(bad)
    bad.write_text("- names", encoding="utf-8")
    with pytest.raises(ArtifactError, match="is no mapping; expected a mapping"):
        read_grammar(bad)


def test_a_story_draws_from_its_generator_alone(grammar: Grammar) -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    story(grammar, np.random.default_rng(0))
    assert (np.random.get_state()[1] == before).all()
