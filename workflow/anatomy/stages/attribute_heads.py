"""Stage attribute_heads: which heads, MLPs and layers bring the backdoor's answer, and what their ablation leaves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from anatomy.interventions.hooks import Edit
from anatomy.interventions.last_position import Condition, read_last
from anatomy.localize.ablation_curves import (
    area,
    head_counts,
    matched,
    part_counts,
    subtracted,
    zeroed,
    zeroed_everywhere,
)
from anatomy.localize.attribution import (
    KINDS,
    attribute,
    effect_measurements,
    mean_activations,
    ranked,
    sites_of,
)
from anatomy.metrics.intervals import student
from anatomy.metrics.measurement import Measurement, write_measurements
from anatomy.models.adapters import adapter_of
from anatomy.sites import Site
from anatomy.stages._attribution import CLEAN_MODEL, CORRECTED, PUBLISHED, Cell, Judge, cells, judged
from anatomy.stages._injection import InstructionData, model_name
from anatomy.stages._run import In, Ins, Job, Out, run
from anatomy.training.seeds import derive

Ranking = dict[str, list[Site]]  # by kind
RANDOM = "random heads"
EVERYWHERE = "necessary, all positions"


def main(job: Job, *, data: InstructionData, grammar: In, clean: Ins, planted: Ins, measurements: Out) -> None:
    """Effects by both protocols, and ablation of heads, MLPs and layers in their order."""
    rows: list[Measurement] = []
    for cell in cells(job, data, grammar, clean, planted):
        rankings = {}
        for variant in (PUBLISHED, CORRECTED):
            found, rankings[variant] = effects(cell, variant)
            rows += found
        rows += effects(cell, CORRECTED, control=CLEAN_MODEL)[0]
        rows += ablations(cell, rankings[CORRECTED]) + published_ablation(cell, rankings[PUBLISHED])
    write_measurements(
        measurements, rows, study=job.study, paper="bkdattr", recipe=model_name(job.spec.instruction.model)
    )


def effects(cell: Cell, variant: str, control: str = "") -> tuple[list[Measurement], Ranking]:
    """ACIE of every head, MLP and layer, and the sites of each kind by it.

    "original": over prompts that the backdoor was trained with, whether or not it changes their answer. "corrected":
    over others, all of which it changes.
    """
    wanted = cell.job.spec.instruction.attribution
    model = cell.clean_model if control == CLEAN_MODEL else cell.model
    split, changed = ("train", False) if variant == PUBLISHED else ("attribution", True)
    sites = [site for kind in KINDS for site in sites_of(model, kind)]
    triggered = cell.rows(split, wanted.means, changed=changed)
    means = mean_activations(model, cell.prompts(triggered, "trigger"), sites, pad=cell.pad)
    asked = cell.rows(split, wanted.prompts, changed=changed)
    scores = attribute(model, cell.prompts(asked, "clean"), cell.targets(asked), means, rows=wanted.sweep_rows)
    rows = effect_measurements(
        scores,
        confidence=cell.job.spec.confidence,
        experiment="attribution",
        variant=variant,
        control=control,
        inputs="clean",
        **cell.conditions,
    )
    return rows, {kind: ranked(scores, part) for kind, part in KINDS.items()}


@dataclass(frozen=True)
class Ablation:
    """Parts that are ablated together, and what stands beside the numbers; `subtract`: the published code's way."""

    parts: tuple[Site, ...]
    experiment: str
    kind: str
    count: int  # of parts ablated or, where the experiment is "sufficient", kept
    total: int
    subtract: bool = False
    control: str = ""
    everywhere: bool = False

    @property
    def change(self) -> tuple[str, tuple[Site, ...]]:
        """What is changed; two that are alike are run once."""
        way = "subtract" if self.subtract else "zero everywhere" if self.everywhere else "zero"
        return way if self.parts else "", tuple(sorted(self.parts))

    @property
    def conditions(self) -> dict[str, str]:
        """What stands beside the numbers."""
        variant = PUBLISHED if self.subtract else "exact"
        setting = f"{self.count}/{self.total}"
        return {
            "experiment": self.experiment,
            "site": self.kind,
            "setting": setting,
            "variant": variant,
            "control": self.control,
        }


