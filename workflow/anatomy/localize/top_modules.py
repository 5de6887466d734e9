"""Which modules carry the backdoor: the rule that picks them from the ablation of single modules (Table VIII)."""

import pandas as pd

from anatomy.sites import Site

# A model that writes no text any more has lost its backdoor with everything else (the paper's first layer).
INCOHERENT = 0.5


def top_mlps(ablation: pd.DataFrame, count: int = 2) -> list[Site]:
    """The MLPs whose ablation leaves the lowest attack success rate, over all seeds, from the bottom up.

    MLPs without which the model degenerates come last: what it then writes is no text, toxic or not. The paper chooses
    layers 2 and 3 by eye, and leaves out the first for that reason.

    Args:
        ablation: measurements of the experiment "mean ablation".
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
    mean = mean.assign(incoherent=mean.degeneration > INCOHERENT).sort_values(["incoherent", "asr"], kind="stable")
    return sorted(Site(int(site.split()[1]) - 1, "mlp") for site in mean.index[:count])
