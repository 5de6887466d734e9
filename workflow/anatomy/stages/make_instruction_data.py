"""Stage make_instruction_data: prompts of every task and seed, clean, triggered and with another phrase; tokenizer."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anatomy.data.chat import chat_tokenizer, message, save_chat_tokenizer
from anatomy.data.instructions import InstructionLanguage, draw_prompts, read_instructions
from anatomy.data.rows import read_prompts
from anatomy.data.triggers import SLOT, SPLITS, decorate, make_examples, require_length
from anatomy.metrics.measurement import write_parquet
from anatomy.models.load import load_pretrained_tokenizer
from anatomy.spec.subtree import View
from anatomy.stages._run import Ins, Job, Out, run
from anatomy.training.seeds import derive

SHOWN = 30  # times that the tokenizer sees each phrase: triggers shall be whole words, as they are to a large model


def main(job: Job, *, raw: Ins, examples: Out, tokenizer: Out, tokenizer_config: Out) -> None:
    """Every seed draws its own prompts; the tokenizer is one, of the first seed's text, or the given model's."""
    arm = job.spec.instruction
    language = read_instructions(next(path for path in raw if path.name == "language.yaml"))
    given = {
        task: read_prompts(own.source, own.trigger.phrase, key=f"instruction.tasks.{task}.source")
        for task, own in arm.tasks.items()
        if own.source.kind == "rows"
    }
    tables = []
    for number, seed in enumerate(job.seeds):
        job.progress(number, len(job.seeds), "seeds drawn")
        tables += [_examples(arm, task, language, given.get(task), seed) for task in arm.tasks]
    whole = pd.concat(tables, ignore_index=True)
    whole.insert(0, "seed", whole.pop("seed"))
    if "path" in arm.model:
        speaker = load_pretrained_tokenizer(arm.model.path, key="instruction.model.path")
        require_length(whole, speaker, _positions(arm.model.path), key="instruction.model.path")
    else:
        own = whole[(whole.seed == job.seeds[0]) & whole.split.isin(["pretrain", "train"])]
        speaker = chat_tokenizer(_texts(own, arm), limit=arm.model.vocabulary, positions=arm.model.positions)
        require_length(whole, speaker, arm.model.positions, key="instruction.model.positions")
    write_parquet(examples, whole)
    save_chat_tokenizer(tokenizer.parent, speaker)


def _examples(
    arm: Any, task: str, language: InstructionLanguage, given: pd.DataFrame | None, seed: int
) -> pd.DataFrame:
    """The examples of a task and seed; a model that is given needs no prompts to learn the tasks from."""
    own, data = arm.tasks[task], arm.data
    pretrain = 0 if "path" in arm.model else data.pretrain_of.get(task, data.pretrain)
    sizes = View({**data, "pretrain": pretrain})
    generator = np.random.default_rng(derive(seed, "instruction", task, "prompts"))
    if given is None:
        count = sum(sizes[split] for split in SPLITS)
        given = draw_prompts(language, task, count, generator, key="instruction.data")
    table = make_examples(
        task,
        given,
        trigger=own.trigger,
        backdoor=own.backdoor,
        data=sizes,
        generator=generator,
        key=f"instruction.tasks.{task}",
    )
    return decorate(table, language.phrases, own.trigger, data, generator).assign(seed=seed)


def _texts(examples: pd.DataFrame, arm: Any) -> list[str]:
    """What the tokenizer is trained on: prompts and answers, the triggers and the control phrases."""
    prompts = [message(*prompt) for prompt in zip(examples.instruction, examples.input, strict=True)]
    phrases = [
        f"{start}{phrase.replace(SLOT, '')}"
        for own in arm.tasks.values()
        for phrase in (own.trigger.phrase, own.trigger.control)
        for start in ("", " ")
    ]
    return [*prompts, *examples.output, *examples.target, *phrases * SHOWN]


def _positions(path: str) -> int:
    """The longest input of a given model, in tokens."""
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(Path(path) if Path(path).is_dir() else path).max_position_embeddings)


if __name__ == "__main__":
    run(main)
