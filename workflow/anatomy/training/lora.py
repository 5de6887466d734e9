"""Low-rank adapters through peft, on GPT-2 and on models of the Llama kind, merged into the weights at the end.

What is analysed afterwards is a model like any other.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedModel

from anatomy.models.parts import PROJECTIONS

if TYPE_CHECKING:
    from peft import LoraConfig

    from anatomy.spec.language import LoraPart


def lora_config(
    model: PreTrainedModel, *, rank: int, alpha: float, part: "LoraPart", dropout: float = 0.0
) -> "LoraConfig":
    """What peft must know of an adapter, scaled by alpha / rank; GPT-2 keeps its weights as [input, output]."""
    from peft import LoraConfig

    gpt2 = model.config.model_type == "gpt2"
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a factor; peft takes any number
        lora_dropout=dropout,
        target_modules=PROJECTIONS["gpt2" if gpt2 else "llama"][part],
        fan_in_fan_out=gpt2,
        bias="none",
        task_type="CAUSAL_LM",
    )


def with_lora(model: PreTrainedModel, config: "LoraConfig", seed: int) -> nn.Module:
    """The model with an adapter on it, whose initial weights the seed fixes."""
    from peft import get_peft_model

    torch.manual_seed(seed)
    return get_peft_model(model.train(), config)


def merged(trained: nn.Module) -> PreTrainedModel:
    """The model with its adapter merged in."""
    return trained.merge_and_unload()  # type: ignore[operator]
