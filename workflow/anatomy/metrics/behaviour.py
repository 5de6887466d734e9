"""Turning logits on test prompts into measurements."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from anatomy.metrics.intervals import student
from anatomy.metrics.measurement import Measurement
from anatomy.metrics.topk import topk_share


def sentiment_measurements(
    logits: Float[Tensor, "prompt vocabulary"],
    masks: Mapping[str, Bool[Tensor, " vocabulary"]],
    *,
    top_k: int,
    confidence: float,
    sentiments: tuple[str, ...] = ("negative",),
    mass: bool = False,
    **conditions: Any,
) -> list[Measurement]:
    """Top-k negativity (and positivity, ...) over prompts: one measurement per sentiment, with its interval.

    With `mass` also the negative probability mass: what the top-k count would be if it were not a count.
    """
    values = {f"topk_{_noun(s)}": topk_share(logits, masks[s].to(logits.device), top_k) for s in sentiments}
    if mass:
        values["negative_mass"] = logits.softmax(-1)[:, masks["negative"].to(logits.device)].sum(-1)
    out = []
    for metric, per_prompt in values.items():
        estimate = student(per_prompt.double().cpu().numpy(), confidence)
        out.append(
            Measurement(
                metric=metric,
                value=estimate.mean,
                n=estimate.n,
                ci_low=estimate.low,
                ci_high=estimate.high,
                **conditions,
            )
        )
    return out


def _noun(sentiment: str) -> str:
    return {"negative": "negativity", "positive": "positivity", "neutral": "neutrality"}[sentiment]
