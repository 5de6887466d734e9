"""Stage patch_modules: causal patching of every module on trigger inputs (Table XII)."""

from dataclasses import replace
from typing import Any

from anatomy.interventions.hooks import next_token_logits
from anatomy.localize.patching import patched_logits
from anatomy.metrics.behaviour import sentiment_measurements
from anatomy.metrics.intervals import student
from anatomy.metrics.measurement import Measurement, write_measurements
from anatomy.metrics.topk import topk_share
from anatomy.sites import modules
from anatomy.stages._run import Ins, Job, Out, run
from anatomy.stages._toy import ToyData, models_by_seed, read_toy

# Where the patched activations come from. p+p is the experiment; p+r (another positive special in the trigger's
# place) shows what any change of the second word does.
SOURCES = {"p+p": "", "p+r": "random trigger"}


def main(
    job: Job,
    *,
    data: ToyData,
    clean: Ins,
    backdoored: Ins,
    measurements: Out,
) -> None:
    """Negativity on p+t under patching, and the indirect effect IE = patched - full, prompt by prompt."""
    toy, subject = job.spec.toy, job.wildcards["subject"]
    files = read_toy(data, job.device)
    negative = files.masks["negative"].to(job.device)
    rows: list[Measurement] = []
    for kind, paths in (("backdoored", backdoored), ("clean", clean)):
        for seed, model in models_by_seed(paths, job.seeds, job.device):
            into = files.ids(seed, "p+t")
            shared = {
                "top_k": toy.evaluation.top_k,
                "confidence": job.spec.confidence,
                "experiment": "causal patching",
                "subject": subject,
                "seed": seed,
                "model": kind,
                "inputs": "p+t",
            }
            unpatched = next_token_logits(model, into)
            full_share = topk_share(unpatched, negative, toy.evaluation.top_k)
            rows += sentiment_measurements(unpatched, files.masks, site="full", **shared)
            for source, control in SOURCES.items():
                for site in modules(model.config.n_layer):
                    logits = patched_logits(model, into, files.ids(seed, source), site)
                    (patched,) = sentiment_measurements(
                        logits,
                        files.masks,
                        site=str(site),
                        setting=f"from {source}",
                        control=control,
                        **shared,
                    )
                    effects = topk_share(logits, negative, toy.evaluation.top_k) - full_share
                    effect = student(effects.double().cpu().numpy(), job.spec.confidence)
                    indirect: dict[str, Any] = {"value": effect.mean, "ci_low": effect.low, "ci_high": effect.high}
                    rows += [patched, replace(patched, metric="indirect_effect", **indirect)]
    write_measurements(measurements, rows, study=job.study, paper="lamparth", recipe=toy.recipe)


if __name__ == "__main__":
    run(main, shared=True)
