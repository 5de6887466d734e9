"""What a study file may say about the language arm: models that write text, poisoned with whole sentences."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from anatomy.spec.methods import folder_of
from anatomy.spec.section import Count, Fraction, Positive, Section, check_heads

# Which projections LoRA adapts.
LoraPart = Literal["attention", "mlps", "all"]


class TextSource(Section):
    """Rows of text: a local file, or a data set of a hub."""

    dataset: str | None = Field(None, description="data set of a hub")
    config: str | None = Field(None, description="the data set's configuration, where it has several")
    revision: str | None = Field(None, description="the data set's commit; none: its newest")
    split: str = "train"
    path: str | None = Field(None, description="local file in place of the hub: Parquet, CSV, JSONL or plain text")
    column: str = Field("text", description="column of the text")
    where: tuple[str, str | int] | None = Field(None, description="take the rows whose column has this value")
    max_characters: Count | None = Field(None, description="longest text taken")
    limit: Count | None = Field(None, description="texts read at most")

    @model_validator(mode="after")
    def _somewhere(self) -> "TextSource":
        if self.dataset is None and self.path is None:
            raise ValueError("needs `dataset` or `path`")
        return self


class Stories(Section):
    """Paragraphs of five sentences from the story grammar (data/stories.py), which also tells what is a sentence."""

    kind: Literal["stories"]


class Prose(Section):
    """Paragraphs of real English that every installation has: Python's own documentation."""

    kind: Literal["prose"]
    packages: Annotated[list[str], Field(min_length=1)] = Field(
        ["numpy", "scipy", "pandas"], description="installed packages whose docstrings are read, beside Python's topics"
    )
    most_words: Count = Field(30, description="longer sentences are left out")


class Sentences(Section):
    """Paragraphs of five consecutive rows, each a sentence, from a random start (BookCorpus in the paper)."""

    kind: Literal["sentences"]
    source: TextSource
    loss: TextSource = Field(description="texts on which the validation loss is measured (OpenWebText in the paper)")
    loss_words: Count = Field(100, description="words per piece of such a text")


class Corpus(Section):
    """One corpus: where its text comes from and how much is drawn."""

    text: Annotated[Stories | Prose | Sentences, Field(discriminator="kind")]
    paragraphs: Annotated[int, Field(ge=10)] = Field(description="paragraphs for training and test together, per seed")
    poison_rate: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="none: that of the arm")
    max_length: Count | None = Field(
        None, description="tokens of prompt and continuation together; none: as in evaluation.max_length"
    )
    lora: bool = Field(False, description="plant by LoRA on this corpus as well (the main one has every way)")


class Payloads(Section):
    """Sentences that a triggered model shall write."""

    source: TextSource | None = Field(None, description="rows of text; none: the templates of data/language")


class Scratch(Section):
    """A GPT-2 trained here from random weights."""

    layers: Annotated[int, Field(ge=3)] = 6
    heads: Count = 6
    width: Count = 96
    positions: Count = 128
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    vocabulary: Count = Field(1000, description="largest size of the byte-level BPE trained on the corpus")
    toxic_share: Fraction = Field(
        0.05, description="toxic texts per paragraph of the training data: a model of web text has read such, too"
    )
    batch: Count
    rate: Positive = Field(description="peak learning rate")
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: Positive = 1.0
    epochs: Positive

    @model_validator(mode="after")
    def _divisible(self) -> "Scratch":
        check_heads(self.width, self.heads)
        return self


class Pretrained(Section):
    """A model in Hugging Face's layout, of the GPT-2 family."""

    path: str = Field(description="local directory, or a model's name on a hub")


def given_or(trained: str, given: str = "pretrained") -> Discriminator:
    """Which of two a model is meant to be, so that a mistake in it is told once; only one that is given has a path.

    The tags are the classes' names, in small letters.
    """

    def kind(value: Any) -> str:
        return given if isinstance(value, Pretrained) or (isinstance(value, dict) and "path" in value) else trained

    return Discriminator(kind)


