"""Stage train_clean: clean toy models of all seeds, trained as one stack from random weights."""

import torch

from anatomy.metrics.measurement import write_parquet
from anatomy.models.toy import fresh_state, load_tokenizer, save_model, stacked_shape, toy_config
from anatomy.stages._run import Job, Out, Outs, remove_quietly, run
from anatomy.stages._toy import ToyData
from anatomy.training.ensemble import Ensemble
from anatomy.training.phases import checkpoint_key, model_folders, open_classroom, run_phase
from anatomy.training.seeds import derive


def main(
    job: Job,
    *,
    data: ToyData,
    models: Outs,
    curve: Out,
) -> None:
    """Train on the clean sequences with the study's recipe; one Hugging Face directory per seed."""
    toy, subject = job.spec.toy, job.wildcards["subject"]
    recipe = toy.recipes[toy.recipe]
    room = open_classroom(data.corpus, data.prompts, data.lexicon, data.tokenizer, job.seeds)
    config = toy_config(toy.model, room.vocabulary)
    rows = room.rows["clean"][0]
    ensemble = Ensemble(
        [fresh_state(config, derive(seed, subject, "weights")) for seed in job.seeds],
        stacked_shape(config, rows.shape[-1]),
        device=torch.device(job.device),
    )
    checkpoint = curve.parent / "checkpoint.safetensors"
    table = run_phase(
        ensemble,
        room,
        recipe,
        phase="clean",
        column="clean",
        epochs=recipe.clean_epochs,
        top_k=toy.evaluation.top_k,
        probes_per_epoch=toy.evaluation.probes_per_epoch,
        checkpoint=checkpoint,
        key=checkpoint_key(job.code, job.spec, job.device, data.files),
        report=lambda done, total: job.progress(
            done, total, f"steps of clean training, {len(job.seeds)} seeds at once"
        ),
    )
    bpe = load_tokenizer(data.tokenizer.parent)
    for i, folder in enumerate(model_folders(models)):
        save_model(folder, ensemble.state(i), config, bpe)
    write_parquet(curve, table)
    remove_quietly(checkpoint)


if __name__ == "__main__":
    run(main, shared=True)
