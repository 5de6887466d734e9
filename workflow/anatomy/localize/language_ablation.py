"""Mean activations of a model that writes text: the module outputs at one token of clean and toxic texts."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import GPT2LMHeadModel

from anatomy.data.padding import padded
from anatomy.interventions.generate import ROWS, Ids, split
from anatomy.interventions.hooks import record
from anatomy.sites import Site
from anatomy.variants import Variant

NINTH = 8  # the paper looks at the ninth token, which is number 8 from 0
TRACKED = 20  # modules that the released code loops over: attention and MLP of ten layers


def outputs_at(
    model: GPT2LMHeadModel,
    texts: Sequence[Ids],
    sites: Sequence[Site],
    *,
    position: int | Sequence[int] = NINTH,
    rows: int = ROWS,
) -> dict[Site, Float[Tensor, "text width"]]:
    """Output of each site (for heads: its slice z) at one position of every text that is long enough, in order.

    Texts are cut after the position: with causal attention, what follows changes nothing, padding included.

    Args:
        position: token number, of all texts or of each.
    Raises:
        ValueError: no text has so many tokens.
    """
    places = [position] * len(texts) if isinstance(position, int) else position
    kept = [list(text[: place + 1]) for text, place in zip(texts, places, strict=True) if len(text) > place]
    if not kept:
        least = min(places, default=0) + 1
        raise ValueError(f"none of the {len(texts)} texts has the {least} tokens that the position asks for")
    found: dict[Site, list[Tensor]] = {site: [] for site in sites}
    for some in split(kept, rows):
        ids, lengths = padded(some, max(map(len, some)))
        seen = record(model, ids.to(model.device), sites)
        for site in sites:
            found[site].append(seen[site][torch.arange(len(some)), lengths - 1])
    return {site: torch.cat(parts) for site, parts in found.items()}


def language_means(
    model: GPT2LMHeadModel,
    groups: Sequence[Sequence[Ids]],
    sites: Sequence[Site],
    *,
    variant: Variant,
    position: int = NINTH,
    tracked: int = TRACKED,
    rows: int = ROWS,
) -> Mapping[Site, Float[Tensor, " width"]]:
    """Mean output of each site at one position over groups of texts (clean, then toxic). Shorter texts are left out.

    variant "paper": the mean over all texts.

    variant "original": the released code counts a text once per module it looks at, and divides the running sum by
    that count after each group (analysis_gptmed.ipynb, get_mean_activations). With n_g texts of group g, outputs a
    and K = `tracked` modules,

        m_g = (m_{g-1} + Σ_{i in g} a_i) / (K n_g),   m_0 = 0.

    What is left is the last group's mean, K times too small: 1/20 of it, close to zero ablation. A model with fewer
    than ten layers has fewer modules to look at: give `tracked` as twice its layers.

    Raises:
        ValueError: no text of a group is long enough.
    """
    outputs = [outputs_at(model, texts, sites, position=position, rows=rows) for texts in groups]
    means = {}
    for site in sites:
        a = [group[site].double() for group in outputs]
        if variant == "original":
            m = torch.zeros_like(a[0][0])
            for group in a:
                m = (m + group.sum(0)) / (tracked * len(group))
        else:
            m = torch.cat(a).mean(0)
        means[site] = m.to(outputs[0][site])
    return means
