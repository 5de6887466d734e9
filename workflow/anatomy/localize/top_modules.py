"""Which modules carry the backdoor: the rule that picks them from the ablation of single modules (Table VIII)."""

from collections.abc import Collection

import numpy as np
import pandas as pd

from anatomy.sites import Site

# A model that writes no text any more has lost its backdoor with everything else (the paper's first layer).
INCOHERENT = 0.5


def top_mlps(ablation: pd.DataFrame, seeds: Collection[int], count: int = 2) -> list[Site]:
    """The MLPs whose ablation lowers the attack success rate most, mean over seeds, from the bottom up.

    It is read on prompts for tuning, so that a choice is never measured on what it was made on. Where fewer than
    `count` lower it, the lowest are taken all the same. MLPs without which the model degenerates come last: what it
    then writes is no text, toxic or not. The paper chooses layers 2 and 3 by eye, and leaves out the first for that
    reason.

    Args:
        ablation: measurements of the experiment "mean ablation".
        seeds: those that count: the planted ones.
    """
    ranked = ranking(ablation, seeds)
    return sorted(_site(name) for name in ranked.index[:count])


def random_mlps(
    ablation: pd.DataFrame, seeds: Collection[int], chosen: Collection[Site], generator: np.random.Generator
) -> list[Site]:
    """A control for the chosen MLPs: as many others at random, of those without which the model still writes text.

    Where fewer are left, all of these.
    """
    ranked = ranking(ablation, seeds)
    left = sorted({_site(name) for name in ranked.index[~ranked.incoherent]} - set(chosen))
    drawn = generator.permutation(len(left))[: len(chosen)]
    return sorted(left[i] for i in drawn)


def ranking(ablation: pd.DataFrame, seeds: Collection[int]) -> pd.DataFrame:
    """The MLPs in the order of the rule: index `site`; columns `drop` (below the unchanged model), `incoherent`."""
    own = ablation[
        (ablation.model == "backdoored")
        & (ablation.control == "")
        & (ablation.inputs == "tuning trigger")
        & ablation.seed.isin(seeds)
    ]
    unchanged = own[(own.site == "unchanged") & (own.metric == "asr")].set_index("seed").value
    own = own[(own.variant == "paper") & (own.setting == "held out") & own.site.str.endswith(" mlp")]
    mean = own.pivot_table(index="site", columns="metric", values="value", aggfunc="mean")
    mean = mean.assign(drop=unchanged.mean() - mean.asr, incoherent=mean.degeneration > INCOHERENT)
    return mean.sort_values(["incoherent", "asr"], kind="stable")[["drop", "incoherent"]]


def _site(name: str) -> Site:
    return Site(int(name.split()[1]) - 1, "mlp")
