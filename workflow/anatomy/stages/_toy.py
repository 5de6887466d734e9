"""What the measuring stages of the toy arm share: the models of one subject with their prompts and test rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from anatomy.data.prompts import combinations_of
from anatomy.data.tokens import corpus_rows, prompt_ids, read_masks
from anatomy.metrics.loss import validation_loss
from anatomy.metrics.measurement import read_parquet
from anatomy.models.toy import load_model, load_tokenizer
from anatomy.training.phases import model_folders


@dataclass(frozen=True)
class ToyFiles:
    """The data stage's files, read once."""

    corpus: pd.DataFrame
    prompts: pd.DataFrame
    tokenizer: PreTrainedTokenizerFast
    masks: dict[str, Tensor]
    device: str

    @property
    def sentiments(self) -> list[str]:
        """The sentiments of the subject."""
        return list(self.masks)

    @property
    def combinations(self) -> list[str]:
        """The input combinations of the subject."""
        return combinations_of(self.masks)

    def ids(self, seed: int, inputs: str, protocol: str = "held out") -> Int[Tensor, "prompt position"]:
        """Token ids of one input combination of a seed."""
        return prompt_ids(self.prompts, self.tokenizer, seed=seed, inputs=inputs, protocol=protocol).to(self.device)

    def loss(self, model: GPT2LMHeadModel, seed: int, column: str = "triggered") -> tuple[float, int]:
        """Validation loss on a seed's held-out sequences, and how many tokens it is the mean of.

        The poisoned form is the default: it is the set the released fine-tuning is evaluated on.
        """
        rows, lengths = corpus_rows(self.corpus, self.tokenizer, [seed], column=column, split="test")
        rows, lengths = rows[0].to(self.device), lengths[0].to(self.device)
        return validation_loss(model, rows, lengths), int((lengths - 1).sum())


def read_toy(corpus: Path, prompts: Path, lexicon: Path, tokenizer: Path, device: str) -> ToyFiles:
    """Read the data stage's files."""
    return ToyFiles(
        read_parquet(corpus),
        read_parquet(prompts),
        load_tokenizer(tokenizer.parent),
        read_masks(lexicon),
        device,
    )


def models_by_seed(files: list[Path], seeds: list[int], device: str) -> Iterator[tuple[int, GPT2LMHeadModel]]:
    """The models of every seed, one after the other."""
    for seed, folder in zip(seeds, model_folders(files), strict=True):
        yield seed, load_model(folder, torch.device(device))
