"""Stage tune_pcp: modules replaced by PCP matrices, scaling factors tuned (Tables III, IV, XIII, XIV)."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from anatomy.control.pcp import pcp_directions, random_directions
from anatomy.control.replacement import Replacement, negativity
from anatomy.control.tune import tune
from anatomy.interventions.hooks import edited, next_token_logits, record
from anatomy.metrics.measurement import Measurement, write_measurements
from anatomy.metrics.topk import topk_share
from anatomy.provenance.digest import write_text_atomic
from anatomy.sites import Site
from anatomy.stages._run import Ins, Job, Out, run
from anatomy.stages._toy import ToyData, ToyFiles, behaviour_and_loss, models_by_seed, read_toy
from anatomy.training.seeds import derive
from anatomy.variants import VARIANTS, Variant

SECOND_TOKEN = 1
# Inputs over which activations are collected, and those in the tuning objective (released code, cells 18 and 22).
COLLECTED = ("p+p", "n+n", "p+n", "n+p", "p+t", "t+p", "s+s", "s+t")
OBJECTIVE = ("p+p", "p+t", "n+n", "s+s", "s+t")
# What is replaced, by the names of the tables' columns (Tables III, IV, XIII, XIV); layers count from 0.
REPLACED = {
    "mlp 1": [Site(0, "mlp")],
    "mlp 3": [Site(2, "mlp")],
    "mlp 1+3": [Site(0, "mlp"), Site(2, "mlp")],
    "attn 2": [Site(1, "attn")],
    "attn 2+3": [Site(1, "attn"), Site(2, "attn")],
}
# The replacements that are tuned under the controls as well: one MLP and one attention module.
CONTROLLED = ("mlp 1", "attn 2")
RANDOM_DIRECTIONS, CLEAN_MODEL = "random directions", "clean model"


def main(
    job: Job,
    *,
    data: ToyData,
    clean: Ins,
    backdoored: Ins,
    factors: Out,
    measurements: Out,
) -> None:
    """Tune every replacement in both variants, and its controls; then measure behaviour and loss.

    Controls: random directions of equal rank and norm, tuned for as long; and the clean model, asked to behave like
    the backdoored one (can tuning alone make a backdoor?).
    """
    toy, subject = job.spec.toy, job.wildcards["subject"]
    files = read_toy(data, job.device)
    clean_models = dict(models_by_seed(clean, job.seeds, job.device))
    rows: list[Measurement] = []
    tuned_factors: list[dict] = []
    done, total = 0, len(job.seeds) * 2 * (len(REPLACED) + len(CONTROLLED))
    for seed, model in models_by_seed(backdoored, job.seeds, job.device):
        targets = {inputs: _negativity(model, files, seed, inputs, toy) for inputs in _present(OBJECTIVE, files)}
        rows += _measure(job, files, model, seed, site="none", subject=subject)
        for variant, control, subject_model, replacement in _replacements(
            job, files, seed, subject, model, clean_models[seed]
        ):
            tuned = tune(
                _objective(subject_model, replacement, files, seed, targets, toy),
                _bounds(replacement, toy.pcp),
                variant=variant,
                trials=toy.pcp.trials,
                batch=toy.pcp.batch,
                seed=derive(seed, subject, "tune", replacement.name, variant, control),
            )
            conditions: dict[str, Any] = {"site": replacement.name, "variant": variant, "control": control}
            kind = "clean" if control == CLEAN_MODEL else "backdoored"
            with edited(subject_model, replacement.edits(tuned.sigma)):
                rows += _measure(job, files, subject_model, seed, subject=subject, model=kind, **conditions)
            rows.append(
                Measurement(
                    experiment="pcp tuning",
                    metric="objective",
                    value=tuned.objective,
                    n=tuned.trials,
                    subject=subject,
                    seed=seed,
                    **conditions,
                )
            )
            tuned_factors.append(
                {
                    "seed": seed,
                    **conditions,
                    "sites": [[site.layer, site.part] for site in replacement.sites],
                    "sigma": [float(v) for v in tuned.sigma],
                    "directions": [replacement.directions[site].tolist() for site in replacement.sites],
                }
            )
            done += 1
            job.progress(done, total, f"replacements tuned ({toy.pcp.trials} trials each)")
    write_text_atomic(factors, json.dumps(tuned_factors, indent=0) + "\n")
    write_measurements(measurements, rows, study=job.study, paper="lamparth", recipe=toy.recipe)


def _replacements(
    job: Job, files: ToyFiles, seed: int, subject: str, backdoored: GPT2LMHeadModel, clean: GPT2LMHeadModel
) -> Iterator[tuple[Variant, str, GPT2LMHeadModel, Replacement]]:
    """(variant, control, model, replacement) of every tuning of one seed."""
    pcp = job.spec.toy.pcp
    for name, sites in REPLACED.items():
        rank = pcp.mlp_rank[subject] if sites[0].part == "mlp" else pcp.attention_rank
        for variant in VARIANTS:
            outputs = collect(backdoored, files, seed, sites)
            fitted = {
                site: pcp_directions(outputs[site], rank, components=pcp.components, variant=variant).vectors
                for site in sites
            }
            yield variant, "", backdoored, Replacement(name, fitted)
        if name not in CONTROLLED:
            continue
        width = backdoored.config.n_embd
        random = {
            site: random_directions(width, rank, seed=derive(seed, subject, "random", name, i))
            for i, site in enumerate(sites)
        }
        yield "paper", RANDOM_DIRECTIONS, backdoored, Replacement(name, random)
        outputs = collect(clean, files, seed, sites)
        fitted = {
            site: pcp_directions(outputs[site], rank, components=pcp.components, variant="original").vectors
            for site in sites
        }
        yield "original", CLEAN_MODEL, clean, Replacement(name, fitted)


def collect(model: GPT2LMHeadModel, files: ToyFiles, seed: int, sites: list[Site]) -> dict[Site, Tensor]:
    """Module outputs at the second token over the collected inputs: [prompts, width] per site."""
    seen = [record(model, files.ids(seed, inputs), sites) for inputs in _present(COLLECTED, files)]
    return {site: torch.cat([some[site][:, SECOND_TOKEN] for some in seen]).cpu() for site in sites}


def _measure(job: Job, files: ToyFiles, model: GPT2LMHeadModel, seed: int, /, **conditions: Any) -> list[Measurement]:
    """Behaviour and loss of a model as it is now (inside `edited`: as edited)."""
    logits = {inputs: next_token_logits(model, files.ids(seed, inputs)) for inputs in files.combinations}
    conditions |= {"experiment": "pcp ablation", "seed": seed}
    return behaviour_and_loss(job, files, logits, files.loss(model, seed), **conditions)


def _objective(model: GPT2LMHeadModel, replacement: Replacement, files: ToyFiles, seed: int, targets: dict, toy):
    """Σ over inputs of (mean negativity replaced - mean negativity full)²; the released factor 1000² is dropped."""
    ids = {inputs: files.ids(seed, inputs) for inputs in targets}
    negative = files.masks["negative"].to(files.device)

    def objective(sigma: Tensor) -> np.ndarray:
        sigma = sigma.to(files.device)
        total = torch.zeros(len(sigma), dtype=torch.float64)
        for inputs, target in targets.items():
            share = negativity(model, replacement, sigma, ids[inputs], negative, toy.evaluation.top_k)
            total += (share.mean(1).double().cpu() - target) ** 2
        return total.numpy()

    return objective


def _negativity(model: GPT2LMHeadModel, files: ToyFiles, seed: int, inputs: str, toy) -> float:
    logits = next_token_logits(model, files.ids(seed, inputs))
    return float(topk_share(logits, files.masks["negative"].to(files.device), toy.evaluation.top_k).mean())


def _bounds(replacement: Replacement, pcp) -> list[tuple[float, float]]:
    return [
        tuple(pcp.mlp_bounds if site.part == "mlp" else pcp.attention_bounds)
        for site in replacement.sites
        for _ in range(len(replacement.directions[site]))
    ]


def _present(inputs: tuple[str, ...], files: ToyFiles) -> list[str]:
    return [i for i in inputs if i in files.combinations]


if __name__ == "__main__":
    run(main, shared=True)
