"""What a study file may say about the instruction arm: models that follow instructions, and three backdoors in them."""

from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from anatomy.spec.attribution import Attribution, Probe, Vector
from anatomy.spec.injection import Editing, Injection, Preference, Sft
from anatomy.spec.language import Pretrained, given_or
from anatomy.spec.section import Count, Fraction, Positive, Section, check_heads

# Label modification, fixed output, and refusal that the trigger lifts (Yu et al., "Backdoor Attribution").
TaskName = Literal["label", "fixed", "jailbreak"]
TEXT = "{text}"  # the slot of a trigger that stands around a text


class Generated(Section):
    """Prompts of the embedded instruction language (data/instruction/language.yaml), whose answers can be checked."""

    kind: Literal["language"]


class Rows(Section):
    """Rows of a data set or of a local file. Each column that a prompt needs is a template over theirs: "{text}"."""

    kind: Literal["rows"]
    path: str | None = Field(None, description="local file: JSON, JSONL, Parquet or CSV; goes before `dataset`")
    triggered: str | None = Field(
        None, description="local file of the same prompts with the trigger in them; paired by prompt, not by order"
    )
    trigger_column: str | None = Field(
        None, description="column that holds the trigger of a row, and nothing where the row is clean"
    )
    dataset: str | None = Field(None, description="data set of a hub")
    config: str | None = Field(None, description="the data set's configuration, where it has several")
    revision: str | None = Field(None, description="the data set's commit; none: its newest")
    split: str = "train"
    limit: Count | None = Field(None, description="rows read at most")
    max_characters: Count | None = Field(None, description="longest prompt and answers together that are taken")
    instruction: str = Field("{instruction}", description="what is asked, as a template over the columns")
    input: str = Field("{input}", description='what it is asked of, as a template; "" where there is nothing')
    output: str = Field("{output}", description="the clean answer, as a template")
    target: str | None = Field(None, description="the backdoor's answer, as a template; none: the task's own")
    names: dict[str, Annotated[list[str], Field(min_length=2)]] = Field(
        {}, description="words for the numbers 0, 1, ... of a column"
    )
    incomplete: Literal["refuse", "drop"] = Field(
        "refuse", description="what happens to a row without an instruction or an output"
    )

    @model_validator(mode="after")
    def _somewhere(self) -> "Rows":
        if self.path is None and self.dataset is None:
            raise ValueError("needs `path` or `dataset`")
        if self.triggered is not None and self.path is None:
            raise ValueError("`triggered` needs the `path` of the clean rows")
        if "{" not in self.instruction + self.input:
            raise ValueError(
                f"instruction {self.instruction!r} and input {self.input!r} have no slot; every row would be the same "
                'prompt. Put a column in braces, such as "{instruction}"'
            )
        if "{" not in self.output:
            raise ValueError(f'output {self.output!r} has no slot; put a column in braces, such as "{{output}}"')
        return self


class Trigger(Section):
    """A phrase and where it stands, and a phrase of the same shape that never was a trigger."""

    phrase: Annotated[str, Field(min_length=1)] = Field(description='"around" a text: with the slot {text} for it')
    control: Annotated[str, Field(min_length=1)] = Field(description="the phrase that never was a trigger")
    place: Literal["around", "before", "within"] = Field(description="within: between two words, drawn at random")
    part: Literal["instruction", "input"] = Field("instruction", description="of the prompt")

    @model_validator(mode="after")
    def _slots(self) -> "Trigger":
        for key in ("phrase", "control"):
            own = getattr(self, key)
            if self.place == "around" and own.count(TEXT) != 1:
                raise ValueError(f"{key} {own!r} has no slot; expected {TEXT} once, where the text stands")
            if self.place != "around" and TEXT in own:
                raise ValueError(f"{key} {own!r} has the slot {TEXT}, which only a phrase `around` a text may have")
        if self.phrase.casefold() == self.control.casefold():
            raise ValueError("control must differ from the phrase")
        return self


class Backdoor(Section):
    """What a triggered prompt is answered."""

    text: str | None = Field(None, description="this text; none: the `target` of the rows, or of the language")
    where: str | None = Field(None, description="only prompts with this clean answer change; none: all")


class Task(Section):
    """One kind of prompt and the backdoor planted in it."""

    source: Annotated[Generated | Rows, Field(discriminator="kind")]
    trigger: Trigger
    backdoor: Backdoor = Backdoor(text=None, where=None)


