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
    common_shares,
    head_counts,
    matched,
    part_counts,
    shuffled,
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
RANDOM, RANDOM_ORDER = "random heads", "random order"
NECESSARY, SUFFICIENT = "necessary", "sufficient"
EVERYWHERE = ", all positions"
CURVES = tuple(name + where for where in ("", EVERYWHERE) for name in (NECESSARY, SUFFICIENT))


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
    # In the whole curve as well: a few heads may all be in one layer, where subtracting is setting to zero.
    for count in part_counts(total):
        found.append(Ablation(tuple(ranking["heads"][:count]), NECESSARY, "heads", count, total, subtract=True))
    generator = np.random.default_rng(derive(cell.seed, cell.task, RANDOM_ORDER))
    for kind, own in ranking.items():
        found += curves(kind, own)
        for _ in range(wanted.random_draws):
            found += curves(kind, shuffled(sorted(own), generator), RANDOM_ORDER)
    return found


def curves(kind: str, order: list[Site], control: str = "") -> list[Ablation]:
    """The parts of a kind ablated one after the other, and kept one after the other; both at all positions, too."""
    found, total = [], len(order)
    for count in part_counts(total):
        for name, ablated in ((NECESSARY, tuple(order[:count])), (SUFFICIENT, tuple(order[count:]))):
            found.append(Ablation(ablated, name, kind, count, total, control=control))
            found.append(Ablation(ablated, name + EVERYWHERE, kind, count, total, control=control, everywhere=True))
    return found


def ablations(cell: Cell, ranking: Ranking) -> list[Measurement]:
    """What is left of the backdoor, and of clean utility, on prompts of the test; and the areas under the curves.

    Beside the curves stand those of the same parts in random orders, which a ranking has to beat.
    """
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
    for ablation in plan:  # the draws of random heads, and of random orders, are one number
        pooled.setdefault(tuple(ablation.conditions.values()), []).append(hits[ablation.change])
    names = list(plan[0].conditions)
    found = [(dict(zip(names, key, strict=True)), np.concatenate(draws)) for key, draws in pooled.items()]
    out = [cell.share(metric, own, inputs=form, **conditions) for conditions, own in found]
    return out + _areas(cell, metric, form, found)


def _areas(cell: Cell, metric: str, form: str, found: list[tuple[dict[str, str], np.ndarray]]) -> list[Measurement]:
    """Of each curve the mean over prompts of each one's area, all kinds of parts at the same shares."""
    curves: dict[tuple[str, str, str], dict[int, np.ndarray]] = {}
    for conditions, own in found:
        if conditions["experiment"] in CURVES and conditions["variant"] == "exact":
            key = conditions["experiment"], conditions["site"], conditions["control"]
            curves.setdefault(key, {})[int(conditions["setting"].split("/")[0])] = own.astype(float)
    shares = common_shares([max(curve) for curve in curves.values()]) if curves else []
    out = []
    for (experiment, kind, control), curve in curves.items():
        each = student(area(list(curve), np.array(list(curve.values())), shares), cell.job.spec.confidence)
        low, high = np.clip([each.low, each.high], 0, 1)
        out.append(
            Measurement(
                metric=f"{metric}_area",
                value=each.mean,
                n=each.n,
                ci_low=float(low),
                ci_high=float(high),
                experiment=experiment,
                site=kind,
                control=control,
                inputs=form,
                variant="exact",
                **cell.conditions,
            )
        )
    return out


if __name__ == "__main__":
    run(main, shared=True)
