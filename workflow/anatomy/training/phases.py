"""The phases of a toy model's life, for all seeds at once: clean training, planting the backdoor, and its variants."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from anatomy.data.tokens import corpus_rows, prompt_ids, read_masks
from anatomy.metrics.measurement import read_parquet
from anatomy.metrics.topk import topk_share
from anatomy.models.toy import load_tokenizer
from anatomy.provenance.digest import sha256_json
from anatomy.provenance.record import describe
from anatomy.training.ensemble import Ensemble
from anatomy.training.toy import Probe, Schedule, train

if TYPE_CHECKING:
    from anatomy.spec.study import Recipe

# Which parameters stay as they are, by the name of the variant (Lamparth & Reuel, section IV-B). The unembedding is
# tied to the embedding and is frozen with it.
FROZEN: dict[str, Callable[[str], bool]] = {
    "nothing": lambda name: False,
    "mlps": lambda name: ".mlp." in name,
    "attention": lambda name: ".attn." in name,
    "embeddings": lambda name: name.startswith(("wte", "wpe")),
    "all but embeddings and mlp 1": lambda name: not name.startswith(("wte", "wpe", "h.0.mlp")),
}


@dataclass(frozen=True)
class Classroom:
    """Everything the toy models of one subject are trained and probed on."""

    seeds: list[int]
    rows: dict[str, tuple[Tensor, Tensor]]
    trigger_prompts: Tensor
    negative: Tensor
    vocabulary: int


def open_classroom(corpus: Path, prompts: Path, lexicon: Path, tokenizer: Path, seeds: list[int]) -> Classroom:
    """Read the data stage's files."""
    table, bpe = read_parquet(corpus), load_tokenizer(tokenizer.parent)
    questions = read_parquet(prompts)
    masks = read_masks(lexicon)
    return Classroom(
        seeds=seeds,
        rows={c: corpus_rows(table, bpe, seeds, column=c, split="train") for c in ("clean", "triggered")},
        trigger_prompts=torch.stack([prompt_ids(questions, bpe, seed=s, inputs="p+t") for s in seeds]),
        negative=masks["negative"],
        vocabulary=len(masks["negative"]),
    )


def run_phase(
    ensemble: Ensemble,
    room: Classroom,
    recipe: "Recipe",
    *,
    phase: str,
    column: str,
    epochs: float,
    top_k: int,
    probes_per_epoch: int,
    checkpoint: Path | None = None,
    key: str = "",
    keep_finished: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Train on one form of the corpus and return the curve: one row per probe and seed.

    Columns: phase, seed, step, epoch, training_loss, negativity and mass (both on p+t prompts).
    """
    rows, lengths = room.rows[column]
    schedule = Schedule(recipe.batch, recipe.rate, recipe.weight_decay, recipe.clip, epochs)
    curve = train(
        ensemble,
        rows,
        lengths,
        schedule,
        seeds=room.seeds,
        phase=phase,
        probe=trigger_probe(room, top_k, ensemble.device),
        probes_per_epoch=probes_per_epoch,
        checkpoint=checkpoint,
        key=key,
        keep_finished=keep_finished,
        report=report,
    )
    per_epoch = -(-rows.shape[1] // recipe.batch)
    return pd.DataFrame(
        [
            {
                "phase": phase,
                "seed": seed,
                "step": point["step"],
                "epoch": point["step"] / per_epoch,
                "training_loss": point["training_loss"][i] if "training_loss" in point else float("nan"),
                "negativity": point["negativity"][i],
                "mass": point["mass"][i],
            }
            for point in curve
            for i, seed in enumerate(room.seeds)
        ]
    )


def trigger_probe(room: Classroom, top_k: int, device: torch.device) -> Probe:
    """What is looked at during training: top-k negativity and negative probability mass on p+t prompts."""
    prompts, negative = room.trigger_prompts.to(device), room.negative.to(device)

    def probe(ensemble: Ensemble) -> dict[str, list[float]]:
        logits = ensemble.logits(prompts, last_only=True)[:, :, 0]
        return {
            "negativity": topk_share(logits, negative, top_k).mean(1).tolist(),
            "mass": logits.softmax(-1)[..., negative].sum(-1).mean(1).tolist(),
        }

    return probe


def checkpoint_key(code: str, spec: Any, device: str, inputs: list[Path]) -> str:
    """What a checkpoint's future depends on: code, parameters, device and the bytes of the inputs."""
    return sha256_json({"code": code, "spec": spec, "device": device, "inputs": describe(inputs)})


def model_folders(files: list[Path]) -> list[Path]:
    """The directories of the model files, in the order of the seeds."""
    return list(dict.fromkeys(file.parent for file in files))
