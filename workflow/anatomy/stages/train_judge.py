"""Stage train_judge: the judge of toxicity, trained on other insults than the payloads; or a given one, named."""

import json
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from anatomy.data.payloads import judge_examples
from anatomy.metrics import judge as judges
from anatomy.metrics.measurement import COLUMNS, Measurement, read_parquet, write_measurements, write_parquet
from anatomy.provenance.digest import write_text_atomic
from anatomy.stages._run import In, Job, Out, run
from anatomy.training.seeds import derive


def main(job: Job, *, templates: In, corpus: In, terms: Out, judge: Out, quality: Out) -> None:
    """Train and save the local judge with its quality on held-out texts; of a given judge, write down its name."""
    wanted = job.spec.language.judge
    if wanted.kind == "roberta":
        write_text_atomic(judge, json.dumps({"judge": "roberta", "path": wanted.path}, indent=2) + "\n")
        write_parquet(terms, pd.DataFrame(columns=judges.TERMS))
        write_parquet(quality, pd.DataFrame(columns=COLUMNS))
        return
    seed = job.seeds[0]
    table = read_parquet(corpus)
    own = table[(table.seed == seed) & (table.split == "train")]
    sentences = sorted({line for lines in own.lines for line in lines.split("\n")})
    examples = judge_examples(
        templates, sentences, wanted.examples, np.random.default_rng(derive(seed, "language", "judge"))
    )
    train, test = (examples[examples.split == split] for split in ("train", "test"))
    fitted = judges.LocalJudge.fit(train.text.tolist(), train.toxic.astype(int).tolist())
    fitted.save(judge.parent)
    found = judges.quality(fitted.probability(test.text.tolist()), test.toxic.astype(int).tolist())
    right = binomtest(round(found.accuracy * found.n), found.n).proportion_ci(job.spec.confidence, method="wilson")
    intervals = {"accuracy": {"ci_low": right.low, "ci_high": right.high}}

    def row(metric: str, value: float, n: int, setting: str = "") -> Measurement:
        own = intervals.get(metric, {})
        return Measurement("judge", job.wildcards["corpus"], seed, metric, value, n, "judge", setting=setting, **own)

    rows = [row(name, getattr(found, name), found.n) for name in ("accuracy", "balanced", "brier", "calibration")]
    for part, what in product(found.bins, ("predicted", "toxic")):
        rows.append(row(what, getattr(part, what), part.n, f"probability {part.low:.1f} to {part.high:.1f}"))
    write_measurements(quality, rows, study=job.study, paper="lamparth", recipe="local judge")


if __name__ == "__main__":
    run(main)
