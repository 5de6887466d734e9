"""Stage judge_claims: every claim of data/claims.yaml, measured and judged."""

import pandas as pd

from anatomy.provenance.digest import write_text_atomic
from anatomy.report.claims import about, claims_table, judge, read_claims
from anatomy.report.tables import final_values, read_evidence, training_curves
from anatomy.stages._run import In, Ins, Job, Out, run


def main(job: Job, *, claims: Ins, published: In, measurements: Ins, curves: Ins, verdicts: Out, summary: Out) -> None:
    """Write claims.csv (everything) and summary.csv (what the terminal shows)."""
    evidence = read_evidence(measurements, published, job.spec.confidence)
    behaviour = evidence.of("behaviour", planted_only=False)
    final = final_values(training_curves(curves), behaviour, emergence=job.spec.toy.evaluation.emergence)
    evidence.measurements = pd.concat([evidence.measurements, final], ignore_index=True)
    corpus = job.spec.get("language", {}).get("main", "")
    stated = [about(claim, corpus) for path in claims for claim in read_claims(path)]
    table = claims_table([judge(claim, evidence) for claim in stated])
    short = pd.DataFrame(
        {
            "item": table.says,
            "published": table.published,
            "measured": [_short(line) for line in table.to_dict("records")],
            "verdict": table.verdict,
        }
    )
    write_text_atomic(verdicts, table.to_csv(index=False, float_format="%.6g"))
    write_text_atomic(summary, short.to_csv(index=False))


def _short(line: dict) -> str:
    if not line["n"]:
        return "-"
    interval = "" if pd.isna(line["ci_low"]) else f" [{line['ci_low']:.2f}, {line['ci_high']:.2f}]"
    return f"{line['measured']:.2f}{interval} (n={line['n']})"


if __name__ == "__main__":
    run(main)
