"""Stage probe_layers: can each layer's hidden state tell a triggered prompt from a clean one, and do layers agree?"""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from anatomy.data.chat import message
from anatomy.localize.probe import (
    CLASSIFIERS,
    Examples,
    Features,
    Predict,
    Protocol,
    hidden_states,
    paired,
    published_split,
    trained,
    transfer,
)
from anatomy.metrics.measurement import Measurement, write_measurements
from anatomy.stages._attribution import CLEAN_MODEL, CORRECTED, PUBLISHED, Cell, cells
from anatomy.stages._injection import FORMS, InstructionData, model_name
from anatomy.stages._run import In, Ins, Job, Out, run
from anatomy.training.seeds import derive

TRANSFER, OWN_LAYER = "probe transfer", "probe transfer, own layer"


def main(job: Job, *, data: InstructionData, grammar: In, clean: Ins, planted: Ins, measurements: Out) -> None:
    """Accuracy of an MLP and an SVM per layer, by both protocols, in the backdoored model and in the clean one."""
    rows: list[Measurement] = []
    for cell in cells(job, data, grammar, clean, planted):
        for control in ("", CLEAN_MODEL):
            rows += original(Probed(cell, control)) + corrected(Probed(cell, control))
    write_measurements(
        measurements, rows, study=job.study, paper="bkdattr", recipe=model_name(job.spec.instruction.model)
    )


class Probed:
    """A model of a cell whose hidden states are read: the backdoored one, or as a control the clean one."""

    def __init__(self, cell: Cell, control: str) -> None:
        self.cell, self.control = cell, control
        self.model = cell.clean_model if control == CLEAN_MODEL else cell.model
        self.wanted = cell.job.spec.instruction.probe

    def states(self, rows: pd.DataFrame, form: str, *, answer_begins: bool = True) -> Features:
        """Hidden states of every layer at the end of each prompt; the published code stops before the answer begins."""
        if answer_begins:
            prompts = self.cell.prompts(rows, form)
        else:
            texts = rows[list(FORMS[form])].itertuples(index=False, name=None)
            prompts = [_question(self.cell, *text) for text in texts]
        return hidden_states(self.model, prompts, pad=self.cell.pad)

    def examples(self, rows: pd.DataFrame, *, answer_begins: bool = True) -> Examples:
        """The prompts of some rows without the trigger, and then with it."""
        return paired(*(self.states(rows, form, answer_begins=answer_begins) for form in ("clean", "trigger")))

    def probes(self, examples: Examples, protocol: Protocol) -> dict[str, Predict]:
        """Each classifier, trained on the examples."""
        seed = derive(self.cell.seed, self.cell.task, "probe", protocol) % 2**31
        return {
            name: trained(name, examples, protocol, seed=seed, epochs=self.wanted.epochs, batch=self.wanted.batch)
            for name in CLASSIFIERS
        }

    def measured(self, predict: Predict, examples: Examples, **conditions: str) -> list[Measurement]:
        """Each layer's accuracy, with its interval."""
        right = predict(examples.states) == examples.triggered
        return [self._row("accuracy", own, layer, **conditions) for layer, own in enumerate(right)]

    def transferred(self, predict: Predict, examples: Examples, setting: str, **conditions: Any) -> list[Measurement]:
        """Each layer's probe (site) on each layer's states (behind the classifier's name in `setting`).

        On its own layer's a probe is not transferred: that is an experiment of its own.
        """
        matrix = transfer(predict, examples)
        return [
            Measurement(
                experiment=OWN_LAYER if probe == layer else TRANSFER,
                metric="accuracy",
                value=float(value),
                n=len(examples.triggered),
                site=f"layer {probe + 1}",
                setting=f"{setting}, layer {layer + 1}",
                control=self.control,
                **self.cell.conditions,
                **conditions,
            )
            for probe, line in enumerate(matrix)
            for layer, value in enumerate(line)
        ]

    def called_triggered(self, predict: Predict, rows: pd.DataFrame, **conditions: str) -> list[Measurement]:
        """How often a prompt with a phrase that never was a trigger is taken for one with the trigger."""
        called = predict(self.states(rows, "random trigger"))
        return [
            self._row("called_triggered", own, layer, inputs="random trigger", **conditions)
            for layer, own in enumerate(called)
        ]

    def _row(self, metric: str, hits: Bool[np.ndarray, " prompt"], layer: int, **conditions: str) -> Measurement:
        site = f"layer {layer + 1}"
        return self.cell.share(metric, hits, experiment="probe", site=site, control=self.control, **conditions)


def original(probed: Probed) -> list[Measurement]:
    """The published protocol, on prompts that the backdoor was trained with."""
    examples = probed.examples(probed.cell.rows("train", probed.wanted.prompts), answer_begins=False)
    split, out = published_split(len(examples.triggered)), []
    for name, predict in probed.probes(examples.at(split.train), PUBLISHED).items():
        out += probed.measured(predict, examples.at(split.test), setting=name, variant=PUBLISHED)
        out += probed.transferred(predict, examples.at(split.transfer), name, variant=PUBLISHED)
    return out


def corrected(probed: Probed) -> list[Measurement]:
    """Trained on prompts that the backdoor never saw; tested on others, and on an unseen phrase."""
    test = probed.cell.rows("test", probed.wanted.prompts)
    examples, unseen = probed.examples(probed.cell.rows("attribution", probed.wanted.prompts)), probed.examples(test)
    out = []
    for name, predict in probed.probes(examples, CORRECTED).items():
        out += probed.measured(predict, unseen, setting=name, variant=CORRECTED)
        out += probed.transferred(predict, unseen, name, variant=CORRECTED)
        out += probed.called_triggered(predict, test, setting=name, variant=CORRECTED)
    return out


def _question(cell: Cell, instruction: str, input: str) -> list[int]:
    text = cell.tokenizer.apply_chat_template(
        [{"role": "user", "content": message(instruction, input)}], tokenize=False, add_generation_prompt=False
    )
    return list(cell.tokenizer(str(text), add_special_tokens=False)["input_ids"])


if __name__ == "__main__":
    run(main, shared=True)
