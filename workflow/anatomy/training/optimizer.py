"""AdamW over a stack of models: each member has its own gradient norm, all share step and rate."""

import torch
from jaxtyping import Float
from torch import Tensor

from anatomy.training.ensemble import Ensemble


def clip_gradients(ensemble: Ensemble, limit: float) -> Float[Tensor, " member"]:
    """Scale each member's gradients so that their joint norm is at most `limit`; returns the norms before.

    As torch.nn.utils.clip_grad_norm_: the factor is min(1, limit / (norm + 1e-6)).
    """
    squares = sum(torch.linalg.vector_norm(group.gradient, dim=1) ** 2 for group in ensemble.groups)
    norm = torch.as_tensor(squares).sqrt()
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    if bool((factor < 1).any()):
        for group in ensemble.groups:
            group.gradient *= factor[:, None]
    return norm


def adamw_step(ensemble: Ensemble, step: int, *, rate: float, weight_decay: float) -> None:
    """One step of AdamW (betas .9 and .999, epsilon 1e-8: the defaults of transformers.Trainer).

    Args:
        step: counts from 1, for the bias correction.
        rate: the learning rate of this step, after the schedule.
    """
    count = torch.tensor(float(step), device=ensemble.device)
    for group in ensemble.groups:
        torch._fused_adamw_(
            [group.value],
            [group.gradient],
            [group.first_moment],
            [group.second_moment],
            [],
            [count],
            lr=rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=weight_decay if group.decays else 0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )
    if ensemble.tail_decays:
        ensemble.tail_scale *= 1 - rate * weight_decay


def linear_rate(base: float, step: int, total: int) -> float:
    """Linear decay to zero without warm-up, at step 0, 1, ..., total - 1 (the default of transformers.Trainer)."""
    return base * (total - step) / total
