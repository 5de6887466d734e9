"""Hidden states of two-word inputs in the plane of two principal components (Figure 3)."""

from collections.abc import Mapping

import pandas as pd
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from torch import Tensor


def project_states(
    states: Mapping[str, Float[Tensor, "prompt width"]], pure: list[str]
) -> tuple[pd.DataFrame, list[float]]:
    """Two-component PCA fitted on the pure combinations (p+p, n+n, s+s) and applied to all.

    Returns:
        a table `inputs, index, x, y`, and the explained variance ratio of both components.
    """
    pca = PCA(n_components=2).fit(torch.cat([states[inputs] for inputs in pure]).double().numpy())
    # The sign of a component is arbitrary: n+n on the right, and the first further state above.
    flip_x = 1 if pca.transform(states["n+n"].double().numpy())[:, 0].mean() > 0 else -1
    flip_y = 1 if pca.transform(states[pure[-1]].double().numpy())[:, 1].mean() > 0 else -1
    frames = []
    for inputs, hidden in states.items():
        xy = pca.transform(hidden.double().numpy())
        frames.append(
            pd.DataFrame({"inputs": inputs, "index": range(len(xy)), "x": flip_x * xy[:, 0], "y": flip_y * xy[:, 1]})
        )
    return pd.concat(frames, ignore_index=True), [float(r) for r in pca.explained_variance_ratio_]
