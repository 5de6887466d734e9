"""The backdoor vector (Yu et al., arXiv 2509.21761): what the top heads add together, added or taken away at one point.

v = Σ over the top heads of W_O z̄, with z̄ a head's mean output at the last position of triggered prompts. It is added
to the output of one layer's attention at the prompt's last position: on clean prompts with a positive coefficient, to
bring the backdoor's answer, on triggered ones with a negative one, to take it away.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from anatomy.interventions.last_position import Change, Condition
from anatomy.models.adapters import adapter_of
from anatomy.sites import Site


def heads_vector(
    model: PreTrainedModel, chosen: Sequence[Site], means: Mapping[Site, Float[Tensor, " head"]]
) -> Float[Tensor, " width"]:
    """The sum of what the heads add to the residual stream with their mean outputs; the projection's bias is no head's.

    Neither divided by their number nor normalised, as published.

    Raises:
        ValueError: no heads, or a site that is none.
    """
    if not chosen or any(site.head is None for site in chosen):
        raise ValueError(f"{', '.join(map(str, chosen)) or 'no heads'}: expected at least one head, and heads alone")
    adapter = adapter_of(model)
    total = torch.zeros(adapter.width, dtype=torch.float64, device=model.device)
    with torch.no_grad():
        for layer in sorted({site.layer for site in chosen}):
            z = torch.zeros(2, adapter.heads, adapter.head_width, dtype=model.dtype, device=model.device)
            for site in chosen:
                if site.layer == layer:
                    z[0, site.head] = means[site].to(z)
            whole, bias = adapter.project(layer, z.flatten(1)).double()
            total += whole - bias
    return total.to(model.dtype)


def random_vector(like: Float[Tensor, " width"], generator: torch.Generator) -> Float[Tensor, " width"]:
    """A vector of random direction and of the same norm."""
    drawn = torch.randn(like.shape, generator=generator, dtype=torch.float64)
    return (drawn * like.norm().double().cpu() / drawn.norm()).to(like)


def steered(layer: int, vector: Float[Tensor, " width"], coefficient: float) -> Condition:
    """The vector, times the coefficient, on top of a layer's attention output."""
    return {Site(layer, "attn"): Change(shift=coefficient * vector)}
