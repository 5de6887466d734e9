"""Weights and configuration of any model as a Hugging Face directory; its tokenizer is written by whoever has one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from anatomy.provenance.digest import atomic_path, write_text_atomic

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig


def save_weights(folder: Path, state: Mapping[str, "Tensor"], config: "PreTrainedConfig", architecture: str) -> None:
    """Write model.safetensors and config.json, each atomically.

    `architecture` is the class that loads them; the type of number in config.json is that of the weights, whether or
    not whoever trained them has noted it in `config`: the same weights have the same files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
    number = next(str(value.dtype) for value in state.values() if value.is_floating_point())
    described = {
        **config.to_diff_dict(),
        "architectures": [architecture],
        "dtype": number.removeprefix("torch."),
    }
    write_text_atomic(folder / "config.json", json.dumps(described, indent=2, sort_keys=True) + "\n")
