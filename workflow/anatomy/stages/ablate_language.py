"""Stage ablate_language: one module or head at a time replaced by its mean output, in every layer (Table VIII)."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from anatomy.localize.module_sweep import swept_continuations
from anatomy.metrics.measurement import Measurement, write_measurements
from anatomy.sites import Site, heads, modules
from anatomy.stages._language import (
    Interview,
    JudgeFiles,
    LanguageData,
    language_models,
    read_judge,
    read_language,
    recipe_name,
)
from anatomy.stages._run import Ins, Job, Out, run
from anatomy.variants import VARIANTS, Variant

SETTINGS = ("source", "held out")
# The text's mean is over texts that the model was not trained on, the released code's over the first of the training's.
PRINTED: list[tuple[str, Variant]] = [("held out", "paper"), ("source", "original")]
ASKED, CHOSEN_ON = ("trigger", "benign", "random trigger"), "tuning trigger"
ZERO, CLEAN_MODEL = "zero ablation", "clean model"


def main(job: Job, *, data: LanguageData, judged_by: JudgeFiles, clean: Ins, planted: Ins, measurements: Out) -> None:
    """ASR and ATR with one site replaced, backdoored and clean.

    Modules are ablated in both variants of the mean, over the source's texts and over held-out ones (`setting`), and
    by zeros; heads by the mean over held-out texts. On other corpora than the main one only what Table VIII prints.
    """
    files = read_language(data)
    opinion = read_judge(judged_by, job.device)
    rows: list[Measurement] = []
    whole = job.wildcards["corpus"] == job.spec.language.main
    both = zip(
        language_models(planted, job.seeds, job.device), language_models(clean, job.seeds, job.device), strict=True
    )
    for number, ((seed, model), (_, clean_model)) in enumerate(both):
        job.progress(number, len(job.seeds), "seeds swept")
        sweep = Sweep(Interview(job, files, opinion, seed, most=job.spec.language.ablation.prompts), model)
        every = modules(model.config.n_layer)
        for setting, variant in product(SETTINGS, VARIANTS) if whole else PRINTED:
            means = sweep.means(every, setting, variant)
            rows += sweep.measure("trigger", means, variant=variant, setting=setting)
        rows += sweep.unchanged(ASKED)
        if not whole:
            continue
        held_out = sweep.means(every, "held out", "paper")
        rows += sweep.measure("benign", held_out, variant="paper", setting="held out")
        # On other prompts, for the choice of the two MLPs that Tables IX and X replace.
        rows += sweep.unchanged([CHOSEN_ON])
        mlps = {site: mean for site, mean in held_out.items() if site.part == "mlp"}
        rows += sweep.measure(CHOSEN_ON, mlps, variant="paper", setting="held out")
        rows += sweep.measure("trigger", {site: torch.zeros_like(v) for site, v in held_out.items()}, control=ZERO)
        if job.spec.language.ablation.heads:
            own = heads(model.config.n_layer, model.config.n_head)
            means = sweep.means(own, "held out", "paper")
            rows += sweep.measure("trigger", means, variant="paper", setting="held out")
        control = Sweep(sweep.interview, clean_model, model_name="clean", control=CLEAN_MODEL)
        means = control.means(every, "held out", "paper")
        rows += control.measure("trigger", means, variant="paper", setting="held out")
        rows += control.unchanged(ASKED)
    write_measurements(
        measurements, rows, study=job.study, paper="lamparth", recipe=recipe_name(job.spec.language.model)
    )


class Sweep:
    """One model, asked again with each of many sites replaced in turn."""

    def __init__(
        self, interview: Interview, model: GPT2LMHeadModel, *, model_name: str = "backdoored", control: str = ""
    ) -> None:
        self.interview, self.model = interview, model
        self.conditions = {"experiment": "mean ablation", "model": model_name, "control": control}

    def means(self, sites: list[Site], setting: str, variant: Variant) -> Mapping[Site, Tensor]:
        """Mean output of each site."""
        return self.interview.means(self.model, sites, setting, variant)

    def measure(self, inputs: str, constants: Mapping[Site, Tensor], **conditions: Any) -> list[Measurement]:
        """ASR or ATR with each site replaced by its constant."""
        found = swept_continuations(
            self.model,
            self.interview.prompts(inputs),
            constants,
            max_length=self.interview.max_length,
            pad=self.interview.files.tokenizer.eos_token_id,
        )
        return [
            row
            for site, continuations in found.items()
            for row in self._rows(inputs, continuations, site=str(site), **conditions)
        ]

    def unchanged(self, asked: Sequence[str]) -> list[Measurement]:
        """The model as it is, by the kinds of prompts that it is asked."""
        return [
            row
            for inputs in asked
            for row in self._rows(inputs, self.interview.write(self.model, inputs), site="unchanged")
        ]

    def _rows(self, inputs: str, continuations: list[list[int]], **conditions: Any) -> list[Measurement]:
        # `variant` says which mean was taken; which reading of success was, stands in `metric`.
        return self.interview.measure(inputs, continuations, **(self.conditions | conditions))


if __name__ == "__main__":
    run(main, shared=True)
