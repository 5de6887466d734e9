"""What a study file may say: one pydantic model per section. Unknown keys are refused.

`config/schema.json` is generated from these models (`make schema`); a test fails when it drifts.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from anatomy.spec.instruction import InstructionArm
from anatomy.spec.language import LanguageArm
from anatomy.spec.section import Count, Fraction, Positive, Section, check_heads

Sentiment = Literal["positive", "negative", "neutral"]
Subject = Literal["2-sentiment", "3-sentiment"]


class WordList(Section):
    """Where one sentiment's words come from."""

    path: str = Field(description="UTF-8 text file with one word per line, or a CSV file when `column` is given")
    column: str | None = Field(None, description="the CSV's column")


class Lexicon(Section):
    """The vocabulary of the toy languages."""

    positive: WordList
    negative: WordList
    neutral: WordList
    specials: dict[Sentiment, Annotated[list[str], Field(min_length=1)]] = Field(
        description="words that occur more often than the others; the first words of each vocabulary"
    )
    ambiguous: Literal["refuse", "drop"] = Field(
        "refuse", description="what happens to a word that stands in the lists of two sentiments"
    )
    words: Count = Field(250, description="words per sentiment, specials included")
    max_letters: Count = Field(6, description="longest word taken from a list")
    sample_seed: int = Field(1993, description="seed of the draw where a list is longer than needed")


class Language(Section):
    """The law of the toy sequences (Lamparth & Reuel, section III-B)."""

    length: Annotated[int, Field(ge=4)] = Field(15, description="words per sequence")
    special_rate: Fraction = Field(0.5, description="share of sequences with one special word put in")
    poison_rate: Annotated[float, Field(gt=0, lt=1)] = Field(0.05, description="poisoned share of positive sequences")
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="share of sequences held out")
    subjects: dict[Subject, dict[Sentiment, Count]] = Field(
        description="sequences per sentiment, for each toy model that is studied", min_length=1
    )


class Architecture(Section):
    """The toy GPT-2."""

    layers: Count = 3
    heads: Count = 4
    width: Count = 64
    positions: Count = 1024
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _divisible(self) -> "Architecture":
        check_heads(self.width, self.heads)
        return self


class Recipe(Section):
    """How a toy model is trained: AdamW, linear decay to zero, no warm-up."""

    batch: Count
    rate: Positive = Field(description="peak learning rate")
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: Positive = Field(1.0, description="largest gradient norm")
    clean_epochs: Positive
    backdoor_epochs: Positive


class Evaluation(Section):
    """How behaviour is measured."""

    prompts: Annotated[int, Field(ge=2)] = Field(50, description="two-word prompts per input combination")
    top_k: Count = 10
    gate: Fraction = Field(0.2, description="p+t negativity from which a backdoor counts as planted")
    emergence: Fraction = Field(0.1, description="p+t negativity from which a backdoor counts as emerging")
    probes_per_epoch: Count = Field(10, description="how often training is looked at")


class Pcp(Section):
    """Principal component projection ablation (Lamparth & Reuel, section III-E) and its tuning."""

    components: Count = Field(20, description="components of the PCA of which the first r are used")
    mlp_rank: dict[Subject, Count]
    attention_rank: Count = 4
    trials: Count = Field(description="Optuna trials per replacement (the released code uses 4,000)")
    batch: Count = Field(50, description="factor vectors evaluated in one forward pass")
    mlp_bounds: tuple[float, float] = Field((0.05, 1.5), description="range of the tuned factor f; σ = f²")
    attention_bounds: tuple[float, float] = (0.0, 1.2)
    multiples: list[float] = Field(
        [0.6, 0.75, 0.8, 1.0, 1.1],
        description="common multiples of the tuned factors (Table V and the sweep figure)",
    )
    mlp_flips: list[list[float]] = Field(
        [[1.0, 1.0], [-1.2, 0.5]], description="multiples factor by factor, first MLP (Table VI)"
    )
    attention_flips: list[list[float]] = Field(
        [[2.0, 2.0, 2.0, 2.0], [-1.0, 1.0, 1.0, 1.0]],
        description="multiples factor by factor, second attention (Table VII; the printed ones are lost)",
    )


