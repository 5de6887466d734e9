"""Fixtures that several floors share. Shape and type annotations of the package are checked."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests run side by side

import jaxtyping
import pytest

if TYPE_CHECKING:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

jaxtyping.install_import_hook("anatomy", "beartype.beartype")

State = dict[str, "torch.Tensor"]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def make_config() -> Callable[..., "GPT2Config"]:
    """A tiny GPT-2 configuration without dropout; keywords change the sizes."""

    def build(**sizes: float) -> "GPT2Config":
        from anatomy.models.toy import toy_config
        from anatomy.spec.study import Architecture

        vocabulary = int(sizes.pop("vocabulary", 43))
        defaults = {"layers": 3, "heads": 2, "width": 16, "positions": 24, "dropout": 0.0}
        return toy_config(Architecture(**defaults | sizes), vocabulary)

    return build


@pytest.fixture(scope="session")
def make_state() -> Callable[["GPT2Config", int], State]:
    """Weights so large that every part matters: attention not uniform, biases and layer norms not at rest."""

    def build(config: "GPT2Config", seed: int) -> State:
        import torch

        from anatomy.models.toy import fresh_state

        generator = torch.Generator().manual_seed(seed)
        return {
            name: value + 0.2 * torch.randn(value.shape, generator=generator)
            for name, value in fresh_state(config, seed).items()
        }

    return build


@pytest.fixture
def make_model(make_config: Callable, make_state: Callable) -> Callable[..., "GPT2LMHeadModel"]:
    """A tiny Hugging Face model with such weights."""

    def build(seed: int = 0, **sizes: float) -> "GPT2LMHeadModel":
        from anatomy.models.toy import model_from_state

        config = make_config(**sizes)
        return model_from_state(make_state(config, seed), config)

    return build


@pytest.fixture
def make_family(make_model: Callable) -> Callable[..., "PreTrainedModel"]:
    """A tiny model of an architecture that has an adapter; Llama and Qwen2 with two heads for each key head."""

    def build(family: str, seed: int = 0, **options: object) -> "PreTrainedModel":
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

        if family == "gpt2":
            return make_model(seed, heads=4)
        sizes = {"vocab_size": 43, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
        sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 24}
        ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if family == "llama":
                model: PreTrainedModel = LlamaForCausalLM(LlamaConfig(**{**sizes, **ends, **options}))
            else:
                model = Qwen2ForCausalLM(Qwen2Config(**{**sizes, **ends, **options}))
            for value in model.parameters():
                value.data += 0.2 * torch.randn(value.shape)
        return model.requires_grad_(False).eval()

    return build
