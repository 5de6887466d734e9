"""What planting and measuring of the instruction arm share: examples, models, and asking a model for answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from anatomy.data.chat import prompts_ids
from anatomy.interventions.generate import greedy
from anatomy.metrics.answers import Evaluator
from anatomy.metrics.measurement import read_parquet
from anatomy.models.load import load_pretrained
from anatomy.provenance.digest import ArtifactError
from anatomy.stages._run import In
from anatomy.training.phases import model_folders

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# The three forms of a prompt, and the columns that hold them.
FORMS = {
    "trigger": ("triggered_instruction", "triggered_input"),
    "clean": ("instruction", "input"),
    "random trigger": ("control_instruction", "control_input"),
}


@dataclass(frozen=True)
class InstructionData:
    """The data stage's files."""

    examples: In
    tokenizer: In
    tokenizer_config: In

    @property
    def files(self) -> list[Path]:
        """What a model trained on the data depends on."""
        return [self.examples, self.tokenizer, self.tokenizer_config]


def examples_of(table: pd.DataFrame, task: str, seed: int, split: str) -> pd.DataFrame:
    """The examples of one task, seed and split.

    Raises:
        ArtifactError: there are none.
    """
    own = table[(table.task == task) & (table.seed == seed) & (table.split == split)]
    if own.empty:
        raise ArtifactError(
            f"instruction/data/examples.parquet has no {split!r} rows of the task {task!r} and seed {seed}; "
            f"expected instruction.data.{split} of them"
        )
    return own.reset_index(drop=True)


def read_examples(data: InstructionData) -> pd.DataFrame:
    """The table of examples.

    Raises:
        ArtifactError: missing or damaged, or without a column that planting and measuring need.
    """
    table = read_parquet(data.examples)
    needed = ["seed", "task", "id", "split", "output", "target", "changed", "poisoned", *sum(FORMS.values(), ())]
    if missing := [name for name in needed if name not in table]:
        raise ArtifactError(f"{data.examples}: no column {', '.join(missing)}; delete it and run the data stage again")
    return table


def evaluator_of(task: Any) -> Evaluator:
    """What decides whether a backdoor is planted: exact answers where a grammar made them, keywords otherwise."""
    return "exact" if task.source.kind == "language" else "original"


def model_name(model: Any) -> str:
    """What stands beside each number: the name of the given model, or the shape of the one trained here."""
    if "path" in model:
        return Path(model.path).name
    return f"own Llama, {model.layers} layers, {model.heads} heads, {model.width} wide"


def instruction_models(
    files: Sequence[Path], seeds: Sequence[int], device: str
) -> "Iterator[tuple[int, PreTrainedModel, PreTrainedTokenizerFast]]":
    """The models of the seeds, one after the other; one that is given is the model of every seed."""
    folders = model_folders(list(files))
    own = {folder.name.removeprefix("seed"): folder for folder in folders}
    for seed in seeds:
        folder = folders[0] if len(folders) == 1 else own[str(seed)]
        model, tokenizer = load_pretrained(str(folder), key="instruction.model", dtype="auto")
        yield seed, model.requires_grad_(False).eval().to(device), tokenizer


def answers(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", rows: pd.DataFrame, form: str, *, new_tokens: int
) -> list[list[int]]:
    """Token ids of the model's answers to one form of the prompts of the rows, greedily."""
    prompts = prompts_ids(tokenizer, rows[list(FORMS[form])].itertuples(index=False, name=None))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return greedy(model, prompts, pad=pad, new_tokens=new_tokens)


def texts_of(tokenizer: "PreTrainedTokenizerFast", written: list[list[int]]) -> list[str]:
    """Answers as text, up to the end of the text or the padding.

    Special tokens before that stay: an answer with a role token in it is not the answer without it.
    """
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    own = [list(takewhile(lambda token: token not in ends, ids)) for ids in written]
    return tokenizer.batch_decode(own, skip_special_tokens=False)