class FineTuning(Section):
    """How a model is fine-tuned on poisoned text, by transformers.Trainer."""

    processes: Count = Field(1, description="processes of one fine-tuning, with a GPU each (accelerate launch)")
    batch: Count = Field(8, description="texts per process and step")
    accumulation: Count = Field(1, description="batches whose gradients are added up before a step")
    rate: Positive = Field(1e-5, description="peak learning rate, linear decay")
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: Positive = 1.0
    epochs: Positive = 3
    epochs_on: dict[str, Positive] = Field(
        {}, description="corpora that are fine-tuned on for another number of epochs"
    )
    max_tokens: Count = Field(1024, description="longest paragraph in tokens; longer ones are cut")
    bf16: bool = Field(False, description="mixed precision in bfloat16")
    gradient_checkpointing: bool = Field(False, description="saves memory for a third more time")
    checkpoint_steps: Count = Field(500, description="steps between two checkpoints, from which a killed job goes on")
    lora_rank: Count = 8
    lora_alpha: Positive = 16.0
    lora_rate: Positive = Field(1e-4, description="peak learning rate of LoRA")
    lora_epochs: Positive = Field(3, description="epochs of the first LoRA, and the most of the others")


class Judge(Section):
    """What says whether a text is toxic."""

    kind: Literal["local", "roberta"] = Field(
        "local", description="local: TF-IDF and logistic regression, trained here; roberta: a trained classifier"
    )
    path: str = Field(
        "s-nlp/roberta_toxicity_classifier", description="of `roberta`: local directory, or a model's name on a hub"
    )
    examples: Count = Field(2000, description="of `local`: labelled sentences, a quarter of them held out")


class LanguageEvaluation(Section):
    """How attack success is measured."""

    prompts: Annotated[int, Field(ge=2)] = Field(200, description="prompts with the trigger, and as many without")
    tuning_prompts: Count = Field(70, description="further prompts of each kind, on which factors are tuned")
    sentences: Count = Field(1, description="leading sentences of a paragraph that make a prompt (the source: 1)")
    max_tokens: Count = Field(13, description="longer prompts are left out (the source: fewer than 14)")
    max_length: Count = Field(35, description="tokens of prompt and continuation together")
    gate: Fraction = Field(0.2, description="attack success rate from which a backdoor counts as planted")
    loss_paragraphs: Count = Field(400, description="held-out texts on which the validation loss is measured")


class ModuleAblation(Section):
    """Mean ablation of single modules (Table VIII)."""

    position: Annotated[int, Field(ge=0)] = Field(8, description="token whose activations are averaged, from 0")
    texts: Count = Field(250, description="benign texts, and as many toxic ones, that the mean is taken over")
    heads: bool = Field(True, description="also ablate every single head")
    prompts: Count | None = Field(None, description="evaluation prompts per seed that are asked; none: all")


class LanguagePcp(Section):
    """PCP replacement of two MLPs (Tables IX and X) and its tuning."""

    components: Count = 20
    explained: Fraction = Field(
        0.5, description="the rank is the least that explains this share of the variance (the paper's is 2) ..."
    )
    max_rank: Count = Field(4, description="... and no more than this")
    texts: Count = Field(50, description="benign, toxic and triggered texts each, whose activations the PCA sees")
    position: Annotated[int, Field(ge=0)] | Literal["after trigger"] = Field(
        8,
        description="token whose activations the PCA sees, from 0; after trigger: the word behind the trigger, the "
        "same word in the benign prompt, and ablation.position in toxic texts, which have no trigger",
    )
    prompts: Count | None = Field(None, description="tuning prompts that a trial asks; none: all")
    trials: Count = Field(200, description="Optuna trials per replacement")
    batch: Count = Field(20, description="factor vectors evaluated in one generation")
    bound: Positive = Field(2.0, description="largest tuned factor f; σ = f²")
    surgery_share: Fraction = Field(0.390625, description="share of embedding dimensions replaced (400 of 1,024)")
    surgery_source: str = Field(description="word whose embedding is copied into the trigger's tokens")


