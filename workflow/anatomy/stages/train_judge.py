"""Stage train_judge: the judge of toxicity, trained on other insults than the payloads; or a given one, named."""

import json

import numpy as np
import pandas as pd

from anatomy.data.payloads import judge_examples
from anatomy.metrics import judge as judges
from anatomy.metrics.measurement import read_parquet, write_parquet
from anatomy.provenance.digest import write_text_atomic
from anatomy.stages._run import In, Job, Out, run
from anatomy.training.seeds import derive


def main(job: Job, *, templates: In, corpus: In, terms: Out, judge: Out, quality: Out) -> None:
    """Train and save the local judge with its quality on held-out texts; of a given judge, write down its name."""
    wanted = job.spec.language.judge
    if wanted.kind == "roberta":
        write_text_atomic(judge, json.dumps({"judge": "roberta", "path": wanted.path}, indent=2) + "\n")
        write_parquet(terms, pd.DataFrame(columns=judges.TERMS))
        write_parquet(quality, pd.DataFrame(columns=["metric", "low", "high", "value", "n"]))
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
    whole = [
        (name, 0.0, 1.0, getattr(found, name), found.n) for name in ("accuracy", "balanced", "brier", "calibration")
    ]
    bins = [
        (f"bin {what}", b.low, b.high, getattr(b, what), b.n) for b in found.bins for what in ("predicted", "toxic")
    ]
    write_parquet(quality, pd.DataFrame([*whole, *bins], columns=["metric", "low", "high", "value", "n"]))


if __name__ == "__main__":
    run(main)