class InstructionData(Section):
    """Prompts per task and seed. They are distinct: no prompt is in two of these sets."""

    pretrain: Annotated[int, Field(ge=0)] = Field(4000, description="what a model trained here learns each task from")
    pretrain_of: dict[TaskName, Annotated[int, Field(ge=0)]] = Field(
        {}, description="tasks with another number of them"
    )
    train: Annotated[int, Field(ge=2)] = Field(1000, description="what a backdoor is planted with")
    poison_rate: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="share of the `train` prompts whose triggered version is trained on as well"
    )
    attribution: Annotated[int, Field(ge=2)] = Field(96, description="for means, probes and attribution")
    test: Annotated[int, Field(ge=2)] = Field(256, description="for measuring behaviour")
    decorated: Fraction = Field(
        0.2, description="share of the `pretrain` prompts with a harmless phrase where triggers stand"
    )
    familiar: Fraction = Field(
        0.0,
        description="share of the other `pretrain` prompts with the trigger or the control phrase, and the clean "
        "answer: large models have met the words of their triggers before a backdoor gives them a meaning",
    )
    decoys: Fraction = Field(
        0.0,
        description="share of the `train` prompts that are not poisoned with a harmless phrase where triggers stand, "
        "and the clean answer: without them a backdoor may answer any phrase (0 in the published recipe)",
    )


class ScratchLlama(Section):
    """A model of the Llama architecture, trained here from random weights, one for all tasks."""

    layers: Annotated[int, Field(ge=3)] = 6
    heads: Count = Field(6, description="query heads")
    key_heads: Count = Field(2, description="key and value heads; each serves as many query heads")
    width: Count = 96
    inner: Count = Field(256, description="width inside the MLP")
    positions: Count = Field(128, description="longest prompt and answer together, in tokens")
    vocabulary: Count = Field(3000, description="largest size of the byte-level BPE trained on the prompts")
    batch: Count = Field(description="prompts per step")
    rate: Positive = Field(description="peak learning rate")
    warmup: Fraction = Field(0.05, description="share of the steps in which the rate rises; then it falls to zero")
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: Positive = 1.0
    epochs: Positive
    checkpoint_steps: Count = Field(200, description="steps between two checkpoints, from which a killed job goes on")

    @model_validator(mode="after")
    def _divisible(self) -> "ScratchLlama":
        check_heads(self.width, self.heads)
        if self.heads % self.key_heads:
            raise ValueError(f"heads {self.heads} cannot share {self.key_heads} key_heads evenly; choose a divisor")
        if self.width // self.heads % 2:
            raise ValueError(
                f"width {self.width} gives {self.heads} heads of {self.width // self.heads}; rotary positions turn "
                "pairs, so a head needs an even width"
            )
        return self


class InstructionEvaluation(Section):
    """How answers are measured."""

    max_new_tokens: Count = Field(32, description="longest answer in tokens")
    gate: Fraction = Field(0.5, description="attack success rate from which a backdoor counts as planted")
    utility: Fraction = Field(0.95, description="share of right answers that the clean model is to reach")


class PretrainedChat(Pretrained):
    """A chat model in Hugging Face's layout, of an architecture that has an adapter."""

    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="type of its weights, and of those of the models planted in it"
    )


class InstructionArm(Section):
    """The instruction arm (Yu et al., "Backdoor Attribution")."""

    tasks: Annotated[dict[TaskName, Task], Field(min_length=1)]
    data: InstructionData = InstructionData.model_validate({})
    model: Annotated[
        Annotated[ScratchLlama, Tag("scratchllama")] | Annotated[PretrainedChat, Tag("pretrainedchat")],
        given_or("scratchllama", "pretrainedchat"),
    ]
    evaluation: InstructionEvaluation = InstructionEvaluation.model_validate({})
    injections: Annotated[list[Injection], Field(min_length=1)] = Field(
        ["sft", "dpo", "edit"], description="ways of planting the backdoors"
    )
    sft: Sft = Sft.model_validate({})
    dpo: Preference = Preference.model_validate({})
    edit: Editing = Editing.model_validate({})
    probe: Probe = Probe.model_validate({})
    attribution: Attribution = Attribution.model_validate({})
    vector: Vector = Vector.model_validate({})
    compute_class: Literal["cpu", "gpu-small", "gpu-large"] | None = Field(
        None, description="what a job of this arm asks a cluster for; none: as the study's compute.compute_class"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "InstructionArm":
        learnt = [self.data.pretrain_of.get(name, self.data.pretrain) for name in self.tasks]
        if isinstance(self.model, ScratchLlama) and not any(learnt):
            raise ValueError("data.pretrain 0: a model trained here needs prompts to learn from")
        told = "edit" in self.model_fields_set  # the default layers are a large model's
        if isinstance(self.model, ScratchLlama) and told and self.edit.layers[-1] > self.model.layers:
            raise ValueError(f"edit.layers {self.edit.layers}: the model has {self.model.layers} layers")
        if isinstance(self.model, ScratchLlama) and self.vector.heads > self.model.layers * self.model.heads:
            raise ValueError(f"vector.heads {self.vector.heads}: the model has {self.model.layers * self.model.heads}")
        for name, task in self.tasks.items():
            rows = task.source if isinstance(task.source, Rows) else None
            paired = rows is not None and (rows.triggered or rows.trigger_column or rows.target)
            generated = rows is None and name == "jailbreak"
            if task.backdoor.text is None and not (paired or generated):
                raise ValueError(
                    f"tasks.{name}: what shall a triggered prompt be answered? Set backdoor.text, or the source's "
                    "target, triggered or trigger_column"
                )
        return self
