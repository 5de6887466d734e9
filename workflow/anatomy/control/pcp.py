"""Principal component projection (PCP) ablation: a module replaced by one low-rank symmetric matrix.

    m(h) ≈ A h,   A = Σ_{i=1..r} σ_i p_i p_iᵀ,   ‖p_i‖ = 1           (Lamparth & Reuel, Eq. 1)

h is the module's input (after the layer norm), p_i directions from a PCA of the module's outputs, σ_i the scaling
factors that are tuned. The replacement acts on every position by itself, also where it replaces attention.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from torch import Tensor

from anatomy.interventions.hooks import Edit
from anatomy.variants import Variant


@dataclass(frozen=True)
class Directions:
    """The p_i of one module: `vectors` [r, width], each of norm one."""

    vectors: Float[Tensor, "rank width"]
    mean: Float[Tensor, " width"]
    explained: tuple[float, ...]


def pcp_directions(
    outputs: Float[Tensor, "sample width"], rank: int, *, components: int, variant: Variant
) -> Directions:
    """Directions from a module's outputs.

    variant "paper": the principal axes c_k, orthonormal, as the text describes.

    variant "original": the released code sends a uniform vector u = 1/width through the PCA, keeps its k-th
    coordinate and transforms back. scikit-learn's inverse transform adds the mean m again, so that
    p_k = normalise(m + ((u - m)·c_k) c_k): mostly the mean activation, far from orthogonal
    (analysis_toymodel_sent3.ipynb, cells 18-20).
    """
    x = outputs.double().numpy()
    pca = PCA(n_components=min(components, *x.shape), svd_solver="full").fit(x)
    axes = pca.components_[:rank]
    if variant == "original":
        u = np.full(x.shape[1], 1 / x.shape[1])
        axes = pca.mean_ + ((u - pca.mean_) @ axes.T)[:, None] * axes
        axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    return Directions(
        torch.from_numpy(axes).float(),
        torch.from_numpy(pca.mean_).float(),
        tuple(float(r) for r in pca.explained_variance_ratio_[:rank]),
    )


def random_directions(width: int, rank: int, *, seed: int) -> Float[Tensor, "rank width"]:
    """Orthonormal directions, uniform over the sphere: the control of equal norm and rank."""
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, rank)))
    return torch.from_numpy((q * np.sign(np.diag(r))).T.copy()).float()


def projection(vectors: Float[Tensor, "rank width"], sigma: Float[Tensor, " rank"]) -> Float[Tensor, "width width"]:
    """A = Σ σ_i p_i p_iᵀ."""
    return torch.einsum("r,rc,rd->cd", sigma.to(vectors), vectors, vectors)


def pcp_edit(vectors: Float[Tensor, "rank width"], sigma: Float[Tensor, "*setting rank"]) -> Edit:
    """The replacement m(h) := A h, for one factor vector or for many at once.

    A is linear in σ, so A h = Σ σ_i (p_i·h) p_i and a batch may hold many settings. With `sigma` [S, r] the batch
    must hold S equal blocks of prompts, one per setting. Both go where h is, and into its type.
    """

    def edit(h: Tensor, output: Tensor) -> Tensor:
        p = vectors.to(h)
        coordinates = h @ p.T  # p_i·h: [batch, position, rank]
        if sigma.ndim == 1:
            return (coordinates * sigma.to(h)) @ p
        per_setting = coordinates.unflatten(0, (sigma.shape[0], -1)) * sigma.to(h)[:, None, None]
        return per_setting.flatten(0, 1) @ p

    return edit
