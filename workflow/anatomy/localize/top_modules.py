"""Which modules carry the backdoor: the rule that picks them from the ablation of single modules (Table VIII)."""

import pandas as pd

from anatomy.sites import Site

# A model that writes no text any more has lost its backdoor with everything else (the paper's first layer).
INCOHERENT = 0.5


def top_mlps(ablation: pd.DataFrame, count: int = 2) -> list[Site]:
    """The MLPs whose ablation leaves the lowest attack success rate, over all seeds, from the bottom up.

    MLPs without which the model degenerates are left out: what it then writes is no text, toxic or not. The paper
    chooses layers 2 and 3 by eye, and leaves out the first for that reason.

    Args:
        ablation: measurements of the experiment "mean ablation".

    Raises:
        ValueError: fewer MLPs than wanted are left.
    """
    own = ablation[
        (ablation.model == "backdoored")
        & (ablation.control == "")
        & (ablation.variant == "paper")
        & (ablation.setting == "held out")
        & (ablation.inputs == "trigger")
        & ablation.site.str.endswith(" mlp")
    ]
    mean = own.pivot_table(index="site", columns="metric", values="value", aggfunc="mean")
    whole = mean[mean.degeneration <= INCOHERENT].sort_values(["asr"], kind="stable")
    if len(whole) < count:
        raise ValueError(f"only {len(whole)} MLPs can be ablated without the model degenerating; {count} are needed")
    return sorted(Site(int(site.split()[1]) - 1, "mlp") for site in whole.index[:count])
