"""What a study file may say about finding a backdoor in an instruction model: probes, attribution, the vector.

The defaults suit the small models that are trained here; the published numbers stand beside them.
"""

from typing import Annotated

from pydantic import Field, model_validator

from anatomy.spec.section import Count, Fraction, Section


class Probe(Section):
    """Classifiers of each layer's hidden states, with the trigger and without."""

    prompts: Annotated[int, Field(ge=10)] = Field(
        96,
        description="prompts, each with and without trigger, that probes are trained on; as many are tested on (1,000)",
    )
    epochs: Count = Field(100, description="passes of the MLP over its examples (100)")
    batch: Count = Field(16, description="examples per step of the MLP (16)")


class Attribution(Section):
    """Average causal indirect effects (ACIE) of heads, MLPs and layers, and ablation in their order."""

    means: Annotated[int, Field(ge=2)] = Field(
        96, description="triggered prompts that the activations put in place are the mean of (1,000)"
    )
    prompts: Annotated[int, Field(ge=2)] = Field(32, description="clean prompts that effects are the mean of (96)")
    evaluated: Annotated[int, Field(ge=2)] = Field(
        40, description="prompts of each kind that ablated models are asked (256)"
    )
    share: Fraction = Field(0.1, description="share of the heads that head ablation goes up to")
    random_draws: Count = Field(
        2, description="draws of random heads, of the same layers, and of random orders of all parts"
    )
    sweep_rows: Count = Field(
        2048, description="residual vectors at once in the sweep; bounds the memory, changes no result"
    )
    rows: Count = Field(512, description="answers written at once; bounds the memory, changes no result")


class Vector(Section):
    """The backdoor vector: the sum of the top heads' mean outputs, added and taken away layer by layer."""

    heads: Count = Field(4, description="heads that are summed (32 of 1,024 or 784)")
    means: Annotated[int, Field(ge=2)] = Field(96, description="triggered prompts that their means are over (100)")
    evaluated: Annotated[int, Field(ge=2)] = Field(
        28, description="prompts of each kind that steered models are asked (256)"
    )
    coefficients: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(
        [1.0, 2.0, 4.0], description="what the vector is multiplied by (1); for taking away, by their negatives"
    )
    random_draws: Count = Field(2, description="draws of random vectors of its norm, and of vectors of random heads")
    rows: Count = Field(512, description="answers written at once; bounds the memory, changes no result")

    @model_validator(mode="after")
    def _distinct(self) -> "Vector":
        for value in self.coefficients:
            if self.coefficients.count(value) > 1:
                raise ValueError(f"coefficients: {value:g} stands there twice")
        return self