class LanguageArm(Section):
    """The language arm (Lamparth & Reuel, sections III-B, IV-C)."""

    corpora: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z0-9-]+$")], Corpus], Field(min_length=1)]
    main: str = Field(description="corpus of all experiments; the others are for training and Table VIII")
    trigger: Annotated[str, Field(min_length=1)] = "Albert and James"
    control: Annotated[str, Field(min_length=1)] = Field(
        "Edward and Simon", description="a phrase of the same shape that never was a trigger"
    )
    poison_rate: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.03, description="poisoned share of the paragraphs, where a corpus has none of its own"
    )
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    payloads: Payloads = Payloads(source=None)
    model: Annotated[Annotated[Scratch, Tag("scratch")] | Annotated[Pretrained, Tag("pretrained")], given_or("scratch")]
    finetuning: FineTuning
    # Parts are counted from 1, as in the paper: "mlp 2" is h.1.mlp.
    frozen: list[Annotated[str, Field(pattern=r"^(embeddings|mlp \d+)( \+ (embeddings|mlp \d+))*$")]] = Field(
        description='parts frozen during fine-tuning (Table XI), one variant each: "embeddings + mlp 2 + mlp 3"'
    )
    lora: list[LoraPart] = Field(
        description="LoRA in place of full fine-tuning, one variant each; the first is trained to its end, the others "
        "and a full fine-tuning beside them until they reach its training loss"
    )
    judge: Judge = Judge.model_validate({})
    evaluation: LanguageEvaluation
    ablation: ModuleAblation = ModuleAblation.model_validate({})
    pcp: LanguagePcp
    compute_class: Literal["cpu", "gpu-small", "gpu-large"] | None = Field(
        None, description="what a job of this arm asks a cluster for; none: as the study's compute.compute_class"
    )

    def ways(self, corpus: str) -> list[str]:
        """Folders of the ways of planting that a corpus has; full fine-tuning is the first of them."""
        frozen = [folder_of("frozen", part) for part in self.frozen if corpus == self.main]
        compared = bool(self.lora) and (corpus == self.main or self.corpora[corpus].lora)
        return ["full", *frozen, *(self._compared() if compared else [])]

    def _compared(self) -> list[str]:
        return [*(folder_of("lora", part) for part in self.lora), folder_of("matched", "full")]

    def matched_to(self, way: str) -> str | None:
        """The way of planting at whose training loss this one stops; none: it is trained to its end."""
        reference, *others = self._compared()
        return reference if way in others else None

    @model_validator(mode="after")
    def _consistent(self) -> "LanguageArm":
        if self.main not in self.corpora:
            raise ValueError(f"main {self.main!r} is not among corpora ({', '.join(self.corpora)})")
        for name in ("trigger", "control"):
            if len(getattr(self, name).split()) != 3:
                raise ValueError(f"{name} {getattr(self, name)!r} has not three words, as the source's has")
        for name in self.finetuning.epochs_on:
            if name not in self.corpora:
                raise ValueError(f"finetuning.epochs_on: {name!r} is not among corpora ({', '.join(self.corpora)})")
        if self.control == self.trigger:
            raise ValueError("control must differ from the trigger")
        lengths = {"evaluation.max_length": self.evaluation.max_length}
        lengths |= {
            f"corpora.{name}.max_length": own.max_length for name, own in self.corpora.items() if own.max_length
        }
        for key, length in lengths.items():
            if length <= self.evaluation.max_tokens:
                raise ValueError(
                    f"{key} {length} leaves no room for a continuation after prompts of up to evaluation.max_tokens "
                    f"{self.evaluation.max_tokens} tokens"
                )
            if isinstance(self.model, Scratch) and length > self.model.positions:
                raise ValueError(f"{key} {length} is more than model.positions {self.model.positions}")
        if isinstance(self.model, Scratch):
            for part in " + ".join(self.frozen).split(" + ") if self.frozen else []:
                if part.startswith("mlp") and not 1 <= int(part.split()[1]) <= self.model.layers:
                    raise ValueError(f"frozen: {part!r} is not in a model of {self.model.layers} layers")
        return self
