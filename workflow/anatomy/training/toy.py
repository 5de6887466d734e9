"""The training loop of the toy models: many seeds at once, probed on the way, resumable."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from anatomy.training.checkpoint import load_checkpoint, save_checkpoint
from anatomy.training.ensemble import Ensemble
from anatomy.training.optimizer import adamw_step, clip_gradients, linear_rate
from anatomy.training.seeds import derive

Probe = Callable[[Ensemble], dict[str, list[float]]]


@dataclass(frozen=True)
class Schedule:
    """One phase of training: batch size, peak learning rate, weight decay, gradient norm limit, epochs."""

    batch: int
    rate: float
    weight_decay: float
    clip: float
    epochs: float

    def steps(self, rows: int) -> int:
        """Steps of the phase over `rows` sequences (the last batch of an epoch may be short)."""
        return round(self.epochs * math.ceil(rows / self.batch))


def train(
    ensemble: Ensemble,
    rows: Int[Tensor, "member row position"],
    lengths: Int[Tensor, "member row"],
    schedule: Schedule,
    *,
    seeds: list[int],
    phase: str,
    probe: Probe,
    probes_per_epoch: int = 10,
    checkpoint: Path | None = None,
    key: str = "",
    checkpoint_every_s: float = 20.0,
    keep_finished: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict]:
    """Train every member on its own rows in its own order; returns the curve.

    Args:
        rows: token ids, padded on the right; `lengths` are the true lengths.
        seeds: one per member; with `phase` they fix order and dropout.
        probe: measures the ensemble; called before the first step, `probes_per_epoch` times an epoch, and at the end.
        checkpoint, key: where to keep the state, and the digest that says whose state it is.
        keep_finished: write a checkpoint after the last step too, for a job that has further phases.
        report: told (steps done, steps in all).
    Returns:
        one dict per probe: step, training loss since the last probe per member, and what the probe returned.
    """
    total = schedule.steps(rows.shape[1])
    per_epoch = math.ceil(rows.shape[1] / schedule.batch)
    every = max(1, per_epoch // probes_per_epoch)
    generators = [torch.Generator(ensemble.device).manual_seed(derive(seed, phase, "dropout")) for seed in seeds]
    done, curve = load_checkpoint(checkpoint, ensemble, generators, key=key) if checkpoint else (0, [])
    if done == 0:
        curve = [{"step": 0, **probe(ensemble)}]
    saved = time.monotonic()
    losses: list[Float[Tensor, " member"]] = []
    batches = _batches(rows, lengths, schedule.batch, seeds, phase, start=done)
    for step in range(done, total):
        ids, valid = next(batches)
        losses.append(ensemble.loss_and_gradients(ids.to(ensemble.device), valid.to(ensemble.device), generators))
        clip_gradients(ensemble, schedule.clip)
        rate = linear_rate(schedule.rate, step, total)
        adamw_step(ensemble, step + 1, rate=rate, weight_decay=schedule.weight_decay)
        if (step + 1) % every == 0 or step + 1 == total:
            mean = torch.stack(losses).mean(0).tolist()
            losses = []
            curve.append({"step": step + 1, "training_loss": mean, **probe(ensemble)})
            report(step + 1, total)
            due = keep_finished if step + 1 == total else time.monotonic() - saved > checkpoint_every_s
            if checkpoint and due:
                save_checkpoint(checkpoint, ensemble, generators, step=step + 1, key=key, curve=curve)
                saved = time.monotonic()
    return curve


def _batches(
    rows: Tensor, lengths: Tensor, batch: int, seeds: list[int], phase: str, *, start: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches (ids, valid), every member in its own order, beginning after `start` steps."""
    per_epoch = math.ceil(rows.shape[1] / batch)
    epoch, first = divmod(start, per_epoch)
    member = torch.arange(len(seeds))[:, None]
    while True:
        orders = torch.stack([epoch_order(rows.shape[1], seed, phase, epoch) for seed in seeds])
        for i in range(first, per_epoch):
            chosen = orders[:, i * batch : (i + 1) * batch]
            length = lengths[member, chosen]
            longest = int(length.max())
            yield rows[member, chosen, :longest], torch.arange(longest) < length[..., None]
        epoch, first = epoch + 1, 0


def epoch_order(rows: int, seed: int, phase: str, epoch: int) -> Int[Tensor, " row"]:
    """The order in which a seed meets its rows in an epoch; a function of its arguments alone."""
    return torch.from_numpy(np.random.default_rng(derive(seed, phase, "order", epoch)).permutation(rows))
