"""Stage edit_pcp: the backdoor edited by varying and flipping the tuned factors (Tables V, VI, VII)."""

import json

import torch

from anatomy.control.replacement import Replacement
from anatomy.interventions.hooks import edited
from anatomy.metrics.measurement import Measurement, write_measurements
from anatomy.sites import Site
from anatomy.stages._run import In, Ins, Job, Out, run
from anatomy.stages._toy import models_by_seed, read_toy
from anatomy.stages.tune_pcp import measure

# What is edited: the first MLP (Tables V and VI; random directions beside it) and the second attention (Table VII).
EDITED = (("mlp 1", ""), ("mlp 1", "random directions"), ("attn 2", ""))


def main(
    job: Job,
    *,
    corpus: In,
    prompts: In,
    lexicon: In,
    tokenizer: In,
    tokenizer_config: In,
    backdoored: Ins,
    factors: In,
    measurements: Out,
) -> None:
    """Multiply the tuned σ by the study's settings and measure behaviour and loss again.

    `pcp.multiples` scale all factors of the first MLP's replacement together (Table V). `pcp.mlp_flips` and
    `pcp.attention_flips` scale them one by one (Tables VI and VII).
    """
    toy, subject = job.spec.toy, job.wildcards["subject"]
    files = read_toy(corpus, prompts, lexicon, tokenizer, job.device)
    tuned = json.loads(factors.read_text())
    rows: list[Measurement] = []
    for seed, model in models_by_seed(backdoored, job.seeds, job.device):
        for entry in tuned:
            if entry["seed"] != seed or (entry["site"], entry["control"]) not in EDITED:
                continue
            sites = [Site(layer, part) for layer, part in entry["sites"]]
            vectors = [torch.tensor(v, device=job.device) for v in entry["directions"]]
            replacement = Replacement(entry["site"], dict(zip(sites, vectors, strict=True)))
            sigma = torch.tensor(entry["sigma"], device=job.device)
            for setting, scale in settings(entry["site"], len(sigma), toy.pcp).items():
                with edited(model, replacement.edits(sigma * scale.to(sigma))):
                    rows += measure(
                        job,
                        files,
                        model,
                        seed,
                        subject,
                        site=entry["site"],
                        variant=entry["variant"],
                        control=entry["control"],
                        setting=setting,
                        experiment="pcp editing",
                    )
        job.progress(job.seeds.index(seed) + 1, len(job.seeds), "seeds edited")
    write_measurements(measurements, rows, study=job.study, paper="lamparth", recipe=toy.recipe)


def settings(site: str, rank: int, pcp) -> dict[str, torch.Tensor]:
    """Names and scale vectors of the edits of one replacement."""
    flips = pcp.mlp_flips if site == "mlp 1" else pcp.attention_flips
    out = {f"{multiple:.2f}": torch.full((rank,), multiple) for multiple in pcp.multiples}
    return out | {f"({', '.join(f'{v:g}' for v in flip)})": torch.tensor(flip) for flip in flips if len(flip) == rank}


if __name__ == "__main__":
    run(main)
