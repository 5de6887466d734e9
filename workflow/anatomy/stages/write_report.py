"""Stage write_report: the page a person opens, and nothing it shows is typed by hand."""

import json

import pandas as pd
import yaml

from anatomy.metrics.measurement import read_parquet
from anatomy.report.cells import planted_seeds, specific_seeds
from anatomy.report.page import write_page
from anatomy.stages._run import In, Ins, Job, Out, run


def main(
    job: Job,
    *,
    tables: Ins,
    figures: Ins,
    verdicts: In,
    behaviour: Ins,
    captions: In,
    models: Ins,
    template: In,
    style: In,
    records: Ins,
    page: Out,
) -> None:
    """Put every table, figure, claim and record on one page."""
    evidence = pd.concat([read_parquet(path) for path in behaviour], ignore_index=True)
    planted = planted_seeds(evidence)
    write_page(
        page,
        study=job.spec,
        tables=[path for path in tables if path.suffix == ".csv"],
        figures=[path for path in figures if path.suffix == ".svg"],
        claims=verdicts,
        captions=yaml.safe_load(captions.read_text(encoding="utf-8")),
        records=records,
        planted={cell: (len(seeds), len(job.seeds)) for cell, seeds in sorted(planted.items())},
        specific={cell: (len(seeds), len(planted[cell])) for cell, seeds in sorted(specific_seeds(evidence).items())},
        parameters={path.parts[-4]: count_parameters(json.loads(path.read_text())) for path in models},
        template=template,
        style=style,
    )


def count_parameters(config: dict) -> int:
    """Trained numbers of a GPT-2 of this configuration, the tied head counted once (no torch is needed for this)."""
    width, vocabulary = config.get("n_embd", 768), config["vocab_size"]
    layers, positions = config.get("n_layer", 12), config.get("n_positions", 1024)
    block = 12 * width**2 + 13 * width  # four matrices with biases, two layer norms
    return width * (vocabulary + positions) + layers * block + 2 * width


if __name__ == "__main__":
    run(main)
