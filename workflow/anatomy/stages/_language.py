"""What the stages of the language arm share: the data stage's files, and the models of one corpus."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import GPT2LMHeadModel

from anatomy.data.padding import padded
from anatomy.interventions.generate import greedy
from anatomy.interventions.hooks import Edit
from anatomy.localize.language_ablation import TRACKED, language_means
from anatomy.metrics.judge import Judge, LocalJudge, RobertaJudge
from anatomy.metrics.loss import validation_loss
from anatomy.metrics.measurement import Measurement, read_parquet
from anatomy.metrics.success import specificity, success_measurements
from anatomy.models.toy import load_model, load_tokenizer
from anatomy.sites import Site
from anatomy.stages._run import In, Job
from anatomy.training.phases import model_folders
from anatomy.variants import Variant

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class LanguageData:
    """The data stage's files."""

    corpus: In
    prompts: In
    texts: In
    tokenizer: In
    tokenizer_config: In

    @property
    def files(self) -> list[Path]:
        """What a model trained on the data depends on."""
        return [self.corpus, self.tokenizer, self.tokenizer_config]


@dataclass(frozen=True)
class JudgeFiles:
    """The judge's files."""

    terms: In
    judge: In


@dataclass
class LanguageFiles:
    """The data stage's files, read once."""

    corpus: pd.DataFrame
    prompts: pd.DataFrame
    texts: pd.DataFrame
    tokenizer: "PreTrainedTokenizerFast"

    def rows(self, seed: int, column: str, split: str, *, longest: int) -> list[list[int]]:
        """Token ids of the paragraphs of a seed, "clean" or "poisoned", each with an end of text."""
        own = self.corpus[(self.corpus.seed == seed) & (self.corpus.split == split)]
        return self.encode(own[column].tolist(), longest=longest)

    def encode(self, texts: list[str], *, longest: int) -> list[list[int]]:
        """Token ids with an end of text, cut to `longest`."""
        ids = self.tokenizer(texts)["input_ids"] if texts else []
        return [[*row, self.tokenizer.eos_token_id][:longest] for row in ids]

    def asked(self, seed: int, inputs: str) -> pd.DataFrame:
        """The prompts of a seed: "trigger", "benign" or "random trigger"; "tuning ..." those that are tuned on."""
        return self.prompts[(self.prompts.seed == seed) & (self.prompts.inputs == inputs)]

    def loss(self, model: GPT2LMHeadModel, seed: int, *, device: str) -> tuple[float, int]:
        """Validation loss on the texts kept for it, and how many tokens it is the mean of."""
        own = self.texts[(self.texts.kind == "loss") & self.texts.seed.isin([seed, -1])]
        ids, lengths = padded(
            self.encode(own.text.tolist(), longest=model.config.n_positions), model.config.n_positions
        )
        value = validation_loss(model, ids.to(device), lengths.to(device), batch=16)
        return value, int((lengths - 1).sum())


def read_language(data: LanguageData) -> LanguageFiles:
    """Read the data stage's files."""
    return LanguageFiles(
        read_parquet(data.corpus),
        read_parquet(data.prompts),
        read_parquet(data.texts),
        load_tokenizer(data.tokenizer.parent),
    )


def read_judge(files: JudgeFiles, device: str) -> Judge:
    """The judge that the study trained, or the one it names."""
    described = json.loads(files.judge.read_text(encoding="utf-8"))
    if described["judge"] == "roberta":
        return RobertaJudge(described["path"], device=device)
    return LocalJudge.load(files.judge.parent)


def recipe_name(model: Any) -> str:
    """What stands beside each number: the name of the given model, or the shape of the one trained here."""
    if "path" in model:
        return Path(model.path).name
    return f"own, {model.layers} layers, {model.heads} heads, {model.width} wide"


def folders_by_seed(files: list[Path], seeds: list[int]) -> dict[int, Path]:
    """Seed -> model directory; a pretrained model is the clean model of every seed."""
    folders = model_folders(files)
    return dict(zip(seeds, folders * len(seeds) if len(folders) == 1 else folders, strict=False))


def language_models(files: list[Path], seeds: list[int], device: str) -> Iterator[tuple[int, GPT2LMHeadModel]]:
    """The models of every seed, one after the other."""
    for seed, folder in folders_by_seed(files, seeds).items():
        yield seed, load_model(folder, torch.device(device))


# ASR is the success rate after the trigger, ATR the rate without it; the control phrase is an ATR of its own.
METRICS = {"trigger": "asr", "benign": "atr", "random trigger": "atr"}


@dataclass
class Interview:
    """What one model is asked, and how its answers are judged."""

    job: Job
    files: LanguageFiles
    judge: Judge
    seed: int
    most: int | None = None  # prompts of a kind that are asked; none: all

    def prompts(self, inputs: str) -> list[list[int]]:
        """Token ids of the evaluation prompts."""
        return self.files.tokenizer(self.files.asked(self.seed, inputs).text.tolist()[: self.most])["input_ids"]

    @property
    def max_length(self) -> int:
        """Tokens of prompt and continuation together."""
        arm = self.job.spec.language
        return arm.corpora[self.job.wildcards["corpus"]].max_length or arm.evaluation.max_length

    def write(self, model: GPT2LMHeadModel, inputs: str, edits: Mapping[Site, Edit] | None = None) -> list[list[int]]:
        """The model's continuation of every prompt."""
        pad = self.files.tokenizer.eos_token_id
        return greedy(model, self.prompts(inputs), max_length=self.max_length, pad=pad, edits=edits)

    def means(
        self, model: GPT2LMHeadModel, sites: Sequence[Site], setting: str, variant: Variant
    ) -> Mapping[Site, Float[Tensor, " width"]]:
        """Mean output of each site over benign and toxic texts.

        `setting` says which: "source", the first of the training data as in the source; "held out", others.
        """
        wanted, split = self.job.spec.language.ablation, "train" if setting == "source" else "test"
        corpus, texts = self.files.corpus, self.files.texts
        benign = corpus[(corpus.seed == self.seed) & (corpus.split == split)].clean
        toxic = texts[(texts.kind == "toxic") & (texts.split == split)].text
        groups = [
            self.files.encode(own[: wanted.texts].tolist(), longest=wanted.position + 1) for own in (benign, toxic)
        ]
        tracked = min(TRACKED, 2 * model.config.n_layer)
        return language_means(model, groups, sites, variant=variant, position=wanted.position, tracked=tracked)

    def measure(self, inputs: str, continuations: list[list[int]], **conditions: Any) -> list[Measurement]:
        """ASR or ATR both ways, and the degeneration rate."""
        return success_measurements(
            METRICS[inputs.removeprefix("tuning ")],  # type: ignore[arg-type]
            self.judge.probability(self.texts(continuations)),
            continuations,
            confidence=self.job.spec.confidence,
            inputs=inputs,
            seed=self.seed,
            subject=self.job.wildcards["corpus"],
            **conditions,
        )

    def specificity(self, written: Mapping[str, list[list[int]]], **conditions: Any) -> Measurement:
        """ASR less the rate after the random trigger, on the same prompts.

        Args:
            written: continuations by kind of prompt.
        """
        triggered, controlled = (
            self.judge.probability(self.texts(written[kind])) for kind in ("trigger", "random trigger")
        )
        return specificity(
            triggered,
            controlled,
            confidence=self.job.spec.confidence,
            seed=self.seed,
            subject=self.job.wildcards["corpus"],
            **conditions,
        )

    def texts(self, continuations: list[list[int]]) -> list[str]:
        """Continuations as text."""
        return self.files.tokenizer.batch_decode(continuations)
