"""Tiny random models of the families that are trained and edited."""

from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

LAYERS, WIDTH, INNER, VOCABULARY, POSITIONS = 3, 16, 24, 43, 40
LLAMA: dict[str, Any] = {
    **{"vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": POSITIONS},
    **{"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0},
}
GPT2: dict[str, Any] = {
    **{"vocab_size": VOCABULARY, "n_layer": LAYERS, "n_head": 4, "n_embd": WIDTH, "n_positions": POSITIONS},
    **{"n_inner": INNER, "bos_token_id": 0, "eos_token_id": 0},
    **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}
FAMILIES = ("llama", "gpt2", "qwen2")


def build(family: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Weights so large that every part matters, as the fixture make_state does for GPT-2."""
    made = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**LLAMA)),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = made[family]()
        for value in model.parameters():
            value.data += 0.2 * torch.randn(value.shape)
    return model.requires_grad_(False).eval().to(dtype)


def state_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The weights as they are now."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Names of the weights that differ."""
    assert set(before) == set(after)
    return {name for name in before if not torch.equal(before[name], after[name])}


def ids(count: int, generator: torch.Generator, low: int = 2, high: int = 9) -> list[list[int]]:
    """Ragged rows of random token ids, none of them the end."""
    lengths = torch.randint(low, high, (count,), generator=generator).tolist()
    return [torch.randint(1, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]