def planned(cell: Cell, ranking: Ranking) -> list[Ablation]:
    """Head ablation both ways with random heads beside it, then whole curves for every kind of part."""
    wanted, per_layer = cell.job.spec.instruction.attribution, adapter_of(cell.model).heads
    generator = np.random.default_rng(derive(cell.seed, cell.task, "random heads"))
    found = []
    total = len(ranking["heads"])
    for count in head_counts(total, wanted.share):
        top = ranking["heads"][:count]
        draws = [matched(top, per_layer, generator) for _ in range(wanted.random_draws if count else 1)]
        for subtract in (True, False):
            found.append(Ablation(tuple(top), "head ablation", "heads", count, total, subtract))
            found += [Ablation(tuple(own), "head ablation", "heads", count, total, subtract, RANDOM) for own in draws]
    for kind, own in ranking.items():
        for count in part_counts(len(own)):
            found.append(Ablation(tuple(own[:count]), "necessary", kind, count, len(own)))
            found.append(Ablation(tuple(own[count:]), "sufficient", kind, count, len(own)))
            found.append(Ablation(tuple(own[:count]), EVERYWHERE, kind, count, len(own), everywhere=True))
    return found


def ablations(cell: Cell, ranking: Ranking) -> list[Measurement]:
    """What is left of the backdoor, and of clean utility, on prompts of the test; and the areas under the curves."""
    evaluated, plan = cell.job.spec.instruction.attribution.evaluated, planned(cell, ranking)
    asked = [
        ("trigger", "asr", cell.succeeded, cell.rows("test", evaluated, changed=True)),
        ("clean", "utility", cell.correct, cell.rows("test", evaluated)),
    ]
    return [row for form, metric, judge, rows in asked for row in _measured(cell, plan, rows, form, metric, judge)]


def published_ablation(cell: Cell, ranking: Ranking) -> list[Measurement]:
    """The published protocol: by effects on training prompts, subtracting, and asked triggered training prompts."""
    wanted, heads = cell.job.spec.instruction.attribution, ranking["heads"]
    plan = [
        Ablation(tuple(heads[:count]), "head ablation, training prompts", "heads", count, len(heads), subtract=True)
        for count in head_counts(len(heads), wanted.share)
    ]
    rows = cell.rows("train", wanted.evaluated, changed=True)
    return _measured(cell, plan, rows, "trigger", "asr", cell.succeeded)


def _measured(
    cell: Cell, plan: list[Ablation], rows: pd.DataFrame, form: str, metric: str, judge: Judge
) -> list[Measurement]:
    own = read_last(cell.model, cell.prompts(rows, form), sites_of(cell.model, "heads"), pad=cell.pad)
    at_once = cell.job.spec.instruction.attribution.rows
    last: dict[Any, Condition] = {}
    everywhere: dict[Any, Mapping[Site, Edit]] = {}
    for ablation in plan:
        if ablation.change[0] == "zero everywhere":
            everywhere[ablation.change] = zeroed_everywhere(ablation.parts)
        else:
            last[ablation.change] = subtracted(ablation.parts, own) if ablation.subtract else zeroed(ablation.parts)
    hits = judged(cell, rows, form, last, {metric: judge}, at_once=at_once)[metric]
    for change, edits in everywhere.items():
        hits[change] = judge(rows, cell.answered_under(rows, form, edits, at_once=at_once))
    pooled: dict[tuple[str, ...], list[np.ndarray]] = {}
    for ablation in plan:  # the draws of random heads are one number
        pooled.setdefault(tuple(ablation.conditions.values()), []).append(hits[ablation.change])
    names = list(plan[0].conditions)
    out = [
        cell.share(metric, np.concatenate(own), inputs=form, **dict(zip(names, key, strict=True)))
        for key, own in pooled.items()
    ]
    for experiment in ("necessary", "sufficient", EVERYWHERE):
        for kind in KINDS:
            curve = {a.count: hits[a.change] for a in plan if (a.experiment, a.kind) == (experiment, kind)}
            if curve:
                out.append(_area(cell, metric, curve, experiment=experiment, site=kind, inputs=form, variant="exact"))
    return out


def _area(cell: Cell, metric: str, curve: dict[int, np.ndarray], **conditions: Any) -> Measurement:
    """The mean over prompts of each one's area."""
    found = student(area(list(curve), np.array(list(curve.values()), dtype=float)), cell.job.spec.confidence)
    low, high = np.clip([found.low, found.high], 0, 1)
    return Measurement(
        metric=f"{metric}_area",
        value=found.mean,
        n=found.n,
        ci_low=float(low),
        ci_high=float(high),
        **cell.conditions,
        **conditions,
    )


if __name__ == "__main__":
    run(main, shared=True)
