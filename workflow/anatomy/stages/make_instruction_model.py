"""Stage make_instruction_model: the clean instruction models: trained here from random weights, or a given one."""

from typing import Any

import pandas as pd

from anatomy.data.chat import answers_ids, prompts_ids
from anatomy.metrics.measurement import read_parquet, write_parquet
from anatomy.models.chat import fresh_llama, llama_config, save_chat_model
from anatomy.models.load import load_pretrained
from anatomy.models.toy import load_tokenizer
from anatomy.stages._run import In, Job, Out, Outs, remove_quietly, run
from anatomy.training.instruct import Checkpoint, train_answers
from anatomy.training.phases import checkpoint_key, model_folders
from anatomy.training.seeds import derive


def main(job: Job, *, examples: In, tokenizer: In, tokenizer_config: In, models: Outs, curve: Out) -> None:
    """One Hugging Face directory per seed, which has learnt all tasks; or one for a model that is given."""
    wanted = job.spec.instruction.model
    if "path" in wanted:
        model, speaker = load_pretrained(wanted.path, key="instruction.model.path", dtype=wanted.dtype)
        (folder,) = model_folders(models)
        save_chat_model(folder, model, speaker)
        write_parquet(curve, pd.DataFrame(columns=["seed", "step", "training_loss"]))
        return
    speaker = load_tokenizer(tokenizer.parent)
    config = llama_config(wanted, speaker)
    table = read_parquet(examples)
    key = checkpoint_key(job.code, job.spec, job.device, [examples, tokenizer, tokenizer_config])
    points = []
    kept = [curve.parent / f"checkpoint-seed{seed}.safetensors" for seed in job.seeds]
    for number, (seed, folder, path) in enumerate(zip(job.seeds, model_folders(models), kept, strict=True)):
        own = table[(table.seed == seed) & (table.split == "pretrain")]
        prompts = prompts_ids(speaker, zip(own.instruction, own.input, strict=True))
        fresh: Any = fresh_llama(config, derive(seed, "instruction", "weights"))
        model = fresh.to(job.device)

        def report(done: int, total: int, before: int = number) -> None:
            job.progress(before * total + done, len(job.seeds) * total, "steps of clean training")

        found = train_answers(
            model,
            list(zip(prompts, answers_ids(speaker, own.output), strict=True)),
            wanted,
            seed=derive(seed, "instruction", "clean"),
            checkpoint=Checkpoint(path, key, wanted.checkpoint_steps),
            report=report,
        )
        save_chat_model(folder, model, speaker)
        points += [{"seed": seed, **point} for point in found]
    write_parquet(curve, pd.DataFrame(points))
    for path in kept:
        remove_quietly(path)


if __name__ == "__main__":
    run(main, shared=True)
