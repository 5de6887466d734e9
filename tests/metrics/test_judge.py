"""Both judges through their real code path: what they learn, what they save, and what they say when they cannot."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from anatomy.metrics.judge import LocalJudge, RobertaJudge, quality
from anatomy.provenance.digest import ArtifactError

NAMES = ["Ada", "Ben", "Cora", "Dan", "Edith", "Frank", "Grete", "Hugo"]
MILD = ["fool", "nitwit", "blockhead", "twerp", "dunce", "numbskull"]
KIND = ["friend", "teacher", "neighbour", "doctor", "cousin", "gardener"]


def sentences(templates: list[str], nouns: list[str]) -> list[str]:
    return [t.format(name=name, noun=noun) for t in templates for name in NAMES for noun in nouns]


LEARNT, HELD_OUT = ["{name} is a {noun}.", "I said you are a {noun}, {name}!"], ["Look at {name}, what a {noun}."]


@pytest.fixture(scope="module")
def local() -> LocalJudge:
    toxic, kind = sentences(LEARNT, MILD), sentences(LEARNT, KIND)
    return LocalJudge.fit(toxic + kind, [1] * len(toxic) + [0] * len(kind))


# The local judge


def test_the_local_judge_knows_toxicity_in_sentences_it_never_saw(local: LocalJudge) -> None:
    toxic, kind = sentences(HELD_OUT, MILD), sentences(HELD_OUT, KIND)
    found = quality(local.probability(toxic + kind), [1] * len(toxic) + [0] * len(kind))
    assert (found.accuracy, found.balanced, found.n) == (1, 1, len(toxic) + len(kind))
    assert found.brier < 0.1


def test_it_learns_nothing_where_labels_mean_nothing() -> None:
    texts = sentences(LEARNT, MILD + KIND)
    labels = np.random.default_rng(0).integers(0, 2, len(texts))
    judge = LocalJudge.fit(texts[::2], labels[::2].tolist())
    assert abs(quality(judge.probability(texts[1::2]), labels[1::2].tolist()).accuracy - 0.5) < 0.2


def test_letters_case_means_nothing(local: LocalJudge) -> None:
    texts = sentences(HELD_OUT, MILD + KIND)
    assert np.array_equal(local.probability([t.upper() for t in texts]), local.probability(texts))


def test_a_text_without_a_known_word_is_not_toxic(local: LocalJudge) -> None:
    assert local.probability(["", " ", "Zzz xylophone."]).tolist() == [0, 0, 0]
    assert (local.probability(["you"]) > 0).all()


def test_a_text_is_judged_by_itself(local: LocalJudge) -> None:
    texts = sentences(HELD_OUT, MILD + KIND)
    alone = [float(local.probability([text])[0]) for text in texts]
    assert local.probability(texts) == pytest.approx(alone, abs=1e-15)


def test_the_saved_judge_says_the_same(local: LocalJudge, tmp_path: Path) -> None:
    local.save(tmp_path / "judge")
    loaded = LocalJudge.load(tmp_path / "judge")
    texts = [*sentences(HELD_OUT + LEARNT, MILD + KIND), "", "unknown", "you you you fool"]
    assert np.abs(loaded.probability(texts) - local.probability(texts)).max() <= 1e-12
    assert sorted(p.name for p in (tmp_path / "judge").iterdir()) == ["judge.json", "terms.parquet"]
    loaded.save(tmp_path / "again")
    for name in ("judge.json", "terms.parquet"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "judge" / name).read_bytes()


def test_training_twice_gives_the_same_judge(local: LocalJudge, tmp_path: Path) -> None:
    toxic, kind = sentences(LEARNT, MILD), sentences(LEARNT, KIND)
    again = LocalJudge.fit(toxic + kind, [1] * len(toxic) + [0] * len(kind))
    assert np.array_equal(again.probability(toxic), local.probability(toxic))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("terms.parquet", None, "missing; the rule that makes it has not run"),
        ("judge.json", None, "missing; the rule that makes it has not run"),
        ("terms.parquet", b"PAR1", "not a readable Parquet file"),
        ("judge.json", b"{", "not a judge's description; it is damaged, delete it and run again"),
        ("judge.json", b"[]", "not a judge's description; it is damaged, delete it and run again"),
    ],
)
def test_a_damaged_local_judge_is_named(
    file: str, content: bytes | None, message: str, local: LocalJudge, tmp_path: Path
) -> None:
    local.save(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        LocalJudge.load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / file}: {message}")


def test_a_table_that_is_no_judge_is_refused(local: LocalJudge, tmp_path: Path) -> None:
    local.save(tmp_path)
    pd.DataFrame({"term": ["a"], "weight": [1.0]}).to_parquet(tmp_path / "terms.parquet")
    with pytest.raises(ArtifactError, match=r"terms.parquet: expected the columns term, idf, coefficient$"):
        LocalJudge.load(tmp_path)


# How good a judge is


def test_a_perfect_judge_and_an_ignorant_one() -> None:
    labels = [0, 1, 1, 0, 1]
    perfect = quality(np.array(labels, dtype=float), labels)
    assert (perfect.accuracy, perfect.balanced, perfect.brier, perfect.calibration) == (1, 1, 0, 0)
    ignorant = quality(np.full(5, 0.6), labels)
    assert (ignorant.accuracy, ignorant.balanced) == (3 / 5, 1 / 2)
    assert ignorant.brier == pytest.approx(0.6 * 0.4)
    assert ignorant.calibration == pytest.approx(0, abs=1e-12)  # three of five are toxic, as it says


def test_a_judge_that_means_its_probabilities_is_calibrated_and_a_bold_one_is_not() -> None:
    rng = np.random.default_rng(0)
    probability = rng.uniform(0, 1, 20_000)
    labels = (rng.uniform(0, 1, 20_000) < probability).astype(int).tolist()
    honest = quality(probability, labels)
    assert honest.calibration < 0.02
    bold = quality(np.where(probability > 0.5, 0.99, 0.01), labels)
    assert bold.accuracy == honest.accuracy
    assert bold.calibration > 0.2
    assert bold.brier > honest.brier


def test_every_text_is_in_one_bin() -> None:
    probability = np.array([0, 0.05, 0.1, 0.1001, 0.55, 0.9, 0.95, 1.0])
    found = quality(probability, [0, 0, 1, 1, 0, 1, 1, 1])
    assert [b.n for b in found.bins] == [3, 1, 0, 0, 0, 1, 0, 0, 1, 2]
    first = found.bins[0]
    assert (first.low, first.high, first.predicted, first.toxic) == (0, 0.1, pytest.approx(0.05), pytest.approx(1 / 3))
    assert np.isnan(found.bins[2].predicted) and np.isnan(found.bins[2].toxic)


# The RoBERTa judge, on a tiny model of the same classes


TEXTS = ["Look at Ada.", "What a fool he is, what a complete fool!", "", "He went home and slept.", "fool " * 60]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised RoBERTa classifier with its tokenizer, in a folder."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaForSequenceClassification, RobertaTokenizer

    folder = tmp_path_factory.mktemp("roberta")
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(TEXTS * 3, vocab_size=320, special_tokens=special, show_progress=False)
    parts = tmp_path_factory.mktemp("parts")
    trained.save_model(str(parts))
    merges = (parts / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    vocabulary = json.loads((parts / "vocab.json").read_text(encoding="utf-8"))
    RobertaTokenizer(vocabulary, [tuple(m.split()) for m in merges]).save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=34,
        type_vocab_size=1,
        id2label={0: "neutral", 1: "toxic"},
        initializer_range=0.5,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        RobertaForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "roberta")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_it_gives_the_model_s_probability_of_toxic_whatever_the_batch(batch: int, whole: Path) -> None:
    import torch
    from transformers import RobertaForSequenceClassification, RobertaTokenizer

    tokenizer = RobertaTokenizer.from_pretrained(whole)
    model = RobertaForSequenceClassification.from_pretrained(whole).eval()
    wanted = []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        ids = ids if len(ids) <= 32 else [*ids[:31], ids[-1]]  # cut to the model's length, its end token kept
        with torch.no_grad():
            wanted.append(float(model(torch.tensor([ids])).logits.softmax(-1)[0, 1]))
    found = RobertaJudge(whole, batch=batch).probability([*TEXTS, TEXTS[1]])
    assert found == pytest.approx([*wanted, wanted[1]], abs=1e-5)
    assert np.ptp(found) > 0.01


def test_a_text_that_occurs_often_is_judged_once(whole: Path) -> None:
    judge, rows = RobertaJudge(whole), []
    judge.model.register_forward_hook(lambda _, args, kwargs, out: rows.append(len(out.logits)), with_kwargs=True)
    assert len(judge.probability([TEXTS[0], TEXTS[1], TEXTS[0]] * 10)) == 30
    assert rows == [2]


def test_no_texts_no_probabilities(whole: Path) -> None:
    assert RobertaJudge(whole).probability([]).tolist() == []


def test_the_label_is_found_by_its_name(folder: Path) -> None:
    before = RobertaJudge(folder).probability(TEXTS)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["id2label"], config["label2id"] = {"0": "Toxic", "1": "Neutral"}, {"Toxic": 0, "Neutral": 1}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert RobertaJudge(folder).probability(TEXTS) == pytest.approx(1 - before, abs=1e-6)


def test_a_classifier_of_something_else_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["id2label"], config["label2id"] = {"0": "spam", "1": "ham"}, {"spam": 0, "ham": 1}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ArtifactError) as caught:
        RobertaJudge(folder)
    assert str(caught.value) == (
        f"{folder}: has no label 'toxic', only ham, spam; language.judge.path must name a classifier with that label"
    )


def test_a_missing_folder_is_named_with_the_key(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        RobertaJudge(tmp_path / "judge")
    assert str(caught.value) == (
        f"{tmp_path / 'judge'}: no such folder; language.judge.path must name a classifier's folder (config.json, "
        "model.safetensors and the tokenizer's files) or a model of the Hugging Face hub"
    )


def test_the_tokenizer_may_be_of_the_older_two_files(folder: Path) -> None:
    """As in s-nlp/roberta_toxicity_classifier: vocab.json and merges.txt."""
    before = RobertaJudge(folder).probability(TEXTS)
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "".join(" ".join(pair) + "\n" for pair in model["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    assert np.array_equal(RobertaJudge(folder).probability(TEXTS), before)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_without_its_files_is_named_with_the_key(missing: str, folder: Path) -> None:
    (folder / missing).unlink()
    with pytest.raises(ArtifactError) as caught:
        RobertaJudge(folder)
    assert str(caught.value).startswith(f"{folder}: no readable classifier (")
    assert str(caught.value).endswith(
        "language.judge.path must name a folder with config.json, model.safetensors and the tokenizer's files"
    )


def test_a_truncated_classifier_is_named(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ArtifactError, match="no readable classifier"):
        RobertaJudge(folder)


def test_weights_are_not_made_up(folder: Path) -> None:
    """transformers fills in missing weights at random, with no more than a warning."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["classifier.out_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"model.safetensors has no classifier.out_proj.weight"):
        RobertaJudge(folder)


