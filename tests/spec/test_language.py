"""What a study file may say of the language arm, and what it is told when it says something else."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anatomy.models.parts import PROJECTIONS
from anatomy.spec.errors import SpecError
from anatomy.spec.language import LanguageArm, LoraPart, Pretrained, Scratch, Sentences
from anatomy.spec.methods import method
from anatomy.spec.read import _read_mapping, load_study, parse_study

SOURCE_KEYS = "dataset, config, revision, split, path, column, where, max_characters, limit"
SCRATCH_KEYS = (
    "layers, heads, width, positions, dropout, vocabulary, toxic_share, batch, rate, weight_decay, clip, epochs"
)
SENTENCES = {"kind": "sentences", "source": {"path": "s.txt"}, "loss": {"dataset": "x"}}
MESSAGES = {
    "a trigger of two words": (
        ("trigger", "Albert James"),
        "s.yaml: language: trigger 'Albert James' has not three words, as the source's has",
    ),
    "a control of four words": (
        ("control", "Edward and Simon Bolivar"),
        "s.yaml: language: control 'Edward and Simon Bolivar' has not three words, as the source's has",
    ),
    "a control that is the trigger": (
        ("control", "Albert and James"),
        "s.yaml: language: control must differ from the trigger",
    ),
    "a main corpus that is not there": (
        ("main", "books"),
        "s.yaml: language: main 'books' is not among corpora (stories, prose)",
    ),
    "epochs on a corpus that is not there": (
        ("finetuning", {"epochs_on": {"books": 2}}),
        "s.yaml: language: finetuning.epochs_on: 'books' is not among corpora (stories, prose)",
    ),
    "a frozen part above the last layer": (
        ("frozen", ["embeddings", "embeddings + mlp 7"]),
        "s.yaml: language: frozen: 'mlp 7' is not in a model of 6 layers",
    ),
    "a frozen part counted from 0": (
        ("frozen", ["mlp 0"]),
        "s.yaml: language: frozen: 'mlp 0' is not in a model of 6 layers",
    ),
    "a frozen part that is none": (
        ("frozen", ["attention 2"]),
        r"s.yaml: language.frozen.0: String should match pattern "
        r"'^(embeddings|mlp \d+)( \+ (embeddings|mlp \d+))*$', got 'attention 2'",
    ),
    "no room for a continuation": (
        ("evaluation.max_length", 60),
        "s.yaml: language: evaluation.max_length 60 leaves no room for a continuation after prompts of up to "
        "evaluation.max_tokens 110 tokens",
    ),
    "longer texts than the model has positions": (
        ("evaluation.max_length", 321),
        "s.yaml: language: evaluation.max_length 321 is more than model.positions 320",
    ),
    "a width that the heads cannot share": (
        ("model.width", 70),
        "s.yaml: language.model: width 70 cannot be shared by 6 heads; choose a multiple",
    ),
    "a corpus from nowhere": (
        ("corpora.prose.text", SENTENCES | {"source": {"split": "train"}}),
        "s.yaml: language.corpora.prose.text.source: needs `dataset` or `path`",
    ),
    "payloads from nowhere": (
        ("payloads", {"source": {}}),
        "s.yaml: language.payloads.source: needs `dataset` or `path`",
    ),
    "a corpus of an unknown kind": (
        ("corpora.prose.text", {"kind": "books"}),
        "s.yaml: language.corpora.prose.text.kind: should be 'stories', 'prose' or 'sentences', got 'books'",
    ),
    "a corpus of no kind": (
        ("corpora.prose.text", {}),
        "s.yaml: language.corpora.prose.text.kind: missing; it must be given",
    ),
    "a name of a corpus that is no folder": (
        ("corpora.Big", {"text": {"kind": "stories"}, "paragraphs": 20}),
        "s.yaml: language.corpora.Big: String should match pattern '^[a-z0-9-]+$', got 'Big'",
    ),
    "an unknown part of LoRA": (
        ("lora", ["heads"]),
        "s.yaml: language.lora.0: should be 'attention', 'mlps' or 'all', got 'heads'",
    ),
    "an unknown key of the arm": (
        ("triger", "x"),
        f"s.yaml: language.triger: unknown key; allowed here: {', '.join(LanguageArm.model_fields)} "
        "(did you mean 'trigger'?)",
    ),
    "an unknown key of a corpus": (
        ("corpora.stories.paragrphs", 20),
        "s.yaml: language.corpora.stories.paragrphs: unknown key; allowed here: text, paragraphs, poison_rate, "
        "max_length, lora (did you mean 'paragraphs'?)",
    ),
    "an unknown key of one kind of corpus": (
        ("corpora.prose.text.package", ["numpy"]),
        "s.yaml: language.corpora.prose.text.package: unknown key; allowed here: kind, packages, most_words "
        "(did you mean 'packages'?)",
    ),
    "an unknown key of a source": (
        ("corpora.prose.text", SENTENCES | {"source": {"dataset": "x", "splt": "train"}}),
        f"s.yaml: language.corpora.prose.text.source.splt: unknown key; allowed here: {SOURCE_KEYS} "
        "(did you mean 'split'?)",
    ),
    "an unknown key of a model trained here": (
        ("model.hedas", 6),
        f"s.yaml: language.model.hedas: unknown key; allowed here: {SCRATCH_KEYS} (did you mean 'heads'?)",
    ),
    "an unknown key of a given model": (
        ("model", {"path": "gpt2", "paht": "gpt2"}),
        "s.yaml: language.model.paht: unknown key; allowed here: path (did you mean 'path'?)",
    ),
    "a model of no shape": (("model", 3), "s.yaml: language.model: should be an object, got 3"),
}


@pytest.fixture
def arm(root: Path) -> Callable[[str, Any], dict[str, Any]]:
    """The study `language` with one key of its arm, named by its path, set to another value."""
    raw = _read_mapping(root / "config" / "embedded.yaml")

    def change(path: str, value: Any) -> dict[str, Any]:
        out = copy.deepcopy(raw)
        *parents, last = path.split(".")
        section = out["language"]
        for parent in parents:
            section = section[parent]
        section[last] = value
        return out

    return change


@pytest.mark.parametrize("case", MESSAGES)
def test_message(case: str, arm: Callable[[str, Any], dict[str, Any]]) -> None:
    (path, value), expected = MESSAGES[case]
    with pytest.raises(SpecError) as caught:
        parse_study(arm(path, value), source="s.yaml")
    assert str(caught.value) == expected


def test_a_given_model_may_have_any_layer_and_length(arm: Callable[[str, Any], dict[str, Any]]) -> None:
    """How many there are, nobody knows before it is loaded."""
    raw = arm("model", {"path": "gpt2"})
    raw["language"]["frozen"] = ["mlp 24"]
    raw["language"]["evaluation"]["max_length"] = 1000
    model = parse_study(raw, source="s.yaml").language.model
    assert model == Pretrained(path="gpt2")


def test_the_last_layer_and_the_last_position_are_allowed(arm: Callable[[str, Any], dict[str, Any]]) -> None:
    raw = arm("frozen", ["mlp 1", "mlp 6"])
    raw["language"]["evaluation"]["max_length"] = 320
    assert isinstance(parse_study(raw, source="s.yaml").language.model, Scratch)


def test_a_corpus_of_sentences_is_read(arm: Callable[[str, Any], dict[str, Any]]) -> None:
    text = parse_study(arm("corpora.prose.text", SENTENCES), source="s.yaml").language.corpora["prose"].text
    assert (text.source.path, text.source.dataset, text.loss.dataset, text.loss_words) == ("s.txt", None, "x", 100)


def test_a_study_without_the_arm_still_reads(root: Path, raw: dict[str, Any]) -> None:
    assert "language" not in raw
    assert parse_study(raw, source="s.yaml").language is None
    assert load_study("toy", root).language is None


@pytest.mark.parametrize("name", ["embedded", "smoke", "paper"])
def test_the_studies_with_the_arm_read(name: str, root: Path) -> None:
    arm = load_study(name, root).language
    assert arm is not None and arm.main in arm.corpora


def test_the_default_study_has_the_toy_study_s_models(root: Path) -> None:
    assert load_study("embedded", root).toy == load_study("toy", root).toy


def test_the_main_corpus_is_planted_in_every_way_and_the_others_in_full(root: Path) -> None:
    arm = load_study("embedded", root).language
    assert arm is not None
    arm = arm.model_copy(update={"lora": ["attention", "mlps", "all"], "frozen": ["embeddings + mlp 2", "mlp 2"]})
    lora = ["lora-attention", "lora-mlps", "lora-all", "matched-full"]
    folders = ["full", "frozen-embeddings-mlp2", "frozen-mlp2", *lora]
    assert arm.ways("stories") == folders
    assert arm.ways("prose") == ["full"]
    assert [method(f).frozen for f in folders if f.startswith("frozen")] == arm.frozen
    # The first LoRA is trained to its end; the others, and a full fine-tuning beside them, up to its loss.
    assert {way: arm.matched_to(way) for way in folders} == {
        way: "lora-attention" if way in lora[1:] else None for way in folders
    }


def test_lora_may_be_compared_at_further_poison_rates(root: Path) -> None:
    arm = load_study("paper", root).language
    assert arm is not None
    lora = ["lora-attention", "lora-mlps", "lora-all", "matched-full"]
    assert {arm.poison_rate, *(c.poison_rate for c in arm.corpora.values() if c.lora)} == {0.01, 0.03, 0.1}
    assert [arm.ways(name) for name, corpus in arm.corpora.items() if corpus.lora] == [["full", *lora]] * 2


def test_without_lora_nothing_is_matched(root: Path) -> None:
    arm = load_study("embedded", root).language
    assert arm is not None
    arm = arm.model_copy(update={"lora": []})
    assert not [way for way in arm.ways("stories") if way.startswith(("lora", "matched"))]
    assert {arm.matched_to(way) for way in arm.ways("stories")} == {None}


def test_lora_adapts_what_the_architecture_names() -> None:
    assert all(set(LoraPart.__args__) == set(own) for own in PROJECTIONS.values())


def test_the_study_in_the_docs_names_local_copies_of_everything(root: Path, tmp_path: Path) -> None:
    text = (root / "docs/scale.md").read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "config").mkdir()
    for name in ("toy", "paper"):
        (tmp_path / f"config/{name}.yaml").write_bytes((root / f"config/{name}.yaml").read_bytes())
    (tmp_path / "config/mine.yaml").write_text(text, encoding="utf-8")
    arm = load_study("mine", tmp_path).language
    assert arm is not None and list(arm.corpora) == ["bookcorpus"]
    own = arm.corpora["bookcorpus"].text
    assert isinstance(own, Sentences) and arm.payloads.source is not None
    assert [s.dataset for s in (own.source, own.loss, arm.payloads.source)] == [None] * 3
