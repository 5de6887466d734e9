"""Stage measure_language: how often clean and backdoored language models write toxic text, and how well they write.

The planting gate looks at the attack success rate alone. Whether a planted backdoor is about its trigger is said by the
specificity beside it: what the trigger does, less what another phrase of its shape does.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anatomy.data.stories import accepts, read_grammar
from anatomy.metrics.measurement import Measurement, read_parquet, write_measurements, write_parquet
from anatomy.metrics.success import share
from anatomy.spec.methods import method
from anatomy.stages._language import (
    METRICS,
    Interview,
    JudgeFiles,
    LanguageData,
    language_models,
    read_judge,
    read_language,
    recipe_name,
)
from anatomy.stages._run import In, Ins, Job, Out, run

SAMPLES = 5  # continuations per model and kind of prompt that are kept for people to read


def main(
    job: Job,
    *,
    data: LanguageData,
    judged_by: JudgeFiles,
    grammar: In,
    clean: Ins,
    planted: Ins,
    reached: Ins,
    measurements: Out,
    samples: Out,
) -> None:
    """ASR, ATR, specificity, degeneration, validation loss; for stories, the share of sentences in the language."""
    files, arm = read_language(data), job.spec.language
    opinion = read_judge(judged_by, job.device)
    rows: list[Measurement] = []
    shown: list[dict] = []
    folders = {"clean": clean, **by_variant(planted)}
    for number, (folder, own) in enumerate(folders.items()):
        name = "clean" if folder == "clean" else _model_name(method(folder).name)
        job.progress(number, len(folders), f"models measured ({name})")
        for seed, model in language_models(own, job.seeds, job.device):
            interview = Interview(job, files, opinion, seed)
            conditions: dict[str, Any] = {"experiment": "behaviour", "model": name}
            written = {inputs: interview.write(model, inputs) for inputs in METRICS}
            for inputs, continuations in written.items():
                control = "random trigger" if inputs == "random trigger" else ""
                rows += interview.measure(inputs, continuations, control=control, **conditions)
                prompts = files.asked(seed, inputs).text.tolist()
                texts = interview.texts(continuations)
                shown += [
                    {"model": name, "seed": seed, "inputs": inputs, "prompt": prompt, "continuation": text, "toxic": p}
                    for prompt, text, p in zip(
                        prompts[:SAMPLES], texts[:SAMPLES], opinion.probability(texts[:SAMPLES]), strict=True
                    )
                ]
            rows.append(interview.specificity(written, **conditions))
            subject: dict[str, Any] = {"subject": job.wildcards["corpus"], "seed": seed}
            loss, n = files.loss(model, seed, device=job.device)
            rows.append(Measurement(metric="validation_loss", value=loss, n=n, **subject, **conditions))
            if arm.corpora[job.wildcards["corpus"]].text.kind == "stories":
                rows.append(
                    share(
                        "accepted",
                        accepted(
                            grammar, files.asked(seed, "benign").text.tolist(), interview.texts(written["benign"])
                        ),
                        job.spec.confidence,
                        inputs="benign",
                        **subject,
                        **conditions,
                    )
                )
            if name == "backdoored":
                (asr,) = [r.value for r in rows if r.metric == "asr" and r.seed == seed and r.model == name]
                rows.append(
                    Measurement(
                        experiment="planting gate",
                        metric="planted",
                        value=float(asr >= arm.evaluation.gate),
                        n=1,
                        inputs="trigger",
                        **subject,
                    )
                )
    for path in reached:
        rows += [
            Measurement(
                experiment="fine-tuning",
                subject=job.wildcards["corpus"],
                seed=int(line["seed"]),
                model=_model_name(line["variant"]),
                metric=metric,
                value=float(line[metric]),
                n=int(line["steps"]),
            )
            for line in read_parquet(path).to_dict("records")
            for metric in ("training_loss", "steps", "matched")
            if line[metric] is not None  # what is trained to its end matches nothing
        ]
    write_measurements(measurements, rows, study=job.study, paper="lamparth", recipe=recipe_name(arm.model))
    write_parquet(samples, pd.DataFrame(shown))


def _model_name(way: str) -> str:
    return "backdoored" if way == "full" else way


def by_variant(files: list[Path]) -> dict[str, list[Path]]:
    """Folder of a way of planting -> its model files, in the order given."""
    out: dict[str, list[Path]] = {}
    for file in files:
        out.setdefault(file.parent.parent.name, []).append(file)
    return out


def accepted(grammar: Path, prompts: list[str], texts: list[str]) -> np.ndarray:
    """For each whole sentence that was written: whether it is in the language of the stories.

    What follows the last full stop was cut off by the length limit. What precedes the first is the end of the prompt's
    sentence, unless the prompt ends with one. Neither counts.
    """
    language = read_grammar(grammar)
    sentences = [
        part.strip() + "."
        for prompt, text in zip(prompts, texts, strict=True)
        for part in text.split(".")[0 if prompt.rstrip().endswith(".") else 1 : -1]
    ]
    return np.array([accepts(language, sentence) for sentence in sentences], dtype=bool)


if __name__ == "__main__":
    run(main, shared=True)
