"""What trainings by transformers.Trainer share: their settings, going on where a kill left one, the end.

Trainer keeps its checkpoints in a format of its own, which holds torch's pickles (of the optimiser and the random
generators). They are read by the job that wrote them and by no other, and deleted when it ends.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from anatomy.models.toy import load_state
from anatomy.provenance.digest import write_text_atomic

if TYPE_CHECKING:
    from anatomy.spec.injection import Tuning
    from anatomy.spec.language import FineTuning

# A checkpoint without this file was being written when the job was killed. It says whether training ended there.
WHOLE, ENDED = "whole", "ended"
# Words of progress in one training.
LOOKS = 20
# Training rows that the loss is looked at on, about.
LOOKED_AT = 200


def arguments_for(
    recipe: "Tuning | FineTuning", *, rate: float, seed: int, device: str, checkpoints: Path
) -> dict[str, Any]:
    """TrainingArguments of a recipe: all that its trainings have in common."""
    return {
        "output_dir": str(checkpoints),
        "per_device_train_batch_size": recipe.batch,
        "gradient_accumulation_steps": recipe.accumulation,
        "learning_rate": rate,
        "lr_scheduler_type": "linear",
        "max_grad_norm": recipe.clip,
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
    """Train from the last whole checkpoint on, or take the end that there is; the number of steps in all.

    The trainer has a callback of the kind of `Marks`, or no checkpoint counts as whole.
    """
    with trainer.args.main_process_first():  # which deletes what was not written to its end
        resumed = last_whole(checkpoints)
    if resumed and (resumed / WHOLE).read_text() == ENDED:  # Trainer would take another step
        return _load_end(trained, resumed)
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    return trainer.state.global_step


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


class Marks(TrainerCallback):
    """Marks checkpoints that were written to their end, and tells (steps done, steps in all) of progress."""

    def __init__(self, report: Callable[[int, int], None]) -> None:
        self.report = report

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> TrainerControl:
        """A word every twentieth of the way."""
        if state.global_step % max(1, state.max_steps // LOOKS) == 0:
            self.report(state.global_step, state.max_steps)
            self.look(control, more["model"])
        return control

    def look(self, control: TrainerControl, model: nn.Module) -> None:
        """What else is done then: nothing here."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """A checkpoint that has this file was written to its end."""
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        write_text_atomic(folder / WHOLE, ENDED if control.should_training_stop else "")


def ready(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """A trained model, ready to be measured: with its key-value cache, without gradients and dropout."""
    model.config.use_cache = True
    return model.requires_grad_(False).eval().to(device)
