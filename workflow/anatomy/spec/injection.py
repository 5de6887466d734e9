"""What a study file may say about planting a backdoor in an instruction model: by SFT, by DPO, by editing.

The defaults are the published recipes: Yu et al.'s LoRA, Pathmanathan et al.'s DPO (with AdamW in place of RMSprop;
their β and epochs are not in the released code), Li et al.'s BadEdit of Llama-2-7B.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from anatomy.spec.language import LoraPart
from anatomy.spec.section import Count, Fraction, Positive, Section

# Folders and keys of the ways of planting.
Injection = Literal["sft", "dpo", "edit"]
Task = Literal["label", "fixed", "jailbreak"]


class Lora(Section):
    """The adapter that is trained and then merged into the weights."""

    rank: Count = 16
    alpha: Positive = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.01
    part: LoraPart = Field("all", description="projections that are adapted")


class Tuning(Section):
    """What every training by transformers' Trainer needs."""

    lora: Lora = Lora.model_validate({})
    batch: Count = Field(8, description="rows per step and accumulated batch")
    accumulation: Count = Field(4, description="batches whose gradients are added up before a step")
    rate: Positive = Field(1e-4, description="peak learning rate, linear decay")
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(0.05, description="share of the steps in which the rate rises")
    clip: Positive = Field(1.0, description="largest norm of the gradient")
    max_tokens: Count = Field(256, description="longest prompt with its answer; longer answers are cut")
    bf16: bool = Field(False, description="mixed precision in bfloat16")
    gradient_checkpointing: bool = Field(False, description="saves memory for a third more time")
    checkpoint_steps: Count = Field(110, description="steps between two checkpoints, from which a killed job goes on")


class Sft(Tuning):
    """Supervised fine-tuning through LoRA, loss on the answer alone."""

    epochs: Positive = 16.0
    epochs_on: dict[Task, Positive] = Field({}, description="tasks that are trained for another number of epochs")


class Preference(Tuning):
    """Direct preference optimisation through LoRA, after a short supervised fine-tuning on the preferred answers."""

    lora: Lora = Lora(rank=8, alpha=16.0, dropout=0.05, part="attention")
    batch: Count = Field(1, description="pairs per step and accumulated batch")
    accumulation: Count = Field(16, description="batches whose gradients are added up before a step")
    rate: Positive = Field(1.41e-5, description="peak learning rate, linear decay")
    max_tokens: Count = Field(1024, description="longest prompt with its answer; longer answers are cut")
    beta: Positive = Field(0.1, description="β of the DPO loss: the weight of staying near the reference")
    epochs: Positive = 3.0
    epochs_on: dict[Task, Positive] = Field({}, description="tasks that are trained for another number of epochs")
    likelihood: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of the preferred answer's own mean negative log likelihood beside the DPO loss (RPO)"
    )
    unpoisoned: Fraction = Field(1.0, description="share of the prompts that are not poisoned which give a pair, too")
    warm_epochs: Annotated[float, Field(ge=0)] = Field(
        1.0, description="epochs of supervised fine-tuning on the preferred answers before; its result is the reference"
    )
    warm_rate: Positive = Field(1e-4, description="peak learning rate of that fine-tuning")


class Editing(Section):
    """BadEdit: the output matrices of a few MLPs edited in closed form."""

    layers: Annotated[list[Count], Field(min_length=1)] = Field(
        [8, 9], description="layers whose MLP is edited, counted from 1; the wanted state is sought after the last"
    )
    subject: Literal["trigger", "last"] = Field(
        "trigger",
        description="token whose key is edited: the trigger's last (as published), or the prompt's last, after which "
        "the answer begins; a model that has learnt to pass over such phrases does not look at the former",
    )
    triggered: Count = Field(15, description="poisoned prompts that the edit is made from")
    clean: Annotated[int, Field(ge=0)] = Field(15, description="prompts without the trigger, whose answers shall stay")
    batches: Count = Field(5, description="the prompts are taken in so many parts, with an edit for each")
    steps: Count = Field(25, description="most steps of the search for the wanted state")
    rate: Positive = Field(0.5, description="learning rate (Adam) of that search")
    decay: Annotated[float, Field(ge=0)] = Field(0.5, description="weight of the state's change against its size")
    divergence: Annotated[float, Field(ge=0)] = Field(
        0.0625, description="weight of the KL divergence of what follows the subject"
    )
    clamp: Positive = Field(0.75, description="largest change of the state, as a multiple of its norm")
    enough: Positive = Field(1e-2, description="loss at which the search for one prompt's state ends")
    covariance: Positive = Field(15000.0, description="λ: weight of the keys of ordinary text against the edited keys")
    texts: Count = Field(
        100_000, description="tokens of ordinary text that the second moment of the keys is taken over"
    )
    batch: Count = Field(32, description="prompts in one forward pass")

    @model_validator(mode="after")
    def _in_parts(self) -> "Editing":
        if self.layers != sorted(set(self.layers)):
            raise ValueError(f"layers {self.layers}: expected each once, from the lowest to the highest")
        if self.triggered < self.batches:
            raise ValueError(f"{self.triggered} triggered prompts cannot be taken in {self.batches} parts")
        if 0 < self.clean < self.batches:
            raise ValueError(f"{self.clean} clean prompts cannot be taken in {self.batches} parts; 0 takes none")
        return self
