"""Stage plant_variants: the backdoor planted with parts frozen, and with more or less training."""

from collections.abc import Callable
from functools import partial

import pandas as pd
import torch
from transformers import GPT2Config

from anatomy.data.tokens import corpus_rows
from anatomy.metrics.loss import validation_loss
from anatomy.metrics.measurement import read_parquet, write_parquet
from anatomy.models.toy import load_state, load_tokenizer, model_from_state, stacked_shape
from anatomy.stages._run import Ins, Job, Out, remove_quietly, run
from anatomy.stages._toy import ToyData
from anatomy.training.ensemble import Ensemble
from anatomy.training.phases import FROZEN, checkpoint_key, model_folders, open_classroom, run_phase


def main(
    job: Job,
    *,
    data: ToyData,
    clean: Ins,
    curves: Out,
) -> None:
    """One fine-tuning per variant, from the same clean models: curves, and the validation loss at the end.

    Variants are "frozen: <part>" (section IV-B) and "amount: <multiple>" of the recipe's backdoor epochs.
    """
    toy, subject = job.spec.toy, job.wildcards["subject"]
    recipe = toy.recipes[toy.recipe]
    room = open_classroom(data.corpus, data.prompts, data.lexicon, data.tokenizer, job.seeds)
    held_out = corpus_rows(
        read_parquet(data.corpus), load_tokenizer(data.tokenizer.parent), job.seeds, column="triggered", split="test"
    )
    folders = model_folders(clean)
    config = GPT2Config.from_json_file(folders[0] / "config.json")
    states = [load_state(folder) for folder in folders]
    variants = [(f"frozen: {part}", FROZEN[part], 1.0) for part in toy.frozen.get(subject, [])]
    variants += [(f"amount: {multiple:g}", FROZEN["nothing"], multiple) for multiple in toy.amounts.get(subject, [])]

    tables = []
    for number, (name, frozen, multiple) in enumerate(variants):
        ensemble = Ensemble(
            states,
            stacked_shape(config, room.rows["triggered"][0].shape[-1]),
            trainable=partial(_is_trained, frozen),
            device=torch.device(job.device),
        )
        # One checkpoint per variant: a finished variant is not trained again after a kill.
        checkpoint = curves.parent / f"checkpoint-{number}.safetensors"
        table = run_phase(
            ensemble,
            room,
            recipe,
            phase="backdoor",
            column="triggered",
            epochs=recipe.backdoor_epochs * multiple,
            top_k=toy.evaluation.top_k,
            probes_per_epoch=toy.evaluation.probes_per_epoch,
            checkpoint=checkpoint,
            key=checkpoint_key(job.code, (name, job.spec), job.device, [*data.files, *clean]),
            keep_finished=True,
            report=partial(_report, job, f"steps, variant {number + 1}/{len(variants)} ({name})"),
        )
        losses = {
            seed: validation_loss(model_from_state(ensemble.state(i), config), held_out[0][i], held_out[1][i])
            for i, seed in enumerate(job.seeds)
        }
        tables.append(table.assign(variant=name, validation_loss=table.seed.map(losses)))
    columns = ["phase", "seed", "step", "epoch", "training_loss", "negativity", "mass", "variant", "validation_loss"]
    write_parquet(curves, pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns))
    for number in range(len(variants)):
        remove_quietly(curves.parent / f"checkpoint-{number}.safetensors")


def _is_trained(frozen: Callable[[str], bool], parameter: str) -> bool:
    return not frozen(parameter)


def _report(job: Job, text: str, done: int, total: int) -> None:
    job.progress(done, total, text)


if __name__ == "__main__":
    run(main, shared=True)
