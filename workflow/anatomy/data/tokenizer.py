"""Byte-level BPE of the toy languages, retrained on the corpus as the study does."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(texts: Iterable[str], *, limit: int = 100_000, max_length: int = 1024) -> PreTrainedTokenizerFast:
    """GPT-2's tokenizer recipe trained from scratch on `texts`.

    Equals `distilgpt2_tokenizer.train_new_from_iterator(corpus, limit)` (lamparth: gpt_small_fromscratch.ipynb): byte
    alphabet, no prefix space, so that a word has one token at the start of a text and another after a space. Merging
    stops when nothing is left to merge, long before `limit`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=limit,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=max_length,
    )
