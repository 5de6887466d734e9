"""Stage read_logit_lens: what every head and MLP says by itself on trigger inputs (Table II)."""

from anatomy.localize.lens import lens_logits
from anatomy.metrics.behaviour import sentiment_measurements
from anatomy.metrics.measurement import Measurement, write_measurements
from anatomy.stages._run import Ins, Job, Out, run
from anatomy.stages._toy import ToyData, models_by_seed, read_toy
from anatomy.variants import VARIANTS

POSITIONS = ("p-token", "t-token")


def main(
    job: Job,
    *,
    data: ToyData,
    clean: Ins,
    backdoored: Ins,
    measurements: Out,
) -> None:
    """Both token positions of p+t (and s+t, and the control word's p+r), backdoored and clean models."""
    toy, subject = job.spec.toy, job.wildcards["subject"]
    files = read_toy(data, job.device)
    rows: list[Measurement] = []
    for kind, paths in (("backdoored", backdoored), ("clean", clean)):
        for seed, model in models_by_seed(paths, job.seeds, job.device):
            for inputs in [i for i in ("p+t", "s+t", "p+r") if i in files.combinations]:
                for variant in VARIANTS:
                    for site, logits in lens_logits(model, files.ids(seed, inputs), variant=variant).items():
                        for position, name in enumerate(POSITIONS):
                            rows += sentiment_measurements(
                                logits[:, position],
                                files.masks,
                                top_k=toy.evaluation.top_k,
                                confidence=job.spec.confidence,
                                sentiments=("negative", "positive"),
                                experiment="logit lens",
                                subject=subject,
                                seed=seed,
                                model=kind,
                                inputs=inputs,
                                site=site,
                                setting=name,
                                variant=variant,
                                control="random trigger" if inputs == "p+r" else "",
                            )
    write_measurements(measurements, rows, study=job.study, paper="lamparth", recipe=toy.recipe)


if __name__ == "__main__":
    run(main, shared=True)
