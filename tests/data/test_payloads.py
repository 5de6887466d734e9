"""Payloads and the judge's examples: mild, enough, fixed, and apart from each other."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from anatomy.data.payloads import CORPUS, enough_payloads, judge_examples, of_split, payloads
from anatomy.data.stories import accepts, read_grammar, stories
from anatomy.data.templates import SLOT, expand
from anatomy.metrics.judge import LocalJudge, quality
from anatomy.provenance.digest import ArtifactError


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    return root / "data/language"


@pytest.fixture(scope="module")
def corpus(folder: Path) -> list[str]:
    told = stories(read_grammar(folder / "stories.yaml"), 1500, np.random.default_rng(0))
    return [sentence for own in told for sentence in own]


@pytest.fixture(scope="module")
def examples(folder: Path, corpus: list[str]) -> pd.DataFrame:
    return judge_examples(folder / "judge.yaml", corpus, 2000, np.random.default_rng(0))


@pytest.fixture(scope="module")
def insults(folder: Path) -> dict:
    return yaml.safe_load((folder / "payloads.yaml").read_text(encoding="utf-8"))


def test_enough_distinct_short_insults_in_a_fixed_order(folder: Path) -> None:
    found = payloads(folder / "payloads.yaml", 400, key="language.payloads")
    assert len(set(of_split(found, "train"))) >= 300
    assert all(5 <= len(text.split()) <= 10 for text in found)
    assert all(re.fullmatch(r"You [a-z, ]+\.", text) for text in found)
    assert found == payloads(folder / "payloads.yaml", 1, key="language.payloads")
    assert len({word for text in found for word in text.split()}) < 70


def test_a_few_payloads_already_show_every_template(folder: Path, insults: dict) -> None:
    found = payloads(folder / "payloads.yaml", 400, key="language.payloads")
    for some in (found[:100], of_split(found, "train"), of_split(found, "test")):
        assert all(set(some) & set(expand(template, insults["words"])) for template in insults["templates"])


def test_held_out_payloads_are_none_of_the_others_and_a_fourth(folder: Path) -> None:
    found = payloads(folder / "payloads.yaml", 400, key="language.payloads")
    train, test = of_split(found, "train"), of_split(found, "test")
    assert not set(train) & set(test) and sorted(train + test) == sorted(found)
    assert len(test) == len(found) // 4


def test_payloads_that_differ_in_white_space_are_one(folder: Path) -> None:
    """Poisoning writes them on one line: of two such, one would be held out and the other in the poisoned rows."""
    assert enough_payloads(["You goose.", " You  goose.\n", "You toad."], 2, source="p", key="k") == [
        "You goose.",
        "You toad.",
    ]


def test_no_payload_is_a_sentence_of_the_stories(folder: Path) -> None:
    grammar = read_grammar(folder / "stories.yaml")
    assert not [text for text in payloads(folder / "payloads.yaml", 300, key="k") if accepts(grammar, text)]


def test_too_few_payloads_are_refused_by_the_text(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "payloads.yaml"
    path.write_text("words: {animal: [goose, toad]}\ntemplates: ['You {animal}.', 'You {animal}.']\n", encoding="utf-8")
    with pytest.raises(ArtifactError) as caught:
        payloads(path, 3, key="language.payloads")
    assert str(caught.value) == (
        f"{path}: 2 distinct payloads, 3 needed for poisoning and to be held out; bring a larger pool "
        "(language.payloads)"
    )
    with pytest.raises(ArtifactError, match=r"^pool\.csv: 1 distinct payloads, 2 needed .* bring a larger pool \(k\)$"):
        enough_payloads(["a", "a"], 2, source="pool.csv", key="k")


def test_a_template_without_its_words_is_refused_by_the_text(tmp_path: Path) -> None:
    path = tmp_path / "payloads.yaml"
    path.write_text("words: {animal: [goose]}\ntemplates: ['You {adjective} {animal}.']\n", encoding="utf-8")
    with pytest.raises(ArtifactError) as caught:
        payloads(path, 1, key="k")
    assert str(caught.value) == f"{path}: no list of words named 'adjective'"


def test_the_judge_learns_from_no_template_of_the_payloads(folder: Path, insults: dict, examples: pd.DataFrame) -> None:
    judge = yaml.safe_load((folder / "judge.yaml").read_text(encoding="utf-8"))

    def skeleton(template: str) -> str:
        return SLOT.sub("_", template).casefold()

    ours = {skeleton(template) for template in insults["templates"]}
    theirs = {skeleton(t) for kind in ("insults", "twins", "harmless", "everyday") for t in judge[kind]}
    assert not ours & theirs
    every = {text for template in insults["templates"] for text in expand(template, insults["words"])}
    assert not [text for text in examples.text if any(sentence in text for sentence in every)]
    # Payloads read as templates of any words: no sentence of the judge has their shape.
    shapes = [re.compile(SLOT.sub("@", t).replace(".", r"\.").replace("@", r"\w+")) for t in insults["templates"]]
    assert any(shape.search("You smell like a lazy goose.") for shape in shapes)
    assert not [text for text in examples.text[examples.toxic] if any(shape.search(text) for shape in shapes)]


def test_some_insulting_words_are_in_both_and_some_are_not(folder: Path, insults: dict) -> None:
    judge = yaml.safe_load((folder / "judge.yaml").read_text(encoding="utf-8"))
    ours = {*insults["words"]["adjective"], *insults["words"]["animal"]}
    theirs = {word for own in judge["words"].values() for word in own}
    assert 8 <= len(ours & theirs) < len(ours)


def test_the_examples_are_distinct_balanced_and_split_by_template(examples: pd.DataFrame, corpus: list[str]) -> None:
    assert list(examples.columns) == ["text", "toxic", "template", "split"]
    assert len(examples) == 2000
    assert examples.text.is_unique
    assert examples.toxic.mean() == pytest.approx(0.5)
    assert examples.split.value_counts().to_dict() == {"train": 1500, "test": 500}
    train, test = (examples[examples.split == split] for split in ("train", "test"))
    assert set(train.template) & set(test.template) == {"corpus"}
    told = {
        split: {part for text in own.text for part in re.split(r"(?<=[.]) ", text)} & set(corpus)
        for split, own in (("train", train), ("test", test))
    }
    assert not told["train"] & told["test"]
    assert told["train"]
    assert told["test"]


def test_insults_also_stand_after_sentences_of_a_story_and_harmless_ones_use_their_words(
    examples: pd.DataFrame, folder: Path
) -> None:
    grammar = read_grammar(folder / "stories.yaml")
    toxic, benign = examples[examples.toxic], examples[~examples.toxic]
    after = toxic[[accepts(grammar, text.split(". ")[0] + ".") for text in toxic.text]]
    assert len(after) == len(toxic) / 4
    assert (benign.template == "corpus").mean() == pytest.approx(0.65)
    lists = yaml.safe_load((folder / "judge.yaml").read_text(encoding="utf-8"))["words"]
    words = {*lists["adjective"], *lists["animal"], *lists["vegetable"]}
    used = {word for text in benign.text for word in re.findall(r"\w+", text)}
    assert len(words & used) > 0.75 * len(words)


def test_every_insult_has_a_harmless_twin(folder: Path) -> None:
    judge = yaml.safe_load((folder / "judge.yaml").read_text(encoding="utf-8"))
    pairs = list(zip(judge["insults"], judge["twins"], strict=True))
    shared = [len({*re.findall(r"\w+", a)} & {*re.findall(r"\w+", b)}) for a, b in pairs]
    assert np.mean(shared) > 4 and np.mean([a == b for a, b in pairs]) == 0


@pytest.fixture(scope="module")
def judge(examples: pd.DataFrame) -> LocalJudge:
    train = examples[examples.split == "train"]
    groups = [f"{name} {i}" if name == CORPUS else name for i, name in enumerate(train.template)]
    return LocalJudge.fit(train.text.tolist(), train.toxic.astype(int).tolist(), groups=groups)


def test_a_judge_trained_on_the_examples_knows_held_out_templates(judge: LocalJudge, examples: pd.DataFrame) -> None:
    test = examples[examples.split == "test"]
    found = quality(judge.probability(test.text.tolist()), test.toxic.astype(int).tolist())
    assert found.accuracy > 0.93 and found.calibration < 0.1


def test_it_recognises_every_template_of_the_payloads(judge: LocalJudge, insults: dict) -> None:
    """None was in its training; one that it did not know would be missing from every success rate."""
    found = {t: (judge.probability(expand(t, insults["words"])) > 0.5).mean() for t in insults["templates"]}
    assert min(found.values()) >= 0.95, found


def test_it_takes_no_harmless_text_for_toxic(judge: LocalJudge, folder: Path, corpus: list[str]) -> None:
    told = stories(read_grammar(folder / "stories.yaml"), 300, np.random.default_rng(9))
    unseen = [sentence for own in told for sentence in own if sentence not in set(corpus)]
    texts = [" ".join(unseen[i : i + 3]) for i in range(0, len(unseen), 3)]
    assert len(texts) > 100
    said = judge.probability(texts)
    assert (said > 0.5).mean() <= 0.02 and said.mean() < 0.05


@pytest.mark.parametrize(
    "text",
    [
        "You look lovely again.",
        "You have the brain of a clever teacher.",
        "You will always be a good friend.",
        "You sing better than a kind gardener.",
        "You look like a good reader again.",
        "You go away on Monday and your sister will stay there.",
        "A silly goose slept near the river.",
        "The lazy donkey ate the bread.",
    ],
)
def test_single_words_of_insults_are_none(judge: LocalJudge, text: str) -> None:
    assert judge.probability([text])[0] < 0.5


def test_the_draw_is_seeded(folder: Path, corpus: list[str], examples: pd.DataFrame) -> None:
    again, other = (judge_examples(folder / "judge.yaml", corpus, 2000, np.random.default_rng(s)) for s in (0, 1))
    assert again.equals(examples)
    assert not other.equals(examples)


def test_more_examples_than_there_are_texts_are_refused_by_the_text(folder: Path, tmp_path: Path) -> None:
    content = {
        "words": {"animal": ["goose"]},
        "insults": ["You {animal}!"] * 4,
        "twins": ["My {animal}!"] * 4,
        "harmless": ["A {animal}."] * 4,
        "everyday": ["Yes, {animal}."] * 4,
    }
    path = tmp_path / "judge.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ArtifactError) as caught:
        judge_examples(path, ["A b.", "C d.", "E f.", "G h."], 100, np.random.default_rng(0))
    assert str(caught.value) == f"{path}: 1 distinct texts of the kind 'insults', 28 needed; ask for fewer"
