"""The layers of a stack of small models, each with its backward pass written out.

Every tensor has a leading axis of E members. A layer holds views of the stack's parameters and of their gradients,
taken once; a gradient is None where the parameter is frozen. `forward` returns what `backward` needs besides its
result, `backward` writes the parameters' gradients and returns that of the input.

Letters: E members, B sequences, T positions, N = B*T, C width, H heads, D = C/H.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Linear:
    """y = x W + b."""

    weight: Float[Tensor, "member input output"]
    bias: Float[Tensor, "member 1 output"]
    dweight: Float[Tensor, "member input output"] | None
    dbias: Float[Tensor, "member output"] | None

    def forward(self, x: Float[Tensor, "member token input"]) -> Float[Tensor, "member token output"]:
        """Return x W + b."""
        return product(x, self.weight).add_(self.bias)

    def backward(
        self, dy: Float[Tensor, "member token output"], x: Float[Tensor, "member token input"]
    ) -> Float[Tensor, "member token input"]:
        """Write dW = xᵀ dy and db = Σ dy; return dx = dy Wᵀ."""
        if self.dweight is not None:
            product(x.transpose(1, 2), dy, out=self.dweight)
        if self.dbias is not None:
            torch.sum(dy, 1, out=self.dbias)
        return product(dy, self.weight.transpose(1, 2))


class Normed(NamedTuple):
    """What the backward pass of a layer norm needs."""

    x: Tensor
    normed: Tensor
    mean: Tensor
    rstd: Tensor


@dataclass(frozen=True)
class LayerNorm:
    """y = (x - mean) / sqrt(variance + ε) * w + b."""

    weight: Float[Tensor, "member 1 width"]
    bias: Float[Tensor, "member 1 width"]
    dweight: Float[Tensor, "member width"] | None
    dbias: Float[Tensor, "member width"] | None
    epsilon: float

    def forward(self, x: Float[Tensor, "member token width"]) -> tuple[Float[Tensor, "member token width"], Normed]:
        """The normalised, scaled and shifted x, and what the way back needs."""
        # With a weight of one the kernel is twice as fast as without a weight.
        one, zero = x.new_ones(x.shape[-1]), x.new_zeros(x.shape[-1])
        normed, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], one, zero, self.epsilon)
        return torch.addcmul(self.bias, normed, self.weight), Normed(x, normed, mean, rstd)

    def backward(self, dy: Float[Tensor, "member token width"], seen: Normed) -> Float[Tensor, "member token width"]:
        """Write dw = Σ dy x̂ and db = Σ dy; return dx."""
        if self.dweight is not None:
            torch.sum(dy * seen.normed, 1, out=self.dweight)
        if self.dbias is not None:
            torch.sum(dy, 1, out=self.dbias)
        return torch.ops.aten.native_layer_norm_backward(
            dy * self.weight, seen.x, seen.x.shape[-1:], seen.mean, seen.rstd, None, None, [True, False, False]
        )[0]


class Attended(NamedTuple):
    """What the backward pass of attention needs; heads of all sequences and members form one axis E*B*H."""

    q: Tensor
    k: Tensor
    v: Tensor
    attention: Tensor
    dropped: Tensor


def attend(
    qkv: Float[Tensor, "member token qkv"], batch: int, heads: int, keep: Tensor | None
) -> tuple[Float[Tensor, "member token width"], Attended]:
    """softmax(q kᵀ / sqrt(D) + causal mask) v, for every head; `keep` is the dropout mask of the attention."""
    members, tokens, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    positions, padded = tokens // batch, padded_length(tokens // batch)
    split = qkv.view(members, batch, positions, 3, heads, width // heads).permute(3, 0, 1, 4, 2, 5)
    q = split[0].reshape(-1, positions, width // heads)
    kv = qkv.new_zeros(2, members, batch, heads, padded, width // heads)
    kv[..., :positions, :] = split[1:]
    k, v = kv.flatten(1, 3)
    mask = causal_mask(positions, qkv.device, qkv.dtype)
    scores = product(q, k.transpose(1, 2))
    attention = torch.add(mask, scores, alpha=1 / math.sqrt(width // heads)).softmax(-1)
    dropped = attention if keep is None else attention * keep
    z = product(dropped, v).view(members, batch, heads, positions, -1).transpose(2, 3)
    return z.reshape(members, tokens, width), Attended(q, k, v, attention, dropped)


def attend_backward(
    dz: Float[Tensor, "member token width"], seen: Attended, batch: int, keep: Tensor | None
) -> Float[Tensor, "member token qkv"]:
    """The gradient to q, k and v of `attend`."""
    members, tokens, width = dz.shape
    positions, depth = seen.q.shape[1:]
    heads = width // depth
    dz = dz.view(members, batch, positions, heads, depth).transpose(2, 3).reshape(-1, positions, depth)
    dattention = product(dz, seen.v.transpose(1, 2))
    if keep is not None:
        dattention.mul_(keep)
    # softmax: ds = a (da - Σ da a)
    dscores = torch.ops.aten._softmax_backward_data(dattention, seen.attention, -1, dz.dtype)
    dscores *= 1 / math.sqrt(depth)
    dqkv = dz.new_empty(members, batch, positions, 3, heads, depth)
    for to, value in zip(
        dqkv.permute(3, 0, 1, 4, 2, 5),
        (
            product(dscores, seen.k),
            product(dscores.transpose(1, 2), seen.q)[:, :positions],
            product(seen.dropped.transpose(1, 2), dz)[:, :positions],
        ),
        strict=True,
    ):
        to.copy_(value.unflatten(0, to.shape[:3]))
    return dqkv.view(members, tokens, 3 * width)


def gelu(x: Tensor) -> tuple[Tensor, Tensor]:
    """GPT-2's gelu and its derivative.

    gelu(x) = x/2 (1 + tanh(c (x + a x³))) = x s with s = σ(z), z = 2c (x + a x³), c = sqrt(2/π), a = 0.044715. Its
    derivative is s + x s (1 - s) z', and x z' = 2c (x + 3a x³) = 3z - 4c x. The sigmoid is vectorised where the tanh
    is not, and the backward pass is left with one product.
    """
    c, a = math.sqrt(2 / math.pi), 0.044715
    z = torch.addcmul(x.new_full((), 2 * c), x, x, value=2 * c * a).mul_(x)
    s = torch.sigmoid(z)
    slope = torch.ops.aten.sigmoid_backward.grad_input(z.sub_(x, alpha=4 / 3 * c), s, grad_input=z)
    torch.add(s, slope, alpha=3, out=slope)  # s + 3 (z - 4c/3 x) s (1 - s)
    return s.mul_(x), slope


def cross_entropy_head(
    h: Float[Tensor, "member token width"],
    weight: Float[Tensor, "member vocabulary width"],
    dweight: Float[Tensor, "member vocabulary width"] | None,
    targets: Int[Tensor, "member token"],
    share: Float[Tensor, "member token"],
) -> tuple[Float[Tensor, " member"], Float[Tensor, "member token width"]]:
    """Σ share · cross-entropy of softmax(h Wᵀ), one member at a time (stays in cache); writes dW, returns loss and dh.

    With p the softmax and w a token's share of the loss, the logits' gradient is w (p - onehot). The shares are put
    on the narrow side of the products: dh = w (p W - W[target]), dW = pᵀ (w h) - (w h, added to the targets' rows).
    """
    members, tokens = targets.shape
    weighted, dh, found = h * share[..., None], torch.empty_like(h), h.new_empty(members, tokens, 1)
    p = h.new_empty(tokens, weight.shape[1])
    for e, (own, W, target) in enumerate(zip(h, weight, targets, strict=True)):
        torch.softmax(product(own, W.T, out=p), -1, out=p)
        torch.gather(p, 1, target[:, None], out=found[e])
        product(p, W, out=dh[e])
        if dweight is not None:
            product(p.T, weighted[e], out=dweight[e]).index_add_(0, target, weighted[e], alpha=-1)
    dh.sub_(weight[torch.arange(members, device=h.device)[:, None], targets]).mul_(share[..., None])
    nll = -found[..., 0].log()
    for e in (found <= torch.finfo(p.dtype).tiny).any(1)[:, 0].nonzero():  # too small to take a logarithm of
        nll[e] = torch.nn.functional.cross_entropy(product(h[e], weight[e].mT)[0], targets[e][0], reduction="none")
    return (nll * share).sum(1), dh


# ------------------------------------------------------------------------------------------------ matrix products


def product(
    a: Float[Tensor, "*stack row inner"], b: Float[Tensor, "*stack inner column"], out: Tensor | None = None
) -> Float[Tensor, "*stack row column"]:
    """Return a b, on the CPU by NumPy's BLAS: torch's (MKL) has half the speed on processors that are not Intel's."""
    if a.device.type != "cpu":
        return torch.matmul(a, b, out=out)
    if out is None:
        out = a.new_empty(*a.shape[:-1], b.shape[-1])
    np.matmul(a.numpy(), b.numpy(), out=out.numpy())
    return out


def padded_length(positions: int) -> int:
    """Softmax over a length that is no multiple of 16 falls off the vector path (12 times slower on AVX-512)."""
    return -(-positions // 16) * 16


_MASKS: dict[tuple, Tensor] = {}


def causal_mask(positions: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "position padded"]:
    """0 where a query may look, -inf on the future and on padded keys."""
    key = (positions, device, dtype)
    if key not in _MASKS:
        _MASKS[key] = torch.full((positions, padded_length(positions)), float("-inf"), device=device, dtype=dtype).triu(
            1
        )
    return _MASKS[key]
