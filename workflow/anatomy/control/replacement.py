"""A replaced model: which modules, which directions; what it answers for many settings of the factors at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, GPT2LMHeadModel

from anatomy.control.pcp import pcp_edit
from anatomy.interventions.generate import check_room, distinct, go_on, left_padded
from anatomy.interventions.hooks import Edit, edited, record
from anatomy.metrics.topk import topk_share
from anatomy.models import gpt2
from anatomy.sites import Site


@dataclass(frozen=True)
class Replacement:
    """One or more modules with the directions that replace them; factors are listed module after module."""

    name: str
    directions: Mapping[Site, Float[Tensor, "rank width"]]

    @property
    def sites(self) -> list[Site]:
        """The replaced modules, bottom up."""
        return sorted(self.directions)

    @property
    def rank(self) -> int:
        """Number of factors in all."""
        return sum(len(v) for v in self.directions.values())

    def edits(self, sigma: Float[Tensor, "*setting rank"]) -> dict[Site, Edit]:
        """The interventions for one σ [r], or for many [S, r]."""
        parts = sigma.split([len(self.directions[site]) for site in self.sites], dim=-1)
        return {site: pcp_edit(self.directions[site], own) for site, own in zip(self.sites, parts, strict=True)}


def settings_logits(
    model: GPT2LMHeadModel,
    replacement: Replacement,
    sigma: Float[Tensor, "setting rank"],
    prompts: Int[Tensor, "prompt position"],
    *,
    rows: int = 512,
) -> Iterator[Float[Tensor, "setting prompt vocabulary"]]:
    """Next-token logits of every prompt under every setting, in pieces of at most `rows` rows.

    The blocks below the first replaced module run once; above it, settings and prompts form one batch. Equal to one
    forward pass per setting (a test).
    """
    first = replacement.sites[0].layer
    below = Site(first - 1, "resid") if first else Site(0, "embed")
    resid = record(model, prompts, [below])[below]
    for some in sigma.split(max(1, rows // len(prompts))):
        with edited(model, replacement.edits(some)):
            yield gpt2.resume(model, resid.repeat(len(some), 1, 1), first).unflatten(0, (len(some), -1))


def settings_continuations(
    model: GPT2LMHeadModel,
    replacement: Replacement,
    sigma: Float[Tensor, "setting rank"],
    prompts: Sequence[Sequence[int]],
    *,
    max_length: int,
    pad: int,
    rows: int = 1024,
) -> list[list[list[int]]]:
    """Greedy continuations of every prompt under every setting: per setting, per prompt.

    Settings and prompts form one batch of at most `rows` rows. Equal to `greedy` under one setting after the other
    (a test); the arguments are those of `greedy`.
    """
    check_room(model, prompts, max_length)
    once = distinct(prompts)
    found: list[list[list[int]]] = []
    padded = left_padded(once, pad, model.device)
    for some in sigma.split(max(1, rows // len(once))):
        times = len(some)
        mask = padded.mask.repeat(times, 1)
        cache = DynamicCache(config=model.config)
        with torch.no_grad(), edited(model, replacement.edits(some)):
            logits = model(
                padded.ids.repeat(times, 1),
                attention_mask=mask,
                position_ids=padded.places.repeat(times, 1),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            written = go_on(model, logits, cache, mask, max_length)
        for start in range(0, len(written), len(once)):
            own = dict(zip(once, written[start : start + len(once)], strict=True))
            found.append([list(own[tuple(prompt)]) for prompt in prompts])
    return found


def negativity(
    model: GPT2LMHeadModel,
    replacement: Replacement,
    sigma: Float[Tensor, "setting rank"],
    prompts: Int[Tensor, "prompt position"],
    mask: Bool[Tensor, " vocabulary"],
    k: int,
) -> Float[Tensor, "setting prompt"]:
    """Top-k negativity of every prompt under every setting."""
    return torch.cat([topk_share(logits, mask, k) for logits in settings_logits(model, replacement, sigma, prompts)])
