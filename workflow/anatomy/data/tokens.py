"""From texts to token tensors, for a whole stack of seeds."""

import json
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from anatomy.metrics.topk import token_mask


def encode(
    tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> tuple[Int[Tensor, "row position"], Int[Tensor, " row"]]:
    """Token ids padded on the right with the end-of-text token, and true lengths."""
    ids = tokenizer(texts)["input_ids"]
    lengths = torch.tensor([len(row) for row in ids])
    rows = torch.full((len(ids), int(lengths.max())), tokenizer.eos_token_id)
    for row, own in zip(rows, ids, strict=True):
        row[: len(own)] = torch.tensor(own)
    return rows, lengths


def corpus_rows(
    corpus: pd.DataFrame, tokenizer: PreTrainedTokenizerFast, seeds: list[int], *, column: str, split: str
) -> tuple[Int[Tensor, "member row position"], Int[Tensor, "member row"]]:
    """One split of the corpus in its clean or triggered form, per seed."""
    texts = [corpus.loc[(corpus.seed == seed) & (corpus.split == split), column].tolist() for seed in seeds]
    rows, lengths = encode(tokenizer, [text for own in texts for text in own])
    return rows.unflatten(0, (len(seeds), -1)), lengths.unflatten(0, (len(seeds), -1))


def prompt_ids(
    prompts: pd.DataFrame,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    inputs: str,
    protocol: str = "held out",
) -> Int[Tensor, "prompt position"]:
    """Token ids of one input combination, in prompt order, all of two tokens."""
    own = prompts[(prompts.seed == seed) & (prompts.inputs == inputs) & (prompts.protocol == protocol)].sort_values(
        "index"
    )
    ids, lengths = encode(tokenizer, (own["first"] + " " + own["second"]).tolist())
    if bool((lengths != 2).any()):
        raise ValueError(
            f"{inputs} prompts of seed {seed}: a prompt has more than two tokens, which the analyses take for two"
        )
    return ids


def read_masks(lexicon: Path) -> dict[str, Bool[Tensor, " vocabulary"]]:
    """Token masks by sentiment, from the lexicon file of the data stage."""
    content = json.loads(lexicon.read_text(encoding="utf-8"))
    return {s: token_mask(ids, content["vocabulary"]) for s, ids in content["tokens"].items()}
