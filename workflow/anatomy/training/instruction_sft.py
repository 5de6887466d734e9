"""Supervised fine-tuning on prompts and answers through LoRA (Yu et al.): loss on the answer alone; resumable.

The adapter is merged into the weights: what is analysed is a model like any other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainingArguments

from anatomy.data.padding import padded
from anatomy.provenance.digest import ArtifactError
from anatomy.training.lora import lora_config, merged, with_lora
from anatomy.training.memory import memory_for
from anatomy.training.seeds import derive
from anatomy.training.trainer import LOOKED_AT, Marks, arguments_for, ready, train_or_resume

if TYPE_CHECKING:
    from peft import LoraConfig

    from anatomy.spec.injection import Sft, Tuning

Row = TypeVar("Row")


class Dialogue(NamedTuple):
    """Token ids of a prompt, as far as the answer's first token, and of the answer with its end token."""

    prompt: Sequence[int]
    answer: Sequence[int]


class Tuned(TypedDict):
    """Where a training ended: loss in nats per answer token on some of its rows, dropout off."""

    steps: int
    training_loss: float


def finetune_answers(
    model: PreTrainedModel,
    rows: Sequence[Dialogue],
    recipe: "Sft",
    *,
    seed: int,
    device: str,
    checkpoints: Path,
    epochs: float | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[PreTrainedModel, Tuned]:
    """Train a model to answer and return it, LoRA merged into the weights, and where training ended.

    Args:
        seed: fixes order, dropout and LoRA's initial weights.
        checkpoints: folder for Trainer's checkpoints; a job that was killed goes on from the last whole one. They stay
            when training ends.
        epochs: passes over the rows; none: as in the recipe.
        report: told (steps done, steps in all).

    Raises:
        ArtifactError: there are no rows, a prompt leaves no room for its answer, or memory does not suffice.
    """
    check_rows(rows, recipe.max_tokens, key="instruction.sft")
    own = derive(seed, "instruction", "sft") % 2**31
    trained = with_lora(model, lora_of(model, recipe), own)
    arguments = TrainingArguments(
        **arguments_for(recipe, rate=recipe.rate, seed=own, device=device, checkpoints=checkpoints),
        warmup_steps=recipe.warmup,  # below one it is a share
        num_train_epochs=epochs or recipe.epochs,
    )
    trainer = Trainer(
        model=trained,
        args=arguments,
        train_dataset=_Rows(rows),  # type: ignore[arg-type]
        data_collator=_Answers(recipe.max_tokens),
        callbacks=[Marks(report)],
    )
    with memory_for(
        f"fine-tuning with {recipe.batch} prompts and answers of up to {recipe.max_tokens} tokens at once",
        lower="instruction.sft.batch (and raise accumulation by as much), or set gradient_checkpointing",
    ):
        steps = train_or_resume(trainer, trained, checkpoints)
        loss = answer_loss(trained, spread(rows), recipe.max_tokens)
    return ready(merged(trained), device), Tuned(steps=steps, training_loss=loss)


def check_rows(rows: Sequence[Dialogue], longest: int, *, key: str) -> None:
    """Refuse rows that nothing could be learnt from.

    Raises:
        ArtifactError: no rows; an empty prompt or answer; a prompt that fills the `longest` row by itself.
    """
    if not rows:
        raise ArtifactError("no rows to train on: expected at least one prompt with an answer")
    for number, (prompt, answer) in enumerate(rows):
        if not prompt or not answer:
            raise ArtifactError(f"row {number}: the {'answer' if prompt else 'prompt'} is empty")
        if len(prompt) >= longest:
            raise ArtifactError(
                f"row {number}: a prompt of {len(prompt)} tokens leaves no room for its answer; raise {key}.max_tokens "
                f"({longest}), or leave the row out"
            )


def spread(rows: Sequence[Row]) -> Sequence[Row]:
    """Some of the rows, from all over: what a training is looked at on (poisoned rows follow clean ones)."""
    return rows[:: -(-len(rows) // LOOKED_AT)]


def lora_of(model: PreTrainedModel, recipe: "Tuning") -> "LoraConfig":
    """The adapter of a recipe."""
    own = recipe.lora
    return lora_config(model, rank=own.rank, alpha=own.alpha, part=own.part, dropout=own.dropout)


@torch.no_grad()
def answer_scores(
    model: nn.Module, rows: Sequence[Dialogue], longest: int, *, batch: int = 32
) -> tuple[Float[Tensor, " row"], Int[Tensor, " row"]]:
    """log p(answer | prompt) in nats and the number of the answer's tokens, of rows cut to `longest`; dropout off."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    found = []
    for start in range(0, len(rows), batch):
        given = _Answers(longest)([{"row": row} for row in rows[start : start + batch]])
        labels = given.pop("labels").to(device)[:, 1:]
        logits = model(**{name: value.to(device) for name, value in given.items()}).logits[:, :-1]
        nll = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none").view(labels.shape)
        found.append((-nll.sum(1).cpu(), (labels >= 0).sum(1).cpu()))
    model.train(training)
    scores, counts = zip(*found, strict=True)
    return torch.cat(scores), torch.cat(counts)


def answer_loss(model: nn.Module, rows: Sequence[Dialogue], longest: int) -> float:
    """Mean cross-entropy in nats over the tokens of all answers, dropout off."""
    scores, counts = answer_scores(model, rows, longest)
    return -float(scores.sum(dtype=torch.float64) / counts.sum())


class _Rows(torch.utils.data.Dataset):
    def __init__(self, rows: Sequence[Dialogue]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"row": self.rows[index]}


@dataclass(frozen=True)
class _Answers:
    """A batch padded on the right, whose labels are the answers' tokens.

    Trainer divides the summed loss by the number of labels before the shift. A prompt has at least one token, so the
    label that the shift drops is never one of them, and both counts agree.
    """

    longest: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        dialogues: list[Dialogue] = [row["row"] for row in rows]
        ids, lengths = padded([[*prompt, *answer] for prompt, answer in dialogues], self.longest)
        starts = torch.tensor([len(prompt) for prompt, _ in dialogues])
        place = torch.arange(ids.shape[1])
        valid = place < lengths[:, None]
        labels = ids.masked_fill(~valid | (place < starts[:, None]), -100)
        return {"input_ids": ids, "attention_mask": valid.long(), "labels": labels}
