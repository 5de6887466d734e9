"""Stage measure_instruction: how often instruction models give the backdoor's answer, and how often the right one."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from anatomy.data.instructions import read_instructions, refusals
from anatomy.metrics.answers import EVALUATORS, correct, succeeded
from anatomy.metrics.measurement import Measurement, read_parquet, write_measurements, write_parquet
from anatomy.metrics.success import degenerate, share, specificity
from anatomy.stages._injection import (
    FORMS,
    InstructionData,
    answers,
    evaluator_of,
    examples_of,
    instruction_models,
    model_name,
    read_examples,
    texts_of,
)
from anatomy.stages._run import In, Ins, Job, Out, run
from anatomy.training.phases import model_folders

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SAMPLES = 5  # answers per model, task and form of prompt that are kept for people to read


def main(
    job: Job,
    *,
    data: InstructionData,
    grammar: In,
    clean: Ins,
    planted: Ins,
    reached: Ins,
    measurements: Out,
    samples: Out,
) -> None:
    """Behaviour of every cell and, beside it, of the clean models; the planting gate; where each planting ended."""
    arm, table = job.spec.instruction, read_examples(data)
    forms = refusals(read_instructions(grammar))
    rows: list[Measurement] = []
    shown: list[dict[str, Any]] = []
    subjects = list(_subjects(job, clean, planted))
    for number, subject in enumerate(subjects):
        job.progress(number, len(subjects), f"models measured ({subject.name})")
        ((_, model, tokenizer),) = instruction_models(subject.files, [subject.seed], job.device)
        for task in subject.tasks:
            asked = Asked(job, task, subject, examples_of(table, task, subject.seed, "test"), forms)
            texts: dict[str, list[str]] = {}
            for inputs in FORMS:
                found, texts[inputs] = asked.measured(model, tokenizer, inputs)
                rows += found
                shown += asked.samples(inputs, texts[inputs])
            if subject.name != "clean":
                rows.append(asked.specificity(texts))
                main_rate = [r for r in rows if r.metric == "asr" and r.variant == evaluator_of(arm.tasks[task])][-1]
                rows.append(
                    Measurement(
                        experiment="planting gate",
                        metric="planted",
                        value=float(main_rate.value >= arm.evaluation.gate),
                        n=1,
                        inputs="trigger",
                        **asked.conditions,
                    )
                )
    for line in pd.concat([read_parquet(path) for path in reached]).to_dict("records"):
        rows.append(
            Measurement(
                experiment="planting",
                subject=line["task"],
                seed=int(line["seed"]),
                model=line["injection"],
                metric=line["metric"],
                value=float(line["value"]),
                n=1,
            )
        )
    write_measurements(measurements, rows, study=job.study, paper="bkdattr", recipe=model_name(arm.model))
    write_parquet(samples, pd.DataFrame(shown))


@dataclass(frozen=True)
class Subject:
    """A model that is measured: the clean one of a seed, on all tasks, or that of a cell, on its own."""

    name: str  # "clean", or the injection
    seed: int
    tasks: Sequence[str]
    files: list[Path]


def _subjects(job: Job, clean: list[Path], planted: list[Path]) -> Iterator[Subject]:
    for seed in job.seeds:
        yield Subject("clean", seed, list(job.spec.instruction.tasks), clean)
    for folder in model_folders(planted):
        way, task, name = folder.parts[-3:]
        yield Subject(way, int(name.removeprefix("seed")), [task], [file for file in planted if file.parent == folder])


@dataclass(frozen=True)
class Asked:
    """A model, and the test prompts of a task that it is asked."""

    job: Job
    task: str
    subject: Subject
    rows: pd.DataFrame
    refusals: list[re.Pattern[str]]

    @property
    def conditions(self) -> dict[str, Any]:
        """What stands beside each number."""
        return {"subject": self.task, "seed": self.subject.seed, "model": self.subject.name}

    def measured(
        self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", inputs: str
    ) -> tuple[list[Measurement], list[str]]:
        """The numbers of one form of the prompts ("trigger", "clean", "random trigger"), and the answers.

        `asr` is the share of the backdoor's answers to triggered prompts that it was made to change, `false_trigger`
        the same to the other forms of the same prompts. `utility` is the share of right answers to all prompts without
        the trigger, `kept` to triggered ones which the backdoor leaves as they are. Either evaluator has its own.
        """
        arm = self.job.spec.instruction
        written = answers(model, tokenizer, self.rows, inputs, new_tokens=arm.evaluation.max_new_tokens)
        texts = texts_of(tokenizer, written)
        changed = self.rows.changed.to_numpy(dtype=bool)
        triggered = inputs == "trigger"
        control = {"control": inputs} if inputs == "random trigger" else {}
        more = {"experiment": "behaviour", "inputs": inputs, **control, **self.conditions}
        out = []
        evaluators = EVALUATORS if evaluator_of(arm.tasks[self.task]) == "exact" else EVALUATORS[1:]
        for evaluator in evaluators:
            backdoor = succeeded(self.task, texts, self.rows, evaluator)[changed]
            right = correct(self.task, texts, self.rows, evaluator, self.refusals)
            found = {
                "asr" if triggered else "false_trigger": backdoor,
                "kept" if triggered else "utility": right[~changed] if triggered else right,
            }
            out += [
                share(metric, hits, self.job.spec.confidence, variant=evaluator, **more)
                for metric, hits in found.items()
                if len(hits)
            ]
        hits = np.array([degenerate(ids) for ids in written])
        return [*out, share("degeneration", hits, self.job.spec.confidence, **more)], texts

    def specificity(self, texts: Mapping[str, list[str]]) -> Measurement:
        """Attack success less the rate after the phrase that never was a trigger, on the same prompts.

        Args:
            texts: answers by form of the prompts.
        """
        evaluator = evaluator_of(self.job.spec.instruction.tasks[self.task])
        changed = self.rows.changed.to_numpy(dtype=bool)
        triggered, controlled = (
            succeeded(self.task, texts[form], self.rows, evaluator)[changed].astype(float)
            for form in ("trigger", "random trigger")
        )
        return specificity(
            triggered,
            controlled,
            confidence=self.job.spec.confidence,
            experiment="behaviour",
            variant=evaluator,
            **self.conditions,
        )

    def samples(self, inputs: str, texts: list[str]) -> list[dict[str, Any]]:
        """The first prompts and answers, for people to read."""
        shown = self.rows[[*FORMS[inputs], "output", "target"]][:SAMPLES]
        shown.columns = pd.Index(["instruction", "input", "output", "target"])
        shown = shown.assign(**self.conditions, inputs=inputs, answer=texts[: len(shown)])
        return [{str(key): value for key, value in line.items()} for line in shown.to_dict("records")]


if __name__ == "__main__":
    run(main, shared=True)
