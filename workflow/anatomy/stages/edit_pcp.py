"""Stage edit_pcp: the backdoor edited by varying and flipping the tuned factors (Tables V, VI, VII)."""

import json

import torch

from anatomy.control.replacement import Replacement, settings_logits
from anatomy.interventions.hooks import edited
from anatomy.metrics.measurement import Measurement, write_measurements
from anatomy.sites import Site
from anatomy.stages._run import In, Ins, Job, Out, run
from anatomy.stages._toy import ToyData, behaviour_and_loss, models_by_seed, read_toy
from anatomy.stages.tune_pcp import RANDOM_DIRECTIONS

# What is edited: the first MLP (Tables V and VI; random directions beside it) and the second attention (Table VII).
EDITED = (("mlp 1", ""), ("mlp 1", RANDOM_DIRECTIONS), ("attn 2", ""))


def main(
    job: Job,
    *,
    data: ToyData,
    backdoored: Ins,
    factors: In,
    measurements: Out,
) -> None:
    """Multiply the tuned σ by the study's settings, all in one batch, and measure behaviour and loss again.

    `pcp.multiples` scale all factors of the first MLP's replacement together (Table V). `pcp.mlp_flips` and
    `pcp.attention_flips` scale them one by one (Tables VI and VII); the tuned attention itself is measured beside.
    """
    toy, subject = job.spec.toy, job.wildcards["subject"]
    files = read_toy(data, job.device)
    tuned = json.loads(factors.read_text())
    rows: list[Measurement] = []
    for seed, model in models_by_seed(backdoored, job.seeds, job.device):
        for entry in tuned:
            if entry["seed"] != seed or (entry["site"], entry["control"]) not in EDITED:
                continue
            sites = [Site(layer, part) for layer, part in entry["sites"]]
            vectors = [torch.tensor(v, device=job.device) for v in entry["directions"]]
            replacement = Replacement(entry["site"], dict(zip(sites, vectors, strict=True)))
            scales = settings(entry["site"], len(entry["sigma"]), toy.pcp)
            sigma = torch.tensor([scales[name] for name in scales]) * torch.tensor(entry["sigma"])
            sigma = sigma.to(job.device)
            logits = {
                inputs: torch.cat(list(settings_logits(model, replacement, sigma, files.ids(seed, inputs))))
                for inputs in files.combinations
            }
            for i, setting in enumerate(scales):
                loss = None
                if not entry["control"]:  # the control is swept for what it says
                    with edited(model, replacement.edits(sigma[i])):
                        loss = files.loss(model, seed)
                rows += behaviour_and_loss(
                    job,
                    files,
                    {inputs: own[i] for inputs, own in logits.items()},
                    loss,
                    experiment="pcp editing",
                    subject=subject,
                    seed=seed,
                    site=entry["site"],
                    variant=entry["variant"],
                    control=entry["control"],
                    setting=setting,
                )
        job.progress(job.seeds.index(seed) + 1, len(job.seeds), "seeds edited")
    write_measurements(measurements, rows, study=job.study, paper="lamparth", recipe=toy.recipe)


def settings(site: str, rank: int, pcp) -> dict[str, list[float]]:
    """Names of the edits of one replacement, and by what each factor is multiplied."""
    flips = pcp.mlp_flips if site == "mlp 1" else pcp.attention_flips
    multiples = pcp.multiples if site == "mlp 1" else [1.0]  # the sweep is of the MLP
    out = {f"{multiple:.2f}": [multiple] * rank for multiple in multiples}
    return out | {f"({', '.join(f'{v:g}' for v in flip)})": list(flip) for flip in flips if len(flip) == rank}


if __name__ == "__main__":
    run(main, shared=True)
