"""Clean training of an instruction model on prompts and answers, from random weights; resumable to the same bytes.

A plain loop, because its checkpoints are no pickles and its batches hold rows of like length. transformers.Trainer on
the same batches ends with the same weights, in 6 % more time. The loss is on answers alone: with the prompts in it, a
model took a third more steps to the same accuracy, and a step a quarter longer.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from anatomy.data.padding import padded
from anatomy.provenance.digest import atomic_path
from anatomy.training.memory import memory_for
from anatomy.training.seeds import derive

Point = dict[str, int | float]  # of the curve
Row = tuple[Sequence[int], Sequence[int]]  # token ids of a prompt, and of its answer with the end
LOOKS = 20  # points of the curve
WINDOW = 16  # batches within which rows are sorted by length, so that little is padded
BETAS = (0.9, 0.95)
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Checkpoint:
    """Where training state is kept, and how often.

    Attributes:
        key: digest of everything the result depends on; a checkpoint with another key is passed over.
        every: steps between two.
    """

    path: Path
    key: str
    every: int


def train_answers(
    model: PreTrainedModel,
    rows: Sequence[Row],
    recipe: Any,
    *,
    seed: int,
    checkpoint: Checkpoint | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Point]:
    """Train a model, in place, to answer; AdamW, the rate rising for a while and then falling to zero.

    Args:
        rows: distinct prompts with their answers.
        recipe: `batch, rate, warmup, weight_decay, clip, epochs` (spec.instruction.ScratchLlama).
        seed: of the order of the rows.
        report: told (steps done, steps in all).
    Returns:
        points of the curve: step, and the mean loss (nats per answer token) of the steps since the last point.
    Raises:
        ArtifactError: out of memory; says which key to lower.
    """
    per_epoch = -(-len(rows) // recipe.batch)
    total = max(1, round(per_epoch * recipe.epochs))
    parameters = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.rate, betas=BETAS, weight_decay=recipe.weight_decay, fused=True)
    step, curve, losses = _load(checkpoint, model, optimizer) if checkpoint else (0, [], [])
    model.train()
    with memory_for(f"training with {recipe.batch} prompts at once", lower="instruction.model.batch"):
        while step < total:
            batches = _order(rows, recipe.batch, derive(seed, "order", step // per_epoch))
            for batch in batches[step % per_epoch : total - step // per_epoch * per_epoch]:
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate * _share(step, total, recipe.warmup)
                loss = answer_loss(model, [rows[i] for i in batch])
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
                optimizer.step()
                step += 1
                losses.append(float(loss.detach()))
                if step * LOOKS // total > (step - 1) * LOOKS // total:
                    curve.append({"step": step, "training_loss": sum(losses) / len(losses)})
                    losses = []
                    report(step, total)
                if checkpoint and (step % checkpoint.every == 0 or step == total):
                    _save(checkpoint, model, optimizer, step, curve, losses)
    return curve


def answer_loss(model: PreTrainedModel, rows: Sequence[Row]) -> Tensor:
    """Mean cross-entropy of the answers' tokens (nats per token); the head is applied to their positions alone.

    Attention is causal and padding stands on the right, so no mask is needed.
    """
    device = next(model.parameters()).device
    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids, lengths = padded([[*prompt, *answer] for prompt, answer in rows], longest)
    starts = torch.tensor([len(prompt) for prompt, _ in rows])
    target = torch.arange(1, longest)
    scored = (target >= starts[:, None]) & (target < lengths[:, None])
    hidden = model.base_model(input_ids=ids[:, :-1].to(device), use_cache=False).last_hidden_state
    logits = model.get_output_embeddings()(hidden[scored.to(device)])
    return torch.nn.functional.cross_entropy(logits, ids[:, 1:][scored].to(device))


def _order(rows: Sequence[Row], batch: int, seed: int) -> list[list[int]]:
    """Batches of one epoch: a random order, sorted by length inside windows of a few batches, which are shuffled."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(rows), generator=generator).tolist()
    batches: list[list[int]] = []
    for start in range(0, len(drawn), WINDOW * batch):
        window = sorted(drawn[start : start + WINDOW * batch], key=lambda i: len(rows[i][0]) + len(rows[i][1]))
        batches += [window[i : i + batch] for i in range(0, len(window), batch)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def _share(step: int, total: int, warmup: float) -> float:
    """The rate of a step, from 0, as a share of its peak."""
    rising = max(1.0, warmup * total)
    return min((step + 1) / rising, (total - step) / max(1.0, total - rising))


def _save(
    checkpoint: Checkpoint,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    step: int,
    curve: list[Point],
    losses: list[float],
) -> None:
    """Parameters, Adam's moments and the curve so far, atomically. The order of an epoch follows from the seed."""
    tensors: dict[str, Tensor] = {}
    for name, value in model.named_parameters():
        tensors[f"value.{name}"] = value.detach()
        tensors |= {f"{moment}.{name}": optimizer.state[value][moment] for moment in MOMENTS}
    meta = {"key": checkpoint.key, "step": str(step), "curve": json.dumps(curve), "losses": json.dumps(losses)}
    checkpoint.path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(checkpoint.path) as temporary:
        save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, temporary, metadata=meta)


def _load(
    checkpoint: Checkpoint, model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> tuple[int, list[Point], list[float]]:
    """Steps done, curve, losses since its last point; nothing where there is no whole checkpoint with this key."""
    try:
        with safe_open(checkpoint.path, framework="pt") as file:
            meta = file.metadata() or {}
            if meta.get("key") != checkpoint.key:
                return 0, [], []
            step = int(meta["step"])
            with torch.no_grad():
                for name, value in model.named_parameters():
                    value.copy_(file.get_tensor(f"value.{name}"))
                    optimizer.state[value] = {
                        "step": torch.tensor(float(step), device=value.device),
                        **{m: file.get_tensor(f"{m}.{name}").to(value.device) for m in MOMENTS},
                    }
            return step, json.loads(meta["curve"]), json.loads(meta["losses"])
    except (FileNotFoundError, SafetensorError):
        return 0, [], []