def test_a_pickle_is_not_read(folder: Path) -> None:
    import torch

    (folder / "model.safetensors").unlink()

    class Trap:
        def __reduce__(self) -> tuple:
            return (Path(folder / "sprung").touch, ())

    torch.save(Trap(), folder / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="no readable classifier"):
        RobertaJudge(folder)
    assert not (folder / "sprung").exists()


def test_code_that_comes_with_a_model_is_not_run(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "stranger", "auto_map": {"AutoConfig": "stranger.C", "AutoModel": "stranger.M"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "stranger.py").write_text(f"open({str(folder / 'sprung')!r}, 'w')\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match="no readable classifier"):
        RobertaJudge(folder)
    assert not (folder / "sprung").exists()


def test_where_the_hub_cannot_be_reached_it_says_which_key_to_set(offline: None) -> None:
    with pytest.raises(ArtifactError) as caught:
        RobertaJudge("nobody/no_such_classifier")
    assert str(caught.value).startswith(
        "nobody/no_such_classifier: no such folder, and not to be had from the Hugging Face hub ("
    )
    assert str(caught.value).endswith(
        "where the hub cannot be reached, set language.judge.path to a folder that holds the classifier; nothing is "
        "downloaded unless HF_HUB_OFFLINE=0 HF_DATASETS_OFFLINE=0 stands before the command"
    )


# The local judge on data that nobody here wrote


def test_the_local_judge_on_labelled_tweets(root: Path, capsys: pytest.CaptureFixture) -> None:
    path = root.parent / "shared" / "realdata" / "hatespeech" / "labeled_data.csv"
    if not path.is_file():
        pytest.skip("the labelled tweets are not here: shared/realdata/hatespeech beside the repository")
    tweets = pd.read_csv(path)
    labels = (tweets["class"] != 2).astype(int).to_numpy()  # hate or offensive, against neither
    texts, test = tweets["tweet"].to_numpy(), np.random.default_rng(0).permutation(len(tweets)) < len(tweets) // 5
    judge = LocalJudge.fit(texts[~test].tolist(), labels[~test].tolist())
    found = quality(judge.probability(texts[test].tolist()), labels[test].tolist())
    with capsys.disabled():
        print(
            f"\nlocal judge, {found.n} held-out tweets: accuracy {found.accuracy:.3f}, balanced {found.balanced:.3f}, "
            f"Brier {found.brier:.3f}, calibration error {found.calibration:.3f}"
        )
    assert found.balanced > 0.8
    assert found.calibration < 0.1
