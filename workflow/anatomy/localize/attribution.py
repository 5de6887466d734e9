"""Backdoor attribution (Yu et al., arXiv 2509.21761): which parts, given their triggered activation, bring the answer.

ACIE_s = mean over clean prompts x of P(y* | x; do(s := ā_s)) - P(y* | x), where ā_s is the mean activation of site s at
the last position of triggered prompts, y* the backdoor's answer, and P the length-normalised probability of the whole
answer. The patch is at the prompt's last position (localize.head_sweep).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from anatomy.interventions.generate import Ids
from anatomy.interventions.last_position import read_last
from anatomy.localize.head_sweep import ROWS, Scores, swept_scores
from anatomy.metrics.intervals import student
from anatomy.metrics.measurement import Measurement
from anatomy.models.adapters import adapter_of
from anatomy.sites import Site, heads, outputs

# The parts that are attributed and ablated, and the part whose patch ranks them. Of a layer that is what its ablation
# takes away, what it adds to the residual stream; the stream itself holds what all layers below have written, too.
KINDS = {"heads": "head", "mlps": "mlp", "layers": "block"}


def sites_of(model: PreTrainedModel, kind: str) -> list[Site]:
    """The sites of a kind ("heads", "mlps", "layers"), from the bottom up; of a layer, what it adds to the stream."""
    adapter = adapter_of(model)
    if kind == "heads":
        return heads(adapter.layers, adapter.heads)
    return [Site(layer, KINDS[kind]) for layer in range(adapter.layers)]  # type: ignore[arg-type]


def mean_activations(
    model: PreTrainedModel, prompts: Sequence[Ids], sites: Sequence[Site], *, pad: int
) -> dict[Site, Float[Tensor, " width"]]:
    """Mean activation of each site at the prompts' last position; of a head, its slice z of the projection's input.

    The published code averages a head's contribution W_O z. That is the same: the projection is linear. A layer's
    (`block`) is the sum of its attention's and its MLP's.
    """
    seen = read_last(model, prompts, list(dict.fromkeys(own for site in sites for own in outputs(site))), pad=pad)
    means = {s: v.mean(0, dtype=torch.promote_types(v.dtype, torch.float32)) for s, v in seen.items()}
    return {site: torch.stack([means[own] for own in outputs(site)]).sum(0) for site in sites}


def attribute(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    answers: Sequence[Ids],
    means: Mapping[Site, Float[Tensor, " width"]],
    *,
    rows: int = ROWS,
) -> Scores:
    """Scores of the backdoor's `answers` to clean `prompts`, with each site replaced by its triggered mean in turn."""
    return swept_scores(model, prompts, answers, means, rows=rows)


def ranked(scores: Scores, part: str) -> list[Site]:
    """Sites of a part, the largest ACIE first (signed, as published); of equals the lower layer."""
    effects = scores.effects().double().mean(1).tolist()
    own = [(-effect, site) for site, effect in zip(scores.sites, effects, strict=True) if site.part == part]
    return [site for _, site in sorted(own)]


def effect_measurements(scores: Scores, *, confidence: float, **conditions: Any) -> list[Measurement]:
    """The ACIE of each site with Student's interval over prompts, and P(y* | x) without a patch."""
    probability = (scores.base / scores.tokens).exp()
    values = {"unchanged": ("probability", probability)}
    values |= {str(site): ("acie", own) for site, own in zip(scores.sites, scores.effects(), strict=True)}
    rows = []
    for site, (metric, own) in values.items():
        found = student(np.asarray(own.double().cpu()), confidence)
        rows.append(
            Measurement(
                metric=metric,
                value=found.mean,
                n=found.n,
                ci_low=found.low,
                ci_high=found.high,
                site=site,
                **conditions,
            )
        )
    return rows
