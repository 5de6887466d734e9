"""What the stages that look into instruction models share: cells, their prompts, and answers under changes, judged."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Bool

from anatomy.data.chat import answers_ids, prompts_ids
from anatomy.data.instructions import read_instructions, refusals
from anatomy.interventions.generate import greedy
from anatomy.interventions.hooks import Edit
from anatomy.interventions.last_position import Condition, changed_continuations
from anatomy.metrics.answers import correct, succeeded
from anatomy.metrics.measurement import Measurement
from anatomy.metrics.success import share
from anatomy.provenance.digest import ArtifactError
from anatomy.sites import Site
from anatomy.stages._injection import (
    FORMS,
    InstructionData,
    evaluator_of,
    examples_of,
    instruction_models,
    read_examples,
    texts_of,
)
from anatomy.stages._run import Job
from anatomy.training.phases import model_folders

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

CLEAN_MODEL = "clean model"
# Of probes and attribution: the published protocol, and the one that repairs it.
PUBLISHED: Final = "original"
CORRECTED: Final = "corrected"


@dataclass(frozen=True)
class Cell:
    """A task, a seed and an injection: the backdoored model, the clean one that it was, and the examples."""

    job: Job
    task: str
    seed: int
    model: "PreTrainedModel"
    clean_model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerFast"
    examples: pd.DataFrame
    refusals: Sequence[re.Pattern[str]]

    @property
    def conditions(self) -> dict[str, Any]:
        """What stands beside each number."""
        return {"subject": self.task, "seed": self.seed, "model": self.job.wildcards["injection"]}

    @property
    def pad(self) -> int:
        """Any id of the vocabulary."""
        return self.tokenizer.eos_token_id

    def rows(self, split: str, most: int, *, changed: bool = False) -> pd.DataFrame:
        """The first examples of a split; `changed`: of those whose answer the backdoor changes.

        Raises:
            ArtifactError: there are none.
        """
        own = examples_of(self.examples, self.task, self.seed, split)
        found = own[own.changed] if changed else own
        if found.empty:
            raise ArtifactError(
                f"{self.task}, seed {self.seed}: of none of the {len(own)} prompts of {split!r} does the backdoor "
                f"change the answer; raise instruction.data.{split}"
            )
        return found[:most].reset_index(drop=True)

    def prompts(self, rows: pd.DataFrame, form: str) -> list[list[int]]:
        """Token ids of one form of the prompts ("trigger", "clean", "random trigger")."""
        return prompts_ids(self.tokenizer, rows[list(FORMS[form])].itertuples(index=False, name=None))

    def targets(self, rows: pd.DataFrame) -> list[list[int]]:
        """Token ids of the backdoor's answers, with the end of the text."""
        return answers_ids(self.tokenizer, rows.target)

    def answered(
        self, rows: pd.DataFrame, form: str, conditions: Sequence[Condition], *, at_once: int, clean: bool = False
    ) -> list[list[str]]:
        """What is answered under each condition to one form of the prompts; `clean`: by the clean model."""
        found = changed_continuations(
            self.clean_model if clean else self.model,
            self.prompts(rows, form),
            conditions,
            new_tokens=self.job.spec.instruction.evaluation.max_new_tokens,
            pad=self.pad,
            rows=at_once,
        )
        return [texts_of(self.tokenizer, texts) for texts in found]

    def answered_under(self, rows: pd.DataFrame, form: str, edits: Mapping[Site, Edit], *, at_once: int) -> list[str]:
        """What is answered with edits at all positions, of the prompt and of the answer."""
        texts = greedy(
            self.model,
            self.prompts(rows, form),
            pad=self.pad,
            new_tokens=self.job.spec.instruction.evaluation.max_new_tokens,
            edits=edits,
            rows=at_once,
        )
        return texts_of(self.tokenizer, texts)

    def succeeded(self, rows: pd.DataFrame, texts: list[str]) -> Bool[np.ndarray, " prompt"]:
        """Which answers are the backdoor's."""
        return succeeded(self.task, texts, rows, evaluator_of(self.job.spec.instruction.tasks[self.task]))

    def correct(self, rows: pd.DataFrame, texts: list[str]) -> Bool[np.ndarray, " prompt"]:
        """Which answers are the clean ones."""
        evaluator = evaluator_of(self.job.spec.instruction.tasks[self.task])
        return correct(self.task, texts, rows, evaluator, self.refusals)

    def share(self, metric: str, hits: Bool[np.ndarray, " prompt"], **conditions: Any) -> Measurement:
        """A share of prompts, with its interval."""
        return share(metric, hits, self.job.spec.confidence, **self.conditions, **conditions)


def cells(job: Job, data: InstructionData, grammar: Path, clean: list[Path], planted: list[Path]) -> Iterator[Cell]:
    """Every task of every seed, with its models.

    Raises:
        ArtifactError: a file is missing or damaged, or a cell has no model.
    """
    table, forms = read_examples(data), refusals(read_instructions(grammar))
    folders = {folder.parts[-2:]: folder for folder in model_folders(planted)}
    tasks = list(job.spec.instruction.tasks)
    done = 0
    for seed, clean_model, tokenizer in instruction_models(clean, job.seeds, job.device):
        for task in tasks:
            job.progress(done, len(tasks) * len(job.seeds), f"models looked into ({job.wildcards['injection']})")
            if (task, f"seed{seed}") not in folders:
                raise ArtifactError(f"no model in a folder {task}/seed{seed}; models go by task, and then by seed")
            folder = folders[task, f"seed{seed}"]
            ((_, model, _),) = instruction_models([folder / "model.safetensors"], [seed], job.device)
            yield Cell(job, task, seed, model, clean_model, tokenizer, table, forms)
            done += 1


Judge = Callable[[pd.DataFrame, list[str]], Bool[np.ndarray, " prompt"]]


def judged(
    cell: Cell,
    rows: pd.DataFrame,
    form: str,
    conditions: Mapping[Any, Condition],
    judges: Mapping[str, Judge],
    *,
    at_once: int,
    clean: bool = False,
) -> dict[str, dict[Any, Bool[np.ndarray, " prompt"]]]:
    """metric -> key of the condition -> which of the answers the metric's judge counts."""
    texts = cell.answered(rows, form, list(conditions.values()), at_once=at_once, clean=clean)
    answers = dict(zip(conditions, texts, strict=True))
    return {metric: {key: judge(rows, own) for key, own in answers.items()} for metric, judge in judges.items()}
