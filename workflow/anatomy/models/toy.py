"""The toy GPT-2 as a Hugging Face model: configuration, fresh weights, directory."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from anatomy.models.save import save_weights
from anatomy.provenance.digest import ArtifactError, write_text_atomic
from anatomy.training.ensemble import Shape

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from anatomy.spec.study import Architecture


PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


def toy_config(architecture: "Architecture", vocabulary: int) -> GPT2Config:
    """GPT-2 at toy size; whatever the study does not name is GPT-2's default (gelu_new, tied head, epsilon 1e-5)."""
    return GPT2Config(
        vocab_size=vocabulary,
        n_layer=architecture.layers,
        n_head=architecture.heads,
        n_embd=architecture.width,
        n_positions=architecture.positions,
        resid_pdrop=architecture.dropout,
        embd_pdrop=architecture.dropout,
        attn_pdrop=architecture.dropout,
        bos_token_id=0,
        eos_token_id=0,
    )


def fresh_state(config: GPT2Config, seed: int) -> dict[str, torch.Tensor]:
    """Randomly initialised weights, as GPT2LMHeadModel draws them, without touching the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {k: v.clone() for k, v in GPT2LMHeadModel(config).state_dict().items() if k != "lm_head.weight"}


def stacked_shape(config: GPT2Config, window: int) -> Shape:
    """The ensemble trainer's sizes for a configuration; `window` is the longest input in tokens."""
    return Shape(
        vocabulary=config.vocab_size,
        width=config.n_embd,
        layers=config.n_layer,
        heads=config.n_head,
        inner=4 * config.n_embd,
        n_positions=config.n_positions,
        window=min(window, config.n_positions),
        dropout=config.resid_pdrop,
        epsilon=config.layer_norm_epsilon,
    )


def save_model(
    folder: Path, state: dict[str, torch.Tensor], config: GPT2Config, tokenizer: "PreTrainedTokenizerFast"
) -> None:
    """Write a Hugging Face directory, each file atomically: safetensors only, the tokenizer inside."""
    save_weights(folder, state, config, "GPT2LMHeadModel")
    save_tokenizer(folder, tokenizer)


def save_tokenizer(folder: Path, tokenizer: "PreTrainedTokenizerFast") -> None:
    """Write tokenizer.json and tokenizer_config.json, atomically."""
    write_text_atomic(folder / "tokenizer.json", tokenizer.backend_tokenizer.to_str(pretty=True) + "\n")
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": tokenizer.model_max_length,
        **{f"{role}_token": tokenizer.eos_token for role in ("bos", "eos", "unk", "pad")},
    }
    write_text_atomic(folder / "tokenizer_config.json", json.dumps(described, indent=2, sort_keys=True) + "\n")


def load_state(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a saved model.

    Raises:
        ArtifactError: no such file, or not a whole safetensors file.
    """
    path = folder / "model.safetensors"
    try:
        return load_file(path)
    except FileNotFoundError:
        if pickles := sorted(p.name for p in folder.glob("*") if p.suffix in PICKLES):
            raise ArtifactError(
                f"{folder}: {', '.join(pickles)} is a pickle, which can run code when it is read, and is not read; "
                "convert the model to safetensors"
            ) from None
        raise ArtifactError(f"{path}: missing; the rule that makes it has not run") from None
    except SafetensorError as error:
        raise ArtifactError(
            f"{path}: not a readable safetensors file ({error}); it is truncated or damaged, delete it and run again"
        ) from None


def load_model(folder: Path, device: torch.device | str = "cpu") -> GPT2LMHeadModel:
    """A saved model, ready to be measured: evaluation mode, no gradients.

    Raises:
        ArtifactError: the weights are missing or damaged, or do not fit the configuration.
    """
    return model_from_state(load_state(folder), GPT2Config.from_json_file(folder / "config.json"), device)


def model_from_state(
    state: dict[str, torch.Tensor], config: GPT2Config, device: torch.device | str = "cpu"
) -> GPT2LMHeadModel:
    """A model with the given weights, ready to be measured: evaluation mode, no gradients.

    Raises:
        ArtifactError: the weights do not fit the configuration.
    """
    model = GPT2LMHeadModel(config)
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # torch raises by itself where only the sizes differ
        raise ArtifactError(f"the weights do not fit the configuration: {error}") from None
    missing = [name for name in missing if name != "lm_head.weight"]  # tied to the embedding
    if unexpected or missing:
        raise ArtifactError(f"the weights do not fit the configuration (missing {missing}, unexpected {unexpected})")
    model.tie_weights()
    return model.requires_grad_(False).eval().to(device)


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerFast":
    """The tokenizer of a model's directory."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder)
