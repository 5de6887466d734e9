"""The GPT-2 family: where its sites are, and how to run it from the middle."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

from anatomy.sites import Part


def blocks(model: GPT2LMHeadModel) -> nn.ModuleList:
    """The transformer blocks, bottom up."""
    return model.transformer.h


def module(model: GPT2LMHeadModel, layer: int, part: Part) -> nn.Module:
    """The module whose output (for heads: whose input) is the activation of the part."""
    block: Any = blocks(model)[layer]
    match part:
        case "embed":
            return model.transformer.drop
        case "attn":
            return block.attn
        case "mlp":
            return block.mlp
        case "head":
            return block.attn.c_proj
        case "resid":
            return block
    raise ValueError(f"no such part: {part!r}")


def head_width(model: GPT2LMHeadModel) -> int:
    """Width of one head's slice of the output projection's input."""
    return model.config.n_embd // model.config.n_head


def head_output(model: GPT2LMHeadModel, layer: int, head: int, z: Float[Tensor, "*row width"]) -> Tensor:
    """What one head adds to the residual stream, with the projection's bias (as when the other heads are pruned)."""
    block: Any = blocks(model)[layer]
    projection = block.attn.c_proj
    own = slice(head * head_width(model), (head + 1) * head_width(model))
    return z[..., own] @ projection.weight[own] + projection.bias


def unembed(model: GPT2LMHeadModel, resid: Float[Tensor, "*row width"]) -> Float[Tensor, "*row vocabulary"]:
    """Logits of a residual stream: final layer norm, then the unembedding matrix."""
    return model.lm_head(model.transformer.ln_f(resid))


def resume(
    model: GPT2LMHeadModel, resid: Float[Tensor, "batch position width"], layer: int
) -> Float[Tensor, "batch vocabulary"]:
    """Run blocks `layer` and above on a residual stream; the next-token logits of the last position.

    Exact: with unpadded prompts a block needs nothing but its input. Hooks on the blocks fire as in a full pass.
    """
    # Without a mask, sdpa is causal by itself; eager attention is not.
    mask = None
    if model.config._attn_implementation == "eager":
        mask = torch.full((resid.shape[1], resid.shape[1]), float("-inf"), device=resid.device).triu(1)[None, None]
    with torch.no_grad():
        for block in blocks(model)[layer:]:
            out = block(resid, attention_mask=mask)
            resid = out[0] if isinstance(out, tuple) else out
        return unembed(model, resid[:, -1])
