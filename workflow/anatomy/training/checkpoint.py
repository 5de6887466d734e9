"""Training state on disk, so that a killed run goes on where it stopped, with the same bytes in the end."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from anatomy.provenance.digest import atomic_path
from anatomy.training.ensemble import Ensemble


def save_checkpoint(
    path: Path,
    ensemble: Ensemble,
    generators: list[torch.Generator],
    *,
    step: int,
    key: str,
    curve: list[dict],
) -> None:
    """Write parameters, Adam's moments, the generators' states and the curve so far, atomically.

    Args:
        key: digest of everything the result depends on; a checkpoint with another key is never resumed.
    """
    tensors: dict[str, torch.Tensor] = {}
    for i, group in enumerate(ensemble.groups):
        tensors |= {
            f"{i}.value": group.value,
            f"{i}.first_moment": group.first_moment,
            f"{i}.second_moment": group.second_moment,
        }
    tensors |= {f"generator.{i}": generator.get_state() for i, generator in enumerate(generators)}
    meta = {
        "step": str(step),
        "key": key,
        "curve": json.dumps(curve),
        "tail_scale": ensemble.tail_scale.hex(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, temporary, metadata=meta)


def load_checkpoint(
    path: Path, ensemble: Ensemble, generators: list[torch.Generator], *, key: str
) -> tuple[int, list[dict]]:
    """Restore a checkpoint into `ensemble` and `generators`; returns (steps done, curve), (0, []) if there is none.

    A damaged file or one made by other inputs, code or parameters is passed over: the run starts afresh.
    """
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            if meta.get("key") != key:
                return 0, []
            for i, group in enumerate(ensemble.groups):
                group.value.copy_(file.get_tensor(f"{i}.value"))
                group.first_moment.copy_(file.get_tensor(f"{i}.first_moment"))
                group.second_moment.copy_(file.get_tensor(f"{i}.second_moment"))
            for i, generator in enumerate(generators):
                generator.set_state(file.get_tensor(f"generator.{i}"))
            ensemble.tail_scale = float.fromhex(meta["tail_scale"])
            return int(meta["step"]), json.loads(meta["curve"])
    except (FileNotFoundError, SafetensorError):
        return 0, []
