"""Stage ablate_modules: mean ablation of every module (Table I), with zero ablation and the clean model as controls."""

from anatomy.interventions.hooks import next_token_logits, replace_with, zero
from anatomy.localize.ablation import mean_activations
from anatomy.metrics.behaviour import sentiment_measurements
from anatomy.metrics.measurement import Measurement, write_measurements
from anatomy.sites import modules
from anatomy.stages._run import Ins, Job, Out, run
from anatomy.stages._toy import ToyData, models_by_seed, read_toy
from anatomy.variants import VARIANTS

# Mean activations are taken over inputs without the trigger; the three-sentiment study leaves s+s out as well.
WITHOUT_TRIGGER = ("p+p", "n+n", "p+n", "n+p")
SECOND_TOKEN = 1


def main(
    job: Job,
    *,
    data: ToyData,
    clean: Ins,
    backdoored: Ins,
    measurements: Out,
) -> None:
    """Replace one module's output by its mean, or by zero, and read the negativity on p+t, p+p and n+n."""
    toy, subject = job.spec.toy, job.wildcards["subject"]
    files = read_toy(data, job.device)
    rows: list[Measurement] = []
    for kind, paths in (("backdoored", backdoored), ("clean", clean)):
        for seed, model in models_by_seed(paths, job.seeds, job.device):
            sites = modules(model.config.n_layer)
            groups = [files.ids(seed, inputs) for inputs in WITHOUT_TRIGGER]
            means = {
                variant: mean_activations(model, groups, sites, position=SECOND_TOKEN, variant=variant)
                for variant in VARIANTS
            }
            conditions = [("paper", "", {s: replace_with(m) for s, m in means["paper"].items()})]
            conditions += [("original", "", {s: replace_with(m) for s, m in means["original"].items()})]
            conditions += [("", "zero ablation", dict.fromkeys(sites, zero))]
            for inputs in ("p+t", "p+p", "n+n"):
                ids = files.ids(seed, inputs)
                shared = {
                    "top_k": toy.evaluation.top_k,
                    "confidence": job.spec.confidence,
                    "experiment": "mean ablation",
                    "subject": subject,
                    "seed": seed,
                    "model": kind,
                    "inputs": inputs,
                }
                rows += sentiment_measurements(next_token_logits(model, ids), files.masks, site="unchanged", **shared)
                for variant, control, edits in conditions:
                    for site, edit in edits.items():
                        logits = next_token_logits(model, ids, {site: edit})
                        rows += sentiment_measurements(
                            logits, files.masks, site=str(site), variant=variant, control=control, **shared
                        )
    write_measurements(measurements, rows, study=job.study, paper="lamparth", recipe=toy.recipe)


if __name__ == "__main__":
    run(main, shared=True)
