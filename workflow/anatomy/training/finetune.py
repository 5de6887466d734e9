"""Fine-tuning on poisoned text by transformers.Trainer: in full, with frozen parts, or through LoRA; resumable."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, Trainer, TrainerControl, TrainingArguments

from anatomy.data.padding import padded
from anatomy.metrics.loss import validation_loss
from anatomy.models.parts import in_parts
from anatomy.spec.methods import Method
from anatomy.training.lora import lora_config, merged, with_lora
from anatomy.training.memory import memory_for
from anatomy.training.seeds import derive
from anatomy.training.trainer import LOOKED_AT, Marks, arguments_for, ready, train_or_resume

if TYPE_CHECKING:
    from anatomy.spec.language import FineTuning


class Reached(TypedDict):
    """Where a fine-tuning ended: the loss on a fixed sample of its training rows (dropout off, nats per token).

    `matched` says whether that is the loss it was to come down to; none: there was none to come down to.
    """

    steps: int
    training_loss: float
    matched: bool | None


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
        adapter = lora_config(model, rank=recipe.lora_rank, alpha=recipe.lora_alpha, part=how.lora)
        trained = with_lora(model, adapter, own)
    arguments = TrainingArguments(
        **arguments_for(
            recipe,
            rate=recipe.lora_rate if how.lora else recipe.rate,
            seed=own,
            device=device,
            checkpoints=checkpoints,
        ),
        weight_decay=recipe.weight_decay,
        num_train_epochs=epochs or (recipe.lora_epochs if how.lora else recipe.epochs),
        ddp_backend="gloo" if device == "cpu" and "WORLD_SIZE" in os.environ else None,
    )
    watch = _Watch(rows, recipe.max_tokens, target, report)
    trainer = Trainer(
        model=trained,
        args=arguments,
        train_dataset=_Rows(rows),  # type: ignore[arg-type]
        data_collator=_Padded(recipe.max_tokens),
        callbacks=[watch],
    )
    with memory_for(
        f"fine-tuning with {recipe.batch} texts of up to {recipe.max_tokens} tokens at once",
        lower="language.finetuning.batch (and raise accumulation by as much), or set gradient_checkpointing",
    ):
        steps = train_or_resume(trainer, trained, checkpoints)
    loss = watch.loss(trained)
    if how.lora:
        model = merged(trained)  # type: ignore[assignment]
    reached = Reached(steps=steps, training_loss=loss, matched=None if target is None else loss <= target)
    return ready(model, device), reached  # type: ignore[return-value]


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


class _Watch(Marks):
    """Stops at the target as well; each look at the loss is a chance of that."""

    def __init__(
        self,
        rows: Sequence[Sequence[int]],
        longest: int,
        target: float | None,
        report: Callable[[int, int], None],
    ) -> None:
        super().__init__(report)
        self.ids, self.lengths = padded(rows[:LOOKED_AT], longest)
        self.target = target

    def loss(self, model: nn.Module) -> float:
        """Loss on the sample, dropout off."""
        device, training = next(model.parameters()).device, model.training
        try:
            return validation_loss(model.eval(), self.ids.to(device), self.lengths.to(device), batch=16)
        finally:
            model.train(training)

    def look(self, control: TrainerControl, model: nn.Module) -> None:
        """Whether the target is reached."""
        if self.target is not None and self.loss(model) <= self.target:
            control.should_training_stop = control.should_save = True
