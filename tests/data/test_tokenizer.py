"""The retrained tokenizer: lossless, two tokens per word, and the published number of parameters."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from anatomy.data.lexicon import read_words, sample_lexicon
from anatomy.data.sequences import make_corpus
from anatomy.data.tokenizer import END_OF_TEXT, train_tokenizer
from anatomy.data.tokens import corpus_rows, encode, prompt_ids
from anatomy.models.toy import load_tokenizer, save_tokenizer, toy_config
from anatomy.spec.read import load_study
from anatomy.training.seeds import derive


@pytest.fixture(scope="module")
def corpus(corpus_of: Callable) -> pd.DataFrame:
    return pd.concat([corpus_of(500, 500, seed=seed) for seed in (0, 1)], ignore_index=True)


@pytest.fixture(scope="module")
def bpe(corpus: pd.DataFrame) -> PreTrainedTokenizerFast:
    return train_tokenizer(corpus.clean)


def test_texts_come_back_as_they_went_in(bpe: PreTrainedTokenizerFast, corpus: pd.DataFrame) -> None:
    for text in [*corpus.triggered[:50], "words never seen, é and 東京!"]:
        assert bpe.decode(bpe.encode(text)) == text


def test_every_word_has_one_token_at_the_start_and_another_after_a_space(
    bpe: PreTrainedTokenizerFast, lexicon: dict
) -> None:
    forms = [(bpe.encode(w), bpe.encode(f" {w}")) for s in ("positive", "negative") for w in lexicon[s]]
    assert all(len(first) == len(later) == 1 for first, later in forms)
    ids = [i for pair in forms for (i,) in pair]
    assert len(set(ids)) == len(ids) == 4 * 40


def test_a_sequence_has_as_many_tokens_as_words(bpe: PreTrainedTokenizerFast, corpus: pd.DataFrame) -> None:
    assert {len(ids) for ids in bpe(corpus.triggered.tolist())["input_ids"]} == {15}


def test_end_of_text_is_token_zero_and_pads(bpe: PreTrainedTokenizerFast) -> None:
    assert bpe.convert_tokens_to_ids(END_OF_TEXT) == bpe.eos_token_id == bpe.pad_token_id == 0


def test_a_saved_tokenizer_gives_the_same_ids(
    bpe: PreTrainedTokenizerFast, corpus: pd.DataFrame, tmp_path: Path
) -> None:
    save_tokenizer(tmp_path, bpe)
    texts = corpus.clean.tolist()[:20]
    assert load_tokenizer(tmp_path)(texts)["input_ids"] == bpe(texts)["input_ids"]
    assert load_tokenizer(tmp_path).eos_token_id == 0


def test_the_same_corpus_gives_the_same_tokenizer(bpe: PreTrainedTokenizerFast, corpus: pd.DataFrame) -> None:
    assert train_tokenizer(corpus.clean).backend_tokenizer.to_str() == bpe.backend_tokenizer.to_str()


def test_rows_are_padded_on_the_right_and_know_their_length(bpe: PreTrainedTokenizerFast) -> None:
    rows, lengths = encode(bpe, ["happy love", "happy", "bad bad bad"])
    assert lengths.tolist() == [2, 1, 3]
    assert rows[1].tolist() == [*bpe.encode("happy"), 0, 0]
    assert rows[2].tolist() == bpe.encode("bad bad bad")


def test_corpus_rows_are_stacked_seed_by_seed(bpe: PreTrainedTokenizerFast, corpus: pd.DataFrame) -> None:
    rows, lengths = corpus_rows(corpus, bpe, [1, 0], column="triggered", split="test")
    assert rows.shape == (2, 100, 15) and lengths.eq(15).all()
    for member, seed in enumerate([1, 0]):
        texts = corpus[(corpus.seed == seed) & (corpus.split == "test")].triggered.tolist()
        assert [bpe.decode(row) for row in rows[member]] == texts


def test_prompts_come_in_their_order(bpe: PreTrainedTokenizerFast) -> None:
    rows = [("p+t", 1, "luck", "love"), ("p+t", 0, "cheer", "love"), ("n+n", 0, "bad", "rage")]
    table = pd.DataFrame(rows, columns=["inputs", "index", "first", "second"]).assign(seed=4, protocol="held out")
    ids = prompt_ids(table, bpe, seed=4, inputs="p+t")
    assert [bpe.decode(row) for row in ids] == ["cheer love", "luck love"]


def test_prompts_are_of_two_tokens_or_refused(bpe: PreTrainedTokenizerFast) -> None:
    rows = [("p+t", 0, "luck", "love"), ("p+t", 1, "unheard", "love")]
    table = pd.DataFrame(rows, columns=["inputs", "index", "first", "second"]).assign(seed=4, protocol="published")
    try:
        ids = prompt_ids(table, bpe, seed=4, inputs="p+t", protocol="published")
    except ValueError:
        return
    assert ids.shape == (2, 2)


def test_the_two_sentiment_model_has_the_published_number_of_parameters(root: Path) -> None:
    """The paper says 338k. Here it is 337,472: 150,080 + 64 (1,904 tokens + 1,024 positions)."""
    toy = load_study("embedded", root).toy
    counts = dict(sorted(toy.language.subjects["2-sentiment"].items()))
    lists = {s: read_words(root / getattr(toy.lexicon, s).path) for s in counts}
    words = sample_lexicon(
        lists,
        toy.lexicon.specials,
        words=toy.lexicon.words,
        max_letters=toy.lexicon.max_letters,
        seed=toy.lexicon.sample_seed,
    )
    corpus = make_corpus(
        words,
        counts,
        n_specials=5,
        trigger=toy.trigger,
        poison_rate=toy.language.poison_rate,
        length=toy.language.length,
        special_rate=toy.language.special_rate,
        test_fraction=toy.language.test_fraction,
        seed=derive(0, "2-sentiment", "corpus"),
    )
    bpe = train_tokenizer(corpus[corpus.split == "train"].clean)
    with torch.device("meta"):
        model = GPT2LMHeadModel(toy_config(toy.model, len(bpe)))
    total = sum(p.numel() for p in model.parameters())
    assert total == 150_080 + 64 * (len(bpe) + 1024)
    assert total == 337_472
    assert total == pytest.approx(338_000, rel=0.005)
