"""Mean ablation and its control, zero ablation.

A module's output is replaced, at every position, by its mean over inputs without the trigger
(Lamparth & Reuel, section III-D).
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GPT2LMHeadModel

from anatomy.interventions.hooks import record
from anatomy.sites import Site
from anatomy.variants import Variant


def mean_activations(
    model: GPT2LMHeadModel,
    groups: Sequence[Int[Tensor, "_ position"]],
    sites: Sequence[Site],
    *,
    position: int,
    variant: Variant,
) -> Mapping[Site, Float[Tensor, " width"]]:
    """Mean output of each site at one position over groups of prompts.

    variant "paper": the mean over all prompts. "original": the released code divides the running sum by the group's
    count after every group, so that earlier groups are divided again and again; what is left is close to the mean of
    the last group (analysis_toymodel_sent3.ipynb:336).
    """
    means = {}
    for site in sites:
        outputs = [record(model, ids, [site])[site][:, position] for ids in groups]
        if variant == "original":
            running = torch.zeros_like(outputs[0][0])
            for group in outputs:
                running = (running + group.sum(0)) / len(group)
            means[site] = running
        else:
            means[site] = torch.cat(outputs).mean(0)
    return means
