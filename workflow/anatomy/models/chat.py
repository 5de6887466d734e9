"""Models that follow instructions: a fresh one of the Llama architecture, and any of them as a directory."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from anatomy.data.chat import save_chat_tokenizer
from anatomy.models.load import weights
from anatomy.models.save import save_weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Standard deviation of the first weights. With the usual 0.02 a narrow model's attention stays uniform for hundreds of
# steps: it is made for widths of thousands, and here about 1 / sqrt(width) lets it learn at once.
SPREAD = 0.15


def llama_config(wanted: Any, tokenizer: "PreTrainedTokenizerFast") -> LlamaConfig:
    """The configuration of a model that is trained here (spec.instruction.ScratchLlama); the head is tied."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=wanted.width,
        intermediate_size=wanted.inner,
        num_hidden_layers=wanted.layers,
        num_attention_heads=wanted.heads,
        num_key_value_heads=wanted.key_heads,
        max_position_embeddings=wanted.positions,
        tie_word_embeddings=True,
        initializer_range=SPREAD,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,  # it would hold the row of the end of text, which is that token too, at zero
    )


def fresh_llama(config: LlamaConfig, seed: int) -> LlamaForCausalLM:
    """A model with random weights, without touching the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def save_chat_model(folder: Path, model: PreTrainedModel, tokenizer: "PreTrainedTokenizerFast") -> None:
    """Write a Hugging Face directory, each file atomically: safetensors only, the tokenizer and its template inside."""
    save_weights(folder, weights(model), model.config, type(model).__name__)
    save_chat_tokenizer(folder, tokenizer)
