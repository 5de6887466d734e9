"""Stage steer_vector: the backdoor vector, added to clean prompts and taken from triggered ones, layer by layer."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from anatomy.control.vector import heads_vector, random_vector, steered
from anatomy.interventions.last_position import Condition
from anatomy.localize.ablation_curves import matched
from anatomy.localize.attribution import mean_activations, sites_of
from anatomy.metrics.measurement import Measurement, read_parquet, write_measurements
from anatomy.models.adapters import adapter_of
from anatomy.provenance.digest import ArtifactError
from anatomy.sites import Site
from anatomy.stages._attribution import CLEAN_MODEL, CORRECTED, PUBLISHED, Cell, cells, judged
from anatomy.stages._injection import InstructionData, model_name
from anatomy.stages._run import In, Ins, Job, Out, run
from anatomy.training.seeds import derive

RANDOM_VECTOR, RANDOM_HEADS = "random vector", "random heads"


def main(
    job: Job, *, data: InstructionData, grammar: In, clean: Ins, planted: Ins, attribution: In, measurements: Out
) -> None:
    """ASR with the vector added to clean prompts and taken from triggered ones; clean utility with it taken away."""
    table = read_parquet(attribution)
    rows: list[Measurement] = []
    for cell in cells(job, data, grammar, clean, planted):
        rows += steering(cell, vectors(cell, table))
    write_measurements(
        measurements, rows, study=job.study, paper="bkdattr", recipe=model_name(job.spec.instruction.model)
    )


# (variant, control, draw) -> vector
Vectors = dict[tuple[str, str, int], Tensor]


def vectors(cell: Cell, table: pd.DataFrame) -> Vectors:
    """The vector of both protocols, and beside the corrected one random ones and those of random heads.

    "original" takes the heads that matter on training prompts and their means over the poisoned ones.
    """
    wanted, every = cell.job.spec.instruction.vector, sites_of(cell.model, "heads")
    found: Vectors = {}
    for variant in (PUBLISHED, CORRECTED):
        top = top_heads(cell, table, variant)[: wanted.heads]
        if variant == PUBLISHED:
            rows = cell.rows("train", len(cell.examples))
            rows = rows[rows.poisoned][: wanted.means]
        else:
            rows = cell.rows("attribution", wanted.means, changed=True)
        means = mean_activations(cell.model, cell.prompts(rows, "trigger"), every, pad=cell.pad)
        found[variant, "", 0] = heads_vector(cell.model, top, means)
    seed = derive(cell.seed, cell.task, "random vectors")
    drawn, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed % 2**31)
    for draw in range(wanted.random_draws):
        others = matched(top, adapter_of(cell.model).heads, drawn)
        found[CORRECTED, RANDOM_HEADS, draw] = heads_vector(cell.model, others, means)
        found[CORRECTED, RANDOM_VECTOR, draw] = random_vector(found[CORRECTED, "", 0], generator)
    return found


def top_heads(cell: Cell, table: pd.DataFrame, variant: str) -> list[Site]:
    """Heads by their ACIE, largest first.

    Raises:
        ArtifactError: the table lacks a head's.
    """
    own = table[(table.metric == "acie") & (table.variant == variant) & (table.control == "")]
    own = own[(own.subject == cell.task) & (own.seed == cell.seed)].set_index("site").value
    every = sites_of(cell.model, "heads")
    if missing := [str(site) for site in every if str(site) not in own.index]:
        raise ArtifactError(
            f"no effect of {missing[0]} (task {cell.task}, seed {cell.seed}, {variant}) in the attribution's table; "
            "delete it and run attribute_heads again"
        )
    return sorted(every, key=lambda site: (-float(own[str(site)]), site))


# (variant, control, draw, layer, coefficient)
Key = tuple[str, str, int, int, float]


def steering(cell: Cell, found: Vectors) -> list[Measurement]:
    """Every vector at every layer and coefficient. Rows of controls are over all draws.

    `asr` on clean prompts is the share that now gets the backdoor's answer; `restored`, of triggered prompts, the share
    that now gets the clean one; `utility` that of clean prompts while the vector is taken away.
    """
    wanted = cell.job.spec.instruction.vector
    changed = cell.rows("test", wanted.evaluated, changed=True)
    every = cell.rows("test", wanted.evaluated)
    add, take = dict(_conditions(cell, found, 1.0)), dict(_conditions(cell, found, -1.0))
    own = {key: condition for key, condition in take.items() if not key[1]}
    first = {key: condition for key, condition in add.items() if key[:2] == (CORRECTED, "")}
    backdoor, both = {"asr": cell.succeeded}, {"asr": cell.succeeded, "restored": cell.correct}
    at_once: dict[str, Any] = {"at_once": wanted.rows}
    out = _rows(cell, "add", "clean", judged(cell, changed, "clean", add, backdoor, **at_once))
    out += _rows(cell, "take away", "trigger", judged(cell, changed, "trigger", take, both, **at_once))
    out += _rows(cell, "take away", "clean", judged(cell, every, "clean", own, {"utility": cell.correct}, **at_once))
    of_clean = judged(cell, changed, "clean", first, backdoor, clean=True, **at_once)
    return out + _rows(cell, "add", "clean", of_clean, control=CLEAN_MODEL)


def _conditions(cell: Cell, found: Vectors, sign: float) -> Iterator[tuple[Key, Condition]]:
    yield (CORRECTED, "", 0, -1, 0.0), {}  # unchanged
    for (variant, control, draw), vector in found.items():
        coefficients = [1.0] if variant == PUBLISHED else cell.job.spec.instruction.vector.coefficients
        for layer in range(adapter_of(cell.model).layers):
            for coefficient in coefficients:
                yield (
                    (variant, control, draw, layer, coefficient),
                    steered(layer, vector, sign * coefficient),
                )


def _rows(
    cell: Cell, way: str, form: str, found: dict[str, dict[Key, np.ndarray]], control: str = ""
) -> list[Measurement]:
    out = []
    for metric, hits in found.items():
        pooled: dict[tuple[str, str, int, float], list[np.ndarray]] = {}
        for (variant, own, _, layer, coefficient), values in hits.items():
            pooled.setdefault((variant, own or control, layer, coefficient), []).append(values)
        for (variant, own, layer, coefficient), draws in pooled.items():
            out.append(
                cell.share(
                    metric,
                    np.concatenate(draws),
                    experiment="backdoor vector",
                    site=str(Site(layer, "attn")) if layer >= 0 else "unchanged",
                    setting=f"{way} {coefficient:g}",
                    variant=variant,
                    control=own,
                    inputs=form,
                )
            )
    return out


if __name__ == "__main__":
    run(main, shared=True)
