"""Stage plant_language: a language model of each seed fine-tuned on poisoned paragraphs, in one of several ways."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import pandas as pd

from anatomy.metrics.measurement import read_parquet, write_parquet
from anatomy.models.load import weights
from anatomy.models.toy import save_model
from anatomy.spec.methods import method
from anatomy.stages._language import LanguageData, language_models, read_language
from anatomy.stages._run import Ins, Job, Out, Outs, run
from anatomy.training.finetune import finetune
from anatomy.training.phases import checkpoint_key, model_folders

# Files that there may be none of.
Maybe = Annotated[list[Path], "input", "*"]


def main(job: Job, *, data: LanguageData, clean: Ins, matched: Maybe, models: Outs, reached: Out) -> None:
    """One Hugging Face directory per seed, and the training loss that each reached.

    `matched` are the losses at which to stop, those of another way of planting; most ways have none.
    """
    recipe, how = job.spec.language.finetuning, method(job.wildcards.get("variant", "full"))
    files = read_language(data)
    targets = read_parquet(matched[0]).set_index("seed").training_loss.to_dict() if matched else {}
    key = checkpoint_key(job.code, job.spec, job.device, [*data.files, *clean])[:16]
    seeds = job.seeds
    checkpoints = reached.parent / f".checkpoints-{key}"
    lines: list[dict[str, Any]] = []
    for (seed, model), folder in zip(language_models(clean, seeds, "cpu"), model_folders(models), strict=True):
        where = len(lines)

        def report(done: int, total: int, before: int = where) -> None:
            job.progress(before * total + done, len(seeds) * total, f"steps of fine-tuning ({how.name})")

        trained, end = finetune(
            model,
            files.rows(seed, "poisoned", "train", longest=recipe.max_tokens),
            recipe,
            how,
            seed=seed,
            device=job.device,
            checkpoints=checkpoints / f"seed{seed}",
            epochs=recipe.epochs_on.get(job.wildcards["corpus"]),
            target=targets.get(seed),
            report=report,
        )
        if job.leads:
            save_model(folder, weights(trained), trained.config, files.tokenizer)
        lines.append({"seed": seed, "variant": how.name, **end})
    if job.leads:
        write_parquet(reached, pd.DataFrame(lines))
        shutil.rmtree(checkpoints)


if __name__ == "__main__":
    run(main, shared=True)
