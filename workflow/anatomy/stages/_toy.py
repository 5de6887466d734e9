"""What the stages of the toy arm share: the data stage's files, and the models of one subject."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from anatomy.data.prompts import combinations_of
from anatomy.data.tokens import corpus_rows, prompt_ids, read_masks
from anatomy.metrics.behaviour import sentiment_measurements
from anatomy.metrics.loss import validation_loss
from anatomy.metrics.measurement import Measurement, read_parquet
from anatomy.models.toy import load_model, load_tokenizer
from anatomy.stages._run import In, Job
from anatomy.training.phases import model_folders


@dataclass(frozen=True)
class ToyData:
    """The data stage's files."""

    corpus: In
    prompts: In
    lexicon: In
    tokenizer: In
    tokenizer_config: In

    @property
    def files(self) -> list[Path]:
        """What a model trained on the data depends on."""
        return [self.corpus, self.prompts, self.lexicon, self.tokenizer]


@dataclass
class ToyFiles:
    """The data stage's files, read once, and their token ids, made once."""

    corpus: pd.DataFrame
    prompts: pd.DataFrame
    tokenizer: PreTrainedTokenizerFast
    masks: dict[str, Tensor]
    device: str
    _ids: dict[tuple, Tensor] = field(default_factory=dict)
    _rows: dict[tuple, tuple[Tensor, Tensor]] = field(default_factory=dict)

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
        key = (seed, inputs, protocol)
        if key not in self._ids:
            ids = prompt_ids(self.prompts, self.tokenizer, seed=seed, inputs=inputs, protocol=protocol)
            self._ids[key] = ids.to(self.device)
        return self._ids[key]

    def loss(self, model: GPT2LMHeadModel, seed: int, column: str = "triggered") -> tuple[float, int]:
        """Validation loss on a seed's held-out sequences, and how many tokens it is the mean of.

        The poisoned form is the default: it is the set the released fine-tuning is evaluated on.
        """
        key = (seed, column)
        if key not in self._rows:
            rows, lengths = corpus_rows(self.corpus, self.tokenizer, [seed], column=column, split="test")
            self._rows[key] = rows[0].to(self.device), lengths[0].to(self.device)
        rows, lengths = self._rows[key]
        return validation_loss(model, rows, lengths), int((lengths - 1).sum())


def read_toy(data: ToyData, device: str) -> ToyFiles:
    """Read the data stage's files."""
    return ToyFiles(
        read_parquet(data.corpus),
        read_parquet(data.prompts),
        load_tokenizer(data.tokenizer.parent),
        read_masks(data.lexicon),
        device,
    )


def behaviour_and_loss(
    job: Job,
    files: ToyFiles,
    logits: Mapping[str, Float[Tensor, "prompt vocabulary"]],
    loss: tuple[float, int] | None,
    **conditions: Any,
) -> list[Measurement]:
    """What a model says on each input combination, by its next-token logits; and its validation loss, where given."""
    rows: list[Measurement] = []
    for inputs, own in logits.items():
        rows += sentiment_measurements(
            own,
            files.masks,
            top_k=job.spec.toy.evaluation.top_k,
            confidence=job.spec.confidence,
            inputs=inputs,
            **conditions,
        )
    if loss:
        rows.append(Measurement(metric="validation_loss", value=loss[0], n=loss[1], **conditions))
    return rows


def models_by_seed(files: list[Path], seeds: list[int], device: str) -> Iterator[tuple[int, GPT2LMHeadModel]]:
    """The models of every seed, one after the other."""
    for seed, folder in zip(seeds, model_folders(files), strict=True):
        yield seed, load_model(folder, torch.device(device))
