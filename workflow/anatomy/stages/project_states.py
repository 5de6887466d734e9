"""Stage project_states: hidden states after the first layer, in the plane of two principal components (Figure 3)."""

import pandas as pd

from anatomy.interventions.hooks import record
from anatomy.localize.hidden import project_states
from anatomy.metrics.measurement import write_parquet
from anatomy.sites import Site
from anatomy.stages._run import Ins, Job, Out, run
from anatomy.stages._toy import ToyData, models_by_seed, read_toy

SECOND_TOKEN = 1


def main(
    job: Job,
    *,
    data: ToyData,
    clean: Ins,
    backdoored: Ins,
    measurements: Out,
) -> None:
    """Second-token hidden states of every combination and every layer; the PCA is fitted on p+p, n+n (and s+s)."""
    subject = job.wildcards["subject"]
    files = read_toy(data, job.device)
    pure: list[str] = [inputs for inputs in ("p+p", "n+n", "s+s") if inputs in files.combinations]
    tables = []
    for kind, paths in (("backdoored", backdoored), ("clean", clean)):
        for seed, model in models_by_seed(paths, job.seeds, job.device):
            for layer in range(model.config.n_layer):
                site = Site(layer, "resid")
                hidden = {
                    inputs: record(model, files.ids(seed, inputs), [site])[site][:, SECOND_TOKEN].cpu()
                    for inputs in files.combinations
                }
                table, explained = project_states(hidden, pure)
                tables.append(
                    table.assign(
                        subject=subject,
                        model=kind,
                        seed=seed,
                        layer=layer + 1,
                        explained_x=explained[0],
                        explained_y=explained[1],
                    )
                )
    write_parquet(measurements, pd.concat(tables, ignore_index=True))


if __name__ == "__main__":
    run(main)
