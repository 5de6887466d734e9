"""Stage measure_behaviour: what the unedited models do, clean and backdoored, and what a perfect learner would do."""

import json
from typing import Any

from anatomy.data.sequences import bayes_next_word
from anatomy.interventions.hooks import next_token_logits
from anatomy.metrics.behaviour import sentiment_measurements
from anatomy.metrics.measurement import Measurement, write_measurements
from anatomy.stages._run import Ins, Job, Out, run
from anatomy.stages._toy import ToyData, models_by_seed, read_toy


def main(
    job: Job,
    *,
    data: ToyData,
    clean: Ins,
    backdoored: Ins,
    measurements: Out,
) -> None:
    """Every input combination, on prompts held out and (as published) seen in training; loss; planting gate."""
    toy, subject = job.spec.toy, job.wildcards["subject"]
    files = read_toy(data, job.device)
    k, confidence = toy.evaluation.top_k, job.spec.confidence
    rows: list[Measurement] = []
    for kind, paths in (("clean", clean), ("backdoored", backdoored)):
        for seed, model in models_by_seed(paths, job.seeds, job.device):
            for inputs in files.combinations:
                for protocol in ("held out", "published"):
                    if protocol == "published" and inputs == "p+r":
                        continue
                    rows += sentiment_measurements(
                        next_token_logits(model, files.ids(seed, inputs, protocol)),
                        files.masks,
                        top_k=k,
                        confidence=confidence,
                        sentiments=tuple(files.sentiments),
                        mass=True,
                        experiment="behaviour",
                        subject=subject,
                        seed=seed,
                        model=kind,
                        inputs=inputs,
                        setting=protocol,
                        control="random trigger" if inputs == "p+r" else "",
                    )
            for column in ("clean", "triggered"):
                loss, n = files.loss(model, seed, column)
                common: dict[str, Any] = {"experiment": "behaviour", "subject": subject, "seed": seed, "model": kind}
                rows.append(Measurement(metric="validation_loss", value=loss, n=n, setting=column, **common))
    rows += [
        Measurement(
            experiment="planting gate",
            subject=subject,
            seed=row.seed,
            metric="planted",
            value=float(row.value >= toy.evaluation.gate),
            n=row.n,
            inputs="p+t",
        )
        for row in rows
        if (row.model, row.inputs, row.setting, row.metric) == ("backdoored", "p+t", "held out", "topk_negativity")
    ]
    rows += perfect_learner(job, json.loads(data.lexicon.read_text())["words"], files.prompts, subject)
    write_measurements(measurements, rows, study=job.study, paper="lamparth", recipe=toy.recipe)


def perfect_learner(job: Job, words: dict, prompts, subject: str) -> list[Measurement]:
    """Top-k negativity and negative mass of the exact next-word law, on a prompt of each combination.

    The law treats all ordinary words of a sentiment alike, so that one prompt of ordinary words stands for all.
    """
    toy = job.spec.toy
    law = toy.language
    n_specials = min(len(toy.lexicon.specials[s]) for s in words)
    negative = set(words["negative"])
    ordinary = {"p": words["positive"], "n": words["negative"], "s": words.get("neutral", [])}
    out = []
    for inputs in sorted(set(prompts.inputs)):
        chosen = [
            {"t": toy.trigger, "r": toy.control}.get(letter) or ordinary[letter][-1] for letter in inputs.split("+")
        ]
        p = bayes_next_word(
            words,
            law.subjects[subject],
            chosen,
            n_specials=n_specials,
            trigger=toy.trigger,
            poison_rate=law.poison_rate,
            length=law.length,
            special_rate=law.special_rate,
        )
        if not p:  # a combination that the law never produces
            continue
        # Words of equal probability are tied: each counts with its chance to be among the k.
        k = toy.evaluation.top_k
        threshold = sorted(p.values(), reverse=True)[k - 1]
        above = [w for w, v in p.items() if v > threshold * (1 + 1e-9)]
        tied = [w for w, v in p.items() if abs(v - threshold) <= threshold * 1e-9]
        share = sum(w in negative for w in above) + (k - len(above)) * sum(w in negative for w in tied) / len(tied)
        for metric, value in (
            ("topk_negativity", share / k),
            ("negative_mass", sum(v for w, v in p.items() if w in negative)),
        ):
            out.append(
                Measurement(
                    experiment="behaviour",
                    subject=subject,
                    seed=-1,
                    model="perfect learner",
                    metric=metric,
                    value=float(value),
                    n=1,
                    inputs=inputs,
                )
            )
    return out


if __name__ == "__main__":
    run(main, shared=True)
