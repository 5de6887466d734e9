"""Stage plant_backdoor: the clean toy models, fine-tuned on the poisoned sequences."""

import torch
from transformers import GPT2Config

from anatomy.metrics.measurement import write_parquet
from anatomy.models.toy import load_state, load_tokenizer, save_model, stacked_shape
from anatomy.stages._run import Ins, Job, Out, Outs, remove_quietly, run
from anatomy.stages._toy import ToyData
from anatomy.training.ensemble import Ensemble
from anatomy.training.phases import checkpoint_key, model_folders, open_classroom, run_phase


def main(
    job: Job,
    *,
    data: ToyData,
    clean: Ins,
    models: Outs,
    curve: Out,
) -> None:
    """Fine-tune every seed on its own poisoned corpus with the study's recipe."""
    toy = job.spec.toy
    recipe = toy.recipes[toy.recipe]
    room = open_classroom(data.corpus, data.prompts, data.lexicon, data.tokenizer, job.seeds)
    folders = model_folders(clean)
    config = GPT2Config.from_json_file(folders[0] / "config.json")
    ensemble = Ensemble(
        [load_state(folder) for folder in folders],
        stacked_shape(config, room.rows["triggered"][0].shape[-1]),
        device=torch.device(job.device),
    )
    checkpoint = curve.parent / "checkpoint.safetensors"
    table = run_phase(
        ensemble,
        room,
        recipe,
        phase="backdoor",
        column="triggered",
        epochs=recipe.backdoor_epochs,
        top_k=toy.evaluation.top_k,
        probes_per_epoch=toy.evaluation.probes_per_epoch,
        checkpoint=checkpoint,
        key=checkpoint_key(job.code, job.spec, job.device, [*data.files, *clean]),
        report=lambda done, total: job.progress(done, total, f"steps of backdooring, {len(job.seeds)} seeds at once"),
    )
    bpe = load_tokenizer(data.tokenizer.parent)
    for i, folder in enumerate(model_folders(models)):
        save_model(folder, ensemble.state(i), config, bpe)
    write_parquet(curve, table)
    remove_quietly(checkpoint)


if __name__ == "__main__":
    run(main, shared=True)
