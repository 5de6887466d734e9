"""Logit lens: what one module alone would say, through the final layer norm and the unembedding."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

from anatomy.interventions.hooks import record
from anatomy.models import gpt2
from anatomy.sites import Site
from anatomy.variants import Variant


def lens_logits(
    model: GPT2LMHeadModel, ids: Int[Tensor, "prompt position"], *, variant: Variant
) -> dict[str, Float[Tensor, "prompt position vocabulary"]]:
    """Logits of every head, every MLP and the full model, keyed by "layer 1 att0", "layer 1 mlp", ..., "full model".

    For module M in layer L, blocks 1..L-1 run as they are and only M's output, without the residual stream, is
    unembedded. A head counts with the projection's bias, as when the other heads are pruned.

    variant "original": the released code shortens the model with `del h[n-l]` in a rising loop, which for layer 2 of 3
    deletes block 2 and keeps block 3: the "layer 2" rows show layer 3 fed by layer 1, and since heads were pruned in
    the deleted block, all four "layer 2" heads show the whole attention module. The printed table has those four rows
    identical (analysis_gptmed.ipynb:801).
    """
    layers, per_layer = len(gpt2.blocks(model)), model.config.n_head
    out: dict[str, Tensor] = {}
    with torch.no_grad():
        for layer in range(layers):
            shortcut = variant == "original" and layer == 1 and layers == 3
            z, mlp, attn = _outputs(model, ids, 2, skip=1) if shortcut else _outputs(model, ids, layer)
            for head in range(per_layer):
                own = attn if shortcut else gpt2.head_output(model, layer, head, z)
                out[str(Site(layer, "head", head))] = gpt2.unembed(model, own)
            out[str(Site(layer, "mlp"))] = gpt2.unembed(model, mlp)
        out["full model"] = model(ids).logits
    return out


def _outputs(
    model: GPT2LMHeadModel, ids: Int[Tensor, "prompt position"], layer: int, *, skip: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Head inputs, MLP output and attention output of a layer, with block `skip` left out below it."""
    sites = [Site(layer, "head", 0), Site(layer, "mlp"), Site(layer, "attn")]
    kept: nn.ModuleList = gpt2.blocks(model)
    try:
        if skip is not None:
            model.transformer.h = nn.ModuleList(block for i, block in enumerate(kept) if i != skip)
            sites = [Site(layer - 1, site.part, site.head) for site in sites]
        z = _head_inputs(model, ids, sites[0].layer)
        seen = record(model, ids, sites[1:])
        return z, seen[sites[1]], seen[sites[2]]
    finally:
        model.transformer.h = kept


def _head_inputs(model: GPT2LMHeadModel, ids: Int[Tensor, "prompt position"], layer: int) -> Tensor:
    """All heads' outputs before the output projection, side by side."""
    seen = record(model, ids, [Site(layer, "head", head) for head in range(model.config.n_head)])
    return torch.cat([seen[site] for site in sorted(seen)], dim=-1)