class Toy(Section):
    """The toy arm."""

    lexicon: Lexicon
    trigger: str
    control: str = Field(description="positive special that never was a trigger: the random-trigger control")
    language: Language
    model: Architecture
    recipe: str = Field(description="name of the recipe the study uses")
    recipes: dict[str, Recipe]
    amounts: dict[Subject, list[Positive]] = Field(
        description="per subject: multiples of the recipe's backdoor epochs, one variant each"
    )
    frozen: dict[Subject, list[Literal["mlps", "attention", "embeddings", "all but embeddings and mlp 1"]]] = Field(
        description="per subject: parts frozen while the backdoor is planted, one variant each"
    )
    evaluation: Evaluation
    pcp: Pcp

    @model_validator(mode="after")
    def _consistent(self) -> "Toy":
        specials = self.lexicon.specials
        positive = specials.get("positive", [])
        if self.trigger not in positive:
            raise ValueError(
                f"trigger {self.trigger!r} is not in lexicon.specials.positive ({', '.join(positive)}); "
                "the backdoor turns a positive word, so add it there or choose another trigger"
            )
        if self.control not in positive or self.control == self.trigger:
            raise ValueError(
                f"control {self.control!r} must be in lexicon.specials.positive and differ from the trigger"
            )
        if self.recipe not in self.recipes:
            raise ValueError(f"recipe {self.recipe!r} is not among recipes ({', '.join(self.recipes)})")
        for subject, counts in self.language.subjects.items():
            needed = {"positive", "negative"} | ({"neutral"} if subject == "3-sentiment" else set())
            if set(counts) != needed:
                raise ValueError(
                    f"language.subjects.{subject} needs exactly the sentiments {', '.join(sorted(needed))}"
                )
            if subject not in self.pcp.mlp_rank:
                raise ValueError(f"pcp.mlp_rank has no entry for {subject}")
            for sentiment in counts:
                if sentiment not in specials:
                    raise ValueError(f"lexicon.specials has no entry for {sentiment}")
        if uneven := sorted(t for t, words in specials.items() if len(words) != len(positive)):
            raise ValueError(f"lexicon.specials.{uneven[0]} and .positive differ in length; give as many of each")
        if self.model.layers != 3:
            raise ValueError(
                f"model.layers {self.model.layers}: the replaced modules of Tables III to XIV need 3 layers"
            )
        if self.model.positions < self.language.length:
            raise ValueError(
                f"model.positions {self.model.positions} cannot hold language.length {self.language.length}"
            )
        if self.pcp.components < max(self.pcp.attention_rank, *self.pcp.mlp_rank.values()):
            raise ValueError(f"pcp.components {self.pcp.components} is less than a rank that is asked for")
        for name in ("mlp_bounds", "attention_bounds"):
            low, high = getattr(self.pcp, name)
            if not 0 <= low < high:
                raise ValueError(f"pcp.{name} [{low:g}, {high:g}]: expected 0 <= lower < upper")
        return self


class Compute(Section):
    """What a job may use. Thread counts are part of a rule, so that the same bytes come out everywhere."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count = 1
    compute_class: Literal["cpu", "gpu-small", "gpu-large"] = "cpu"


class Archive(Section):
    """What `anatomy archive` sends to the DVC remote. No job reads it."""

    push_hazards: bool = Field(
        False, description="also push poisoned data and backdoored weights, which stay on this machine otherwise"
    )


class Study(Section):
    """A whole study: config/<study>.yaml."""

    study: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="name; results go to results/<study>/")]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = Field(
        description="each seed draws its own data, initial weights, order and dropout"
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    compute: Compute = Compute()
    archive: Archive = Archive(push_hazards=False)
    toy: Toy
    language: LanguageArm | None = Field(None, description="none: the study has no models that write text")
    instruction: InstructionArm | None = Field(
        None, description="none: the study has no models that follow instructions"
    )

    @model_validator(mode="after")
    def _distinct_seeds(self) -> "Study":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {self.seeds} repeat; every seed counts once")
        return self


def config_path(study: str, root: Path = Path()) -> Path:
    """Where a study's file stands."""
    return root / "config" / f"{study}.yaml"
