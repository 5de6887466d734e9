"""Causal patching: a module's output taken from a pass over other inputs."""

from jaxtyping import Float, Int
from torch import Tensor
from transformers import GPT2LMHeadModel

from anatomy.interventions.hooks import next_token_logits, record, replace_with
from anatomy.sites import Site


def patched_logits(
    model: GPT2LMHeadModel,
    into: Int[Tensor, "prompt position"],
    source: Int[Tensor, "prompt position"],
    site: Site,
) -> Float[Tensor, "prompt vocabulary"]:
    """Next-token logits of `into` with the site's output taken from `source`, prompt by prompt, at all positions.

    (Lamparth & Reuel, section III-D: activations from p+p inputs in a p+t forward pass.) The i-th prompts share their
    first word, so only the second position differs.
    """
    return next_token_logits(model, into, {site: replace_with(record(model, source, [site])[site])})
