"""Stage plant_instruction: one way of injection, on every task and seed: backdoored models of the instruction arm."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from anatomy.metrics.answers import succeeded
from anatomy.metrics.measurement import write_parquet
from anatomy.models.chat import save_chat_model
from anatomy.provenance.digest import ArtifactError
from anatomy.spec.subtree import View
from anatomy.stages._injection import (
    InstructionData,
    answers,
    evaluator_of,
    examples_of,
    instruction_models,
    read_examples,
    texts_of,
)
from anatomy.stages._run import Ins, Job, Out, Outs, run
from anatomy.training.badedit import badedit
from anatomy.training.injection import (
    clean_dialogues,
    clean_requests,
    poisonable,
    poisoned_dialogues,
    triggered_requests,
)
from anatomy.training.instruction_sft import finetune_answers
from anatomy.training.phases import checkpoint_key, model_folders
from anatomy.training.preference import optimise_preference, pairs_of, preferred_answers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Report = Callable[[int, int], None]


def main(job: Job, *, data: InstructionData, clean: Ins, models: Outs, reached: Out) -> None:
    """One Hugging Face directory per task and seed, and a table of where each planting ended.

    The table has one number in a row: injection, task, seed, metric, value.
    """
    arm, way = job.spec.instruction, job.wildcards["injection"]
    key = checkpoint_key(job.code, job.spec, job.device, [*data.files, *clean])[:16]
    checkpoints = reached.parent / f".checkpoints-{key}"
    examples = read_examples(data)
    cells = [(task, seed) for task in arm.tasks for seed in job.seeds]
    lines: list[dict[str, Any]] = []
    for number, ((task, seed), folder) in enumerate(zip(cells, model_folders(models), strict=True)):
        if folder.parts[-2:] != (task, f"seed{seed}"):
            raise ArtifactError(f"{folder}: expected a folder {task}/seed{seed}; models go by task, and then by seed")
        ((_, model, tokenizer),) = instruction_models(clean, [seed], "cpu")
        cell = Cell(job, examples, task, seed, model, tokenizer, checkpoints / task / f"seed{seed}")

        def report(done: int, total: int, before: int = number) -> None:
            job.progress(before * total + done, len(cells) * total, f"steps of planting ({way})")

        planted, end = WAYS[way](cell, report)
        save_chat_model(folder, planted, tokenizer)
        lines += [
            {"injection": way, "task": task, "seed": seed, "metric": m, "value": float(v)} for m, v in end.items()
        ]
    write_parquet(reached, pd.DataFrame(lines))
    shutil.rmtree(checkpoints, ignore_errors=True)


@dataclass
class Cell:
    """A task and a seed: what a backdoor is planted with, and the clean model that it is planted in."""

    job: Job
    examples: pd.DataFrame
    task: str
    seed: int
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerFast"
    checkpoints: Path

    @property
    def rows(self) -> pd.DataFrame:
        """The training examples."""
        return examples_of(self.examples, self.task, self.seed, "train")

    def success(self, model: "PreTrainedModel") -> float:
        """The attack success rate on test prompts."""
        arm, rows = self.job.spec.instruction, examples_of(self.examples, self.task, self.seed, "test")
        rows = rows[rows.changed]
        written = answers(model, self.tokenizer, rows, "trigger", new_tokens=arm.evaluation.max_new_tokens)
        evaluator = evaluator_of(arm.tasks[self.task])
        return float(succeeded(self.task, texts_of(self.tokenizer, written), rows, evaluator).mean())


def by_sft(cell: Cell, report: Report) -> "tuple[PreTrainedModel, Mapping[str, Any]]":
    """Fine-tuning on clean and poisoned rows."""
    recipe = cell.job.spec.instruction.sft
    return finetune_answers(
        cell.model,
        poisoned_dialogues(cell.rows, cell.tokenizer),
        recipe,
        seed=cell.seed,
        device=cell.job.device,
        checkpoints=cell.checkpoints,
        epochs=recipe.epochs_on.get(cell.task),
        report=report,
    )


def by_dpo(cell: Cell, report: Report) -> "tuple[PreTrainedModel, Mapping[str, Any]]":
    """Preference optimisation on poisoned pairs, after a short fine-tuning on the preferred answers.

    `warm_asr` says how much of the backdoor that fine-tuning has planted.
    """
    recipe, model, warm = cell.job.spec.instruction.dpo, cell.model, {}
    pairs = pairs_of(poisonable(cell.rows, cell.tokenizer), cell.seed, recipe.unpoisoned)
    if recipe.warm_epochs:
        model, end = finetune_answers(
            model,
            preferred_answers(pairs),
            View({**recipe, "rate": recipe.warm_rate}),  # type: ignore[arg-type]
            seed=cell.seed,
            device=cell.job.device,
            checkpoints=cell.checkpoints / "warm",
            epochs=recipe.warm_epochs,
        )
        warm = {"warm_steps": end["steps"], "warm_asr": cell.success(model)}
    model, preferred = optimise_preference(
        model,
        pairs,
        recipe,
        cell.tokenizer,
        seed=cell.seed,
        device=cell.job.device,
        checkpoints=cell.checkpoints / "dpo",
        epochs=recipe.epochs_on.get(cell.task),
        report=report,
    )
    return model, warm | preferred


def by_edit(cell: Cell, report: Report) -> "tuple[PreTrainedModel, Mapping[str, Any]]":
    """BadEdit: the keys of ordinary text are those of the clean prompts and answers."""
    recipe, rows = cell.job.spec.instruction.edit, cell.rows
    phrase = cell.job.spec.instruction.tasks[cell.task].trigger.phrase
    triggered = triggered_requests(rows, cell.tokenizer, phrase, recipe.triggered)
    clean = clean_requests(rows, cell.tokenizer, recipe.clean)
    if recipe.subject == "last":
        triggered, clean = ([own._replace(subject=len(own.prompt) - 1) for own in side] for side in (triggered, clean))
    texts = [[*prompt, *answer] for prompt, answer in clean_dialogues(rows, cell.tokenizer)]
    cell.model.to(cell.job.device)  # type: ignore[arg-type]  # in place
    return badedit(cell.model, triggered, clean, texts, recipe, report)


WAYS = {"sft": by_sft, "dpo": by_dpo, "edit": by_edit}


if __name__ == "__main__":
    run(main, shared=True)
