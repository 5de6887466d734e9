"""The layers of a stack of small models, each with its backward pass written out.

Every tensor has a leading axis of E members. A layer holds views of the stack's parameters and of their gradients,
taken once; a gradient is None where the parameter is frozen. `forward` returns what `backward` needs besides its
result, `backward` writes the parameters' gradients and returns that of the input.

Letters: E members, B sequences, T positions, N = B*T, C width, H heads, D = C/H.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

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
        return torch.baddbmm(self.bias, x, self.weight)

    def backward(
        self, dy: Float[Tensor, "member token output"], x: Float[Tensor, "member token input"]
    ) -> Float[Tensor, "member token input"]:
        """Write dW = xᵀ dy and db = Σ dy; return dx = dy Wᵀ."""
        if self.dweight is not None:
            torch.bmm(x.transpose(1, 2), dy, out=self.dweight)
        if self.dbias is not None:
            torch.sum(dy, 1, out=self.dbias)
        return torch.bmm(dy, self.weight.transpose(1, 2))


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
    attention = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=1 / math.sqrt(width // heads)).softmax(-1)
    dropped = attention if keep is None else attention * keep
    z = torch.bmm(dropped, v).view(members, batch, heads, positions, -1).transpose(2, 3)
    return z.reshape(members, tokens, width), Attended(q, k, v, attention, dropped)


def attend_backward(
    dz: Float[Tensor, "member token width"], seen: Attended, batch: int, keep: Tensor | None
) -> Float[Tensor, "member token qkv"]:
    """The gradient to q, k and v of `attend`."""
    members, tokens, width = dz.shape
    positions, depth = seen.q.shape[1:]
    heads = width // depth
    dz = dz.view(members, batch, positions, heads, depth).transpose(2, 3).reshape(-1, positions, depth)
    dattention = torch.bmm(dz, seen.v.transpose(1, 2))
    if keep is not None:
        dattention.mul_(keep)
    # softmax: ds = a (da - Σ da a)
    dscores = torch.ops.aten._softmax_backward_data(dattention, seen.attention, -1, dz.dtype)
    dscores *= 1 / math.sqrt(depth)
    dqkv = dz.new_empty(members, batch, positions, 3, heads, depth)
    for to, value in zip(
        dqkv.permute(3, 0, 1, 4, 2, 5),
        (
            torch.bmm(dscores, seen.k),
            torch.bmm(dscores.transpose(1, 2), seen.q)[:, :positions],
            torch.bmm(seen.dropped.transpose(1, 2), dz)[:, :positions],
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
    slope = torch.ops.aten.sigmoid_backward(z.sub_(x, alpha=4 / 3 * c), s)  # (z - 4c/3 x) s (1 - s)
    return x * s, torch.add(s, slope, alpha=3)


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
    losses, dh = h.new_empty(len(h)), torch.empty_like(h)
    for e, (own, W, target, w) in enumerate(zip(h, weight, targets, share[..., None], strict=True)):
        p = product(own, W.T)
        torch.softmax(p, -1, out=p)
        found = p.gather(1, target[:, None])[:, 0]
        if not bool((found > torch.finfo(p.dtype).tiny).all()):  # too small to take a logarithm of
            nll = torch.nn.functional.cross_entropy(product(own, W.T), target, reduction="none")
        else:
            nll = -found.log()
        losses[e] = nll @ w[:, 0]
        torch.mul(product(p, W).sub_(W[target]), w, out=dh[e])
        if dweight is not None:
            weighted = own * w
            dweight[e].copy_(product(weighted.T, p).T).index_add_(0, target, weighted, alpha=-1)
    return losses, dh


# ------------------------------------------------------------------------------------------------ matrix products


def product(a: Float[Tensor, "row inner"], b: Float[Tensor, "inner column"]) -> Float[Tensor, "row column"]:
    """Return a b, by oneDNN where torch has it: twice as fast as torch.mm on CPUs that MKL does not favour (AMD's)."""
    if _HAS_ONEDNN and a.dtype == torch.float32 and a.device.type == "cpu":
        return torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")
    return a @ b


# An operator that torch.compile calls, hence no part of torch's documented interface: taken only where it is there.
_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


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
