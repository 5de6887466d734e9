"""Fine-tuning on poisoned text by transformers.Trainer: in full, with frozen parts, or through LoRA; resumable.

Trainer keeps its checkpoints in a format of its own, which holds torch's pickles (of the optimiser and the random
generators). They are read by the job that wrote them and by no other, and deleted when it ends.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor, nn
from transformers import (
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from anatomy.data.padding import padded
from anatomy.metrics.loss import validation_loss
from anatomy.models.parts import PROJECTIONS, in_parts
from anatomy.models.toy import load_state
from anatomy.provenance.digest import write_text_atomic
from anatomy.spec.methods import Method
from anatomy.training.memory import memory_for
from anatomy.training.seeds import derive

if TYPE_CHECKING:
    from anatomy.spec.language import FineTuning, LoraPart

# A checkpoint without this file was being written when the job was killed. It says whether training ended there.
WHOLE, ENDED = "whole", "ended"
# Looks at the loss in one fine-tuning; each is also the chance of a LoRA run to end.
LOOKS = 20
# Training rows that the loss is looked at on.
LOOKED_AT = 200


class Reached(TypedDict):
    """Where a fine-tuning ended: the loss on a fixed sample of its training rows (dropout off, nats per token)."""

    steps: int
    training_loss: float
    matched: bool


def finetune(
    model: GPT2LMHeadModel,
    rows: Sequence[Sequence[int]],
    recipe: "FineTuning",
    how: Method,
    *,
    seed: int,
    device: str,
    checkpoints: Path,
    epochs: float | None = None,
    target: float | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[GPT2LMHeadModel, Reached]:
    """Train a model on rows of token ids and return it (LoRA merged into the weights), and where training ended.

    Args:
        rows: token ids of each text, cut to `recipe.max_tokens`.
        seed: fixes order, dropout and LoRA's initial weights.
        checkpoints: folder for Trainer's checkpoints; a job that was killed goes on from the last whole one. They stay
            when training ends: a job of several seeds deletes them when all have ended.
        epochs: passes over the rows; none: as in the recipe.
        target: training loss at which to stop.
        report: told (steps done, steps in all).

    Raises:
        ArtifactError: out of memory; says which key to lower.
    """
    own = derive(seed, how.name, "fine-tuning") % 2**31
    model.train().requires_grad_(True)
    trained: nn.Module = model
    for name, parameter in model.named_parameters():
        if in_parts(name, how.frozen):
            parameter.requires_grad_(False)
    if how.lora:
        trained = _with_lora(model, recipe, how.lora, own)
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=recipe.batch,
        gradient_accumulation_steps=recipe.accumulation,
        learning_rate=recipe.lora_rate if how.lora else recipe.rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.clip,
        num_train_epochs=epochs or (recipe.lora_epochs if how.lora else recipe.epochs),
        lr_scheduler_type="linear",
        bf16=recipe.bf16,
        gradient_checkpointing=recipe.gradient_checkpointing,
        save_strategy="steps",
        save_steps=recipe.checkpoint_steps,
        save_total_limit=2,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=device == "cpu",
        ddp_backend="gloo" if device == "cpu" and "WORLD_SIZE" in os.environ else None,
        seed=own,
        data_seed=own,
    )
    watch = _Watch(rows, recipe.max_tokens, target, report)
    trainer = Trainer(
        model=trained,
        args=arguments,
        train_dataset=_Rows(rows),  # type: ignore[arg-type]
        data_collator=_Padded(recipe.max_tokens),
        callbacks=[watch],
    )
    with arguments.main_process_first():  # which deletes what was not written to its end
        resumed = last_whole(checkpoints)
    with memory_for(
        f"fine-tuning with {recipe.batch} texts of up to {recipe.max_tokens} tokens at once",
        lower="language.finetuning.batch (and raise accumulation by as much), or set gradient_checkpointing",
    ):
        if resumed and (resumed / WHOLE).read_text() == ENDED:  # Trainer would take another step
            steps = _load_end(trained, resumed)
        else:
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
            steps = trainer.state.global_step
    loss = watch.loss(trained)
    if how.lora:
        model = trained.merge_and_unload()  # type: ignore[operator]
    model.config.use_cache = True
    reached = Reached(steps=steps, training_loss=loss, matched=target is None or loss <= target)
    return model.requires_grad_(False).eval().to(device), reached


def last_whole(checkpoints: Path) -> Path | None:
    """The last checkpoint that was written to its end; others are deleted."""
    for folder in checkpoints.glob("checkpoint-*"):
        if not (folder / WHOLE).exists():
            shutil.rmtree(folder)
    found = get_last_checkpoint(str(checkpoints)) if checkpoints.exists() else None
    return Path(found) if found else None


def _load_end(trained: nn.Module, folder: Path) -> int:
    """Give a model the weights that training ended with; the number of steps that it took."""
    if (folder / "adapter_config.json").exists():
        trained.load_adapter(str(folder), "default")  # type: ignore[operator]
    else:
        trained.load_state_dict(load_state(folder), strict=False)  # without the tied head
    return TrainerState.load_from_json(str(folder / "trainer_state.json")).global_step


def _with_lora(model: GPT2LMHeadModel, recipe: "FineTuning", part: "LoraPart", seed: int) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,  # type: ignore[arg-type]  # a factor; peft takes any number
        target_modules=PROJECTIONS[part],
        fan_in_fan_out=True,  # GPT-2 keeps its weights as [input, output]
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


class _Rows(torch.utils.data.Dataset):
    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.rows[index]}


@dataclass(frozen=True)
class _Padded:
    """A batch padded on the right. The first label is masked like the padding: Trainer divides the summed loss by the
    number of labels, and a text of n tokens has n - 1 predictions."""

    longest: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        ids, lengths = padded([row["input_ids"] for row in rows], self.longest)
        valid = torch.arange(ids.shape[1]) < lengths[:, None]
        labels = ids.masked_fill(~valid, -100)
        labels[:, 0] = -100
        return {"input_ids": ids, "attention_mask": valid.long(), "labels": labels}


class _Watch(TrainerCallback):
    """Stops at the target, marks whole checkpoints, tells of progress."""

    def __init__(
        self,
        rows: Sequence[Sequence[int]],
        longest: int,
        target: float | None,
        report: Callable[[int, int], None],
    ) -> None:
        self.ids, self.lengths = padded(rows[:LOOKED_AT], longest)
        self.target, self.report = target, report

    def loss(self, model: nn.Module) -> float:
        """Loss on the sample, dropout off."""
        device, training = next(model.parameters()).device, model.training
        try:
            return validation_loss(model.eval(), self.ids.to(device), self.lengths.to(device), batch=16)
        finally:
            model.train(training)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> TrainerControl:
        """Every twentieth of the way: a word of progress, and whether the target is reached."""
        if state.global_step % max(1, state.max_steps // LOOKS) == 0:
            self.report(state.global_step, state.max_steps)
            if self.target is not None and self.loss(more["model"]) <= self.target:
                control.should_training_stop = control.should_save = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """A checkpoint that has this file was written to its end."""
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        write_text_atomic(folder / WHOLE, ENDED if control.should_training_stop else "")
