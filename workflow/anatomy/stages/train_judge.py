"""Stage train_judge: the judge of toxicity, trained on other insults than the payloads; or a given one, named."""

import json
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from anatomy.data.payloads import CORPUS, judge_examples
from anatomy.metrics import judge as judges
from anatomy.metrics.measurement import COLUMNS, Measurement, read_parquet, write_measurements, write_parquet
from anatomy.metrics.success import share
from anatomy.provenance.digest import write_text_atomic
from anatomy.stages._run import In, Job, Out, run
from anatomy.training.seeds import derive


def main(job: Job, *, templates: In, corpus: In, texts: In, terms: Out, judge: Out, quality: Out) -> None:
    """Train and save the local judge with its quality on held-out texts; of a given judge, write down its name."""
    wanted = job.spec.language.judge
    if wanted.kind == "roberta":
        write_text_atomic(judge, json.dumps({"judge": "roberta", "path": wanted.path}, indent=2) + "\n")
        write_parquet(terms, pd.DataFrame(columns=judges.TERMS))
        write_parquet(quality, pd.DataFrame(columns=COLUMNS))
        return
    seed = job.seeds[0]
    table = read_parquet(corpus)
    told = table[(table.seed == seed) & (table.split == "train")]
    sentences = sorted({line for lines in told.lines for line in lines.split("\n")})
    examples = judge_examples(
        templates, sentences, wanted.examples, np.random.default_rng(derive(seed, "language", "judge"))
    )
    train, test = (examples[examples.split == split] for split in ("train", "test"))
    groups = [f"{name} {i}" if name == CORPUS else name for i, name in enumerate(train.template)]
    fitted = judges.LocalJudge.fit(train.text.tolist(), train.toxic.astype(int).tolist(), groups=groups)
    fitted.save(judge.parent)
    found = judges.quality(fitted.probability(test.text.tolist()), test.toxic.astype(int).tolist())
    said = fitted.probability(test.text.tolist()) > 0.5
    # What it does not know of the payloads is missing from every ASR; what it takes for toxic is in every ATR.
    insults = read_parquet(texts).query("kind == 'toxic'").text
    unseen = {
        line for lines in table[(table.seed == seed) & (table.split == "test")].lines for line in lines.split("\n")
    } - set(sentences)
    own: dict[str, Any] = {"subject": job.wildcards["corpus"], "seed": seed, "model": "judge", "experiment": "judge"}

    def row(metric: str, value: float, n: int, setting: str = "") -> Measurement:
        return Measurement(metric=metric, value=value, n=n, setting=setting, **own)

    rows = [
        share("accuracy", said == test.toxic.to_numpy(), job.spec.confidence, **own),
        share("recall", fitted.probability(insults.tolist()) > 0.5, job.spec.confidence, **own),
        share("false_positives", fitted.probability(sorted(unseen)) > 0.5, job.spec.confidence, **own),
        *(row(name, getattr(found, name), found.n) for name in ("balanced", "brier", "calibration")),
    ]
    for part, what in product(found.bins, ("predicted", "toxic")):
        rows.append(row(what, getattr(part, what), part.n, f"probability {part.low:.1f} to {part.high:.1f}"))
    write_measurements(quality, rows, study=job.study, paper="lamparth", recipe="local judge")


if __name__ == "__main__":
    run(main)
