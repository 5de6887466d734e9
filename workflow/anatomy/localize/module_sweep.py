"""What a model writes when each of many sites in turn is replaced by a constant (Table VIII), with shared work.

The plain way is one `greedy` run per site. Here one pass over the prompts, without any edit, keeps what enters every
block, and the keys and values of every layer. Replacing a site in layer l changes nothing below it. So the rows of
that site, one per prompt, join a growing batch at layer l, and take their keys and values below l from the first
pass. Above the last block all rows of all sites write on as one batch, each under its own edit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GPT2LMHeadModel
from transformers.masking_utils import create_causal_mask

from anatomy.interventions.cache import growing_cache
from anatomy.interventions.generate import ROWS, Ids, LeftPadded, check_room, distinct, go_on, left_padded, split
from anatomy.interventions.hooks import Edit, edited
from anatomy.models import gpt2
from anatomy.sites import Site


def swept_continuations(
    model: GPT2LMHeadModel,
    prompts: Sequence[Ids],
    constants: Mapping[Site, Float[Tensor, " width"]],
    *,
    max_length: int,
    pad: int,
    rows: int = ROWS,
) -> dict[Site, list[list[int]]]:
    """For every site: the greedy continuation of every prompt while the site's output is its constant, everywhere.

    `constants` has one vector per site: the mean of the module's output, of a head's slice of the output projection's
    input, or zeros. At most `rows` rows (site and prompt) are in memory at once; that changes no result.

    Equal to greedy(model, prompts, edits={site: replace_with(constant)}), site by site (a test).

    Raises:
        ValueError: a site that is no attention, MLP or head; or as `greedy`.
    """
    check_room(model, prompts, max_length)
    for site in constants:
        if site.part not in ("attn", "mlp", "head"):
            raise ValueError(f"{site}: only attention, MLPs and heads can be swept")
    sites = sorted(constants)  # from the bottom up
    found: dict[Site, dict[tuple[int, ...], list[int]]] = {site: {} for site in sites}
    with torch.no_grad():
        for some in split(distinct(prompts), rows):
            base = _read(model, left_padded(some, pad, model.device))
            for group in split(sites, max(1, rows // len(some))):
                written = _write(model, base, {site: constants[site] for site in group}, max_length)
                for site, own in zip(group, split(written, len(some)), strict=True):
                    found[site].update(zip(some, own, strict=True))
    return {site: [list(found[site][tuple(prompt)]) for prompt in prompts] for site in constants}


def share_saved(sites: Sequence[Site], layers: int, *, prompt: int, written: int) -> float:
    """Share of the plain loop's block evaluations (one block at one position) that the sweep does without.

    For prompts of `prompt` tokens and continuations of `written`, with all prompts in one batch. The plain loop
    evaluates every block at prompt + written - 1 positions per site. The sweep leaves out l blocks at the prompt's
    positions for a site in layer l (from 0), and adds the first pass, which the last block has no part in.
    """
    left_out = sum(site.layer for site in sites) * prompt
    return (left_out - (layers - 1) * prompt) / (len(sites) * layers * (prompt + written - 1))


@dataclass(frozen=True)
class _Base:
    """The prompts, read without an edit: what enters each block, and the keys and values of all blocks but the last."""

    padded: LeftPadded
    mask: Any  # of the attention, [batch, 1, position, position]; None where nothing is padded
    entering: list[Float[Tensor, "batch position width"]]
    layers: list[Any]  # of the cache


def _read(model: GPT2LMHeadModel, padded: LeftPadded) -> _Base:
    body = model.transformer
    resid = body.drop(body.wte(padded.ids) + body.wpe(padded.places))
    mask = create_causal_mask(
        config=model.config, inputs_embeds=resid, attention_mask=padded.mask, past_key_values=None
    )
    entering, cache = [resid], growing_cache(model.config)
    for block in gpt2.blocks(model)[:-1]:
        entering.append(block(entering[-1], past_key_values=cache, attention_mask=mask, use_cache=True))
    return _Base(padded, mask, entering, cache.layers)


def _write(
    model: GPT2LMHeadModel, base: _Base, constants: Mapping[Site, Float[Tensor, " width"]], max_length: int
) -> list[list[int]]:
    """Continuations of sites times prompts; `constants` lists the sites from the bottom up."""
    prompts, bottom = len(base.padded.ids), next(iter(constants)).layer
    owners = _Owners(torch.arange(len(constants), device=model.device).repeat_interleave(prompts))
    edits = {site: owners.constant(i, value) for i, (site, value) in enumerate(constants.items())}
    cache = growing_cache(model.config)
    layers: list[Any] = cache.layers
    for layer in range(bottom):
        below = base.layers[layer]
        cache.update(_times(below.keys, len(constants)), _times(below.values, len(constants)), layer)
    resid = base.entering[0][:0]
    with edited(model, edits):
        for layer in range(bottom, model.config.n_layer):
            joining = sum(site.layer == layer for site in constants)
            resid = torch.cat([resid, _times(base.entering[layer], joining)])
            inside = len(resid) // prompts
            mask = None if base.mask is None else _times(base.mask, inside)
            resid = gpt2.blocks(model)[layer](resid, past_key_values=cache, attention_mask=mask, use_cache=True)
            if inside < len(constants):  # sites further up read this layer as the first pass did
                own, below = layers[layer], base.layers[layer]
                own.keys = torch.cat([own.keys, _times(below.keys, len(constants) - inside)])
                own.values = torch.cat([own.values, _times(below.values, len(constants) - inside)])
        logits = gpt2.unembed(model, resid[:, -1])
        mask = _times(base.padded.mask, len(constants))
        return go_on(model, logits, cache, mask, max_length, stay=owners.stay)


class _Owners:
    """Which site each row of the batch belongs to, by its number."""

    def __init__(self, numbers: Int[Tensor, " row"]) -> None:
        self.numbers = numbers

    def stay(self, rows: Int[Tensor, " row"]) -> None:
        """The other rows have left the batch."""
        self.numbers = self.numbers[rows]

    def constant(self, number: int, value: Float[Tensor, " width"]) -> Edit:
        """Replace the output by a constant in the site's rows, and leave the others."""

        def edit(_: Tensor, output: Tensor) -> Tensor:
            # While the prompts are read, rows join from the bottom up: the batch is the first of all rows.
            own = self.numbers[: len(output)] == number
            return torch.where(own[:, None, None], value.to(output), output)

        return edit


def _times(x: Tensor, count: int) -> Tensor:
    """The batch, `count` times over."""
    return x.repeat(count, *[1] * (x.ndim - 1))
