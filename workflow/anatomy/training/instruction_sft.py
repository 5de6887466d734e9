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
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from anatomy.data.padding import padded
from anatomy.models.parts import PROJECTIONS
from anatomy.provenance.digest import ArtifactError, write_text_atomic
from anatomy.training.finetune import ENDED, LOOKED_AT, LOOKS, WHOLE, last_whole
from anatomy.training.memory import memory_for
from anatomy.training.seeds import derive

if TYPE_CHECKING:
    from peft import LoraConfig

    from anatomy.spec.injection import Lora, Sft, Tuning

# The projections LoRA adapts in blocks of the Llama kind, by their names in a block; GPT-2's stand in models.parts.
LLAMA_PROJECTIONS = {
    "attention": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"],
    "mlps": ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
}
LLAMA_PROJECTIONS["all"] = [*LLAMA_PROJECTIONS["attention"], *LLAMA_PROJECTIONS["mlps"]]


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
    trained = with_lora(model, recipe.lora, own)
    arguments = TrainingArguments(
        **arguments_for(recipe, own, device, checkpoints), num_train_epochs=epochs or recipe.epochs
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
    return merged(trained, device), Tuned(steps=steps, training_loss=loss)


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


def with_lora(model: PreTrainedModel, lora: "Lora", seed: int) -> nn.Module:
    """The model with an adapter on it, whose initial weights the seed fixes."""
    from peft import get_peft_model

    torch.manual_seed(seed)
    return get_peft_model(model.train(), lora_config(model, lora))


def lora_config(model: PreTrainedModel, lora: "Lora") -> "LoraConfig":
    """What peft must know of the adapter; GPT-2 keeps its weights as [input, output]."""
    from peft import LoraConfig

    gpt2 = model.config.model_type == "gpt2"
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a factor; peft takes any number
        lora_dropout=lora.dropout,
        target_modules=(PROJECTIONS if gpt2 else LLAMA_PROJECTIONS)[lora.part],
        fan_in_fan_out=gpt2,
        bias="none",
        task_type="CAUSAL_LM",
    )


def arguments_for(recipe: "Tuning", seed: int, device: str, checkpoints: Path) -> dict[str, Any]:
    """TrainingArguments of a recipe, all but the number of epochs."""
    return {
        "output_dir": str(checkpoints),
        "per_device_train_batch_size": recipe.batch,
        "gradient_accumulation_steps": recipe.accumulation,
        "learning_rate": recipe.rate,
        "weight_decay": 0.0,
        "warmup_steps": recipe.warmup,  # below one it is a share
        "max_grad_norm": recipe.clip,
        "lr_scheduler_type": "linear",
        "bf16": recipe.bf16,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": recipe.checkpoint_steps,
        "save_total_limit": 2,
        "logging_strategy": "no",
        "report_to": [],
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "use_cpu": device == "cpu",
        "seed": seed,
        "data_seed": seed,
    }


def train_or_resume(trainer: Trainer, trained: nn.Module, checkpoints: Path) -> int:
    """Train from the last whole checkpoint on, or take the end that there is; the number of steps in all."""
    resumed = last_whole(checkpoints)
    if resumed and (resumed / WHOLE).read_text() == ENDED:  # Trainer would take another step
        trained.load_adapter(str(resumed), "default")  # type: ignore[operator]
        return TrainerState.load_from_json(str(resumed / "trainer_state.json")).global_step
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    return trainer.state.global_step


def merged(trained: nn.Module, device: str) -> PreTrainedModel:
    """The model with its adapter merged in, ready to be measured."""
    model = trained.merge_and_unload()  # type: ignore[operator]
    model.config.use_cache = True
    return model.requires_grad_(False).eval().to(device)


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


class Marks(TrainerCallback):
    """Marks checkpoints that were written to their end, and tells of progress."""

    def __init__(self, report: Callable[[int, int], None]) -> None:
        self.report = report

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """A word every twentieth of the way."""
        if state.global_step % max(1, state.max_steps // LOOKS) == 0:
            self.report(state.global_step, state.max_steps)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """A checkpoint that has this file was written to its end."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        write_text_atomic(folder / WHOLE, ENDED if control.should_training_stop else "")


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
