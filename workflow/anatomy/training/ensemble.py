"""A stack of small GPT-2 models trained as one: the same step for E seeds in one pass.

Every tensor has a leading axis E (ensemble member). The forward and the backward pass are written out by hand,
because at this size (64 wide, 128 tokens a step) the time of a framework's step goes into bookkeeping, not
arithmetic: stacking the seeds spreads that cost, and the hand-written backward pass keeps only what it needs.
The arithmetic is GPT-2's, and tests compare loss and every gradient with Hugging Face's model in float64.

Letters: E members, B sequences, T positions, N = B*T, C width, H heads, D = C/H, V vocabulary.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anatomy.training.dropout import LayerMasks, Masks, draw_masks
from anatomy.training.layers import (
    Attended,
    LayerNorm,
    Linear,
    Normed,
    attend,
    attend_backward,
    cross_entropy_head,
    gelu,
)


@dataclass(frozen=True)
class Shape:
    """Sizes of the stacked model. `window` position rows are trained; `n_positions` are exported."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    inner: int
    n_positions: int
    window: int
    dropout: float = 0.1
    epsilon: float = 1e-5


@dataclass
class Group:
    """Parameters that share one optimiser call: flat [E, P] values and gradients, and Adam's two moments."""

    value: Float[Tensor, "member parameter"]
    gradient: Float[Tensor, "member parameter"]
    first_moment: Float[Tensor, "member parameter"]
    second_moment: Float[Tensor, "member parameter"]
    decays: bool


class BlockTape(NamedTuple):
    """What the backward pass of a block needs."""

    ln_1: Normed
    h1: Tensor
    attended: Attended
    z: Tensor
    ln_2: Normed
    h2: Tensor
    active: Tensor
    slope: Tensor


@dataclass(frozen=True)
class Block:
    """x + attn(ln_1(x)), then x + mlp(ln_2(x)); each module's output is masked by dropout."""

    heads: int
    ln_1: LayerNorm
    c_attn: Linear
    attn_proj: Linear
    ln_2: LayerNorm
    c_fc: Linear
    mlp_proj: Linear

    def forward(self, x: Tensor, batch: int, keep: LayerMasks | None) -> tuple[Tensor, BlockTape]:
        """The stream after the block, and what the way back needs."""
        h1, ln_1 = self.ln_1.forward(x)
        z, attended = attend(self.c_attn.forward(h1), batch, self.heads, keep.attention if keep else None)
        x = _add(x, self.attn_proj.forward(z), keep.attn if keep else None)
        h2, ln_2 = self.ln_2.forward(x)
        active, slope = gelu(self.c_fc.forward(h2))
        x = _add(x, self.mlp_proj.forward(active), keep.mlp if keep else None)
        return x, BlockTape(ln_1, h1, attended, z, ln_2, h2, active, slope)

    def backward(self, dx: Tensor, t: BlockTape, batch: int, keep: LayerMasks | None) -> Tensor:
        """The gradient of the stream before the block, from that after it."""
        dactive = self.mlp_proj.backward(dx * keep.mlp if keep else dx, t.active)
        dx = dx + self.ln_2.backward(self.c_fc.backward(dactive.mul_(t.slope), t.h2), t.ln_2)
        dz = self.attn_proj.backward(dx * keep.attn if keep else dx, t.z)
        dqkv = attend_backward(dz, t.attended, batch, keep.attention if keep else None)
        return dx.add_(self.ln_1.backward(self.c_attn.backward(dqkv, t.h1), t.ln_1))


class Tape(NamedTuple):
    """What the backward pass of the whole model needs."""

    masks: Masks | None
    blocks: list[BlockTape]
    ln_f: Normed


class Ensemble:
    """E GPT-2 models with tied embeddings, their gradients, and their place in flat optimiser groups.

    Parameters carry Hugging Face's names without the prefix ``transformer.``.

    Args:
        states: one state dict per member, all of one shape.
        shape: the sizes.
        trainable: says by name whether a parameter is trained; frozen ones get no gradient and no decay.
        device, dtype: float64 serves the exactness tests.
    """

    def __init__(
        self,
        states: Iterable[dict[str, Tensor]],
        shape: Shape,
        *,
        trainable: Callable[[str], bool] = lambda name: True,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        members = [
            {name.removeprefix("transformer."): value for name, value in state.items() if name != "lm_head.weight"}
            for state in states
        ]
        self.shape, self.size, self.device, self.dtype = shape, len(members), torch.device(device), dtype
        self.parameters: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        self.groups: list[Group] = []
        # Rows of the position table beyond the window never reach a token: their gradient is zero for ever and
        # Adam leaves them alone, but weight decay does not. `tail_scale` is that decay, applied at export.
        self.tail = torch.stack([m["wpe.weight"][shape.window :] for m in members]).to(device, dtype)
        self.tail_scale, self.tail_decays = 1.0, trainable("wpe.weight")

        stacked = {name: torch.stack([m[name] for m in members]).to(device, dtype) for name in members[0]}
        stacked["wpe.weight"] = stacked["wpe.weight"][:, : shape.window].contiguous()
        for decays in (True, False):
            names = [n for n in stacked if trainable(n) and is_decayed(n) == decays]
            if names:
                self._lay_out(names, stacked, decays)
        for name, value in stacked.items():
            self.parameters.setdefault(name, value)
        self.blocks = [self._block(f"h.{layer}") for layer in range(shape.layers)]
        self.ln_f = self._layer_norm("ln_f")

    def _lay_out(self, names: list[str], stacked: dict[str, Tensor], decays: bool) -> None:
        flat = torch.cat([stacked[name].flatten(1) for name in names], dim=1)
        group = Group(flat, torch.zeros_like(flat), torch.zeros_like(flat), torch.zeros_like(flat), decays)
        self.groups.append(group)
        start = 0
        for name in names:
            end = start + stacked[name][0].numel()
            self.parameters[name] = group.value[:, start:end].unflatten(1, stacked[name].shape[1:])
            self.gradients[name] = group.gradient[:, start:end].unflatten(1, stacked[name].shape[1:])
            start = end

    def _block(self, name: str) -> Block:
        return Block(
            heads=self.shape.heads,
            ln_1=self._layer_norm(f"{name}.ln_1"),
            c_attn=self._linear(f"{name}.attn.c_attn"),
            attn_proj=self._linear(f"{name}.attn.c_proj"),
            ln_2=self._layer_norm(f"{name}.ln_2"),
            c_fc=self._linear(f"{name}.mlp.c_fc"),
            mlp_proj=self._linear(f"{name}.mlp.c_proj"),
        )

    def _linear(self, name: str) -> Linear:
        p, g = self.parameters, self.gradients
        weight, bias = f"{name}.weight", f"{name}.bias"
        return Linear(p[weight], p[bias][:, None], g.get(weight), g.get(bias))

    def _layer_norm(self, name: str) -> LayerNorm:
        p, g = self.parameters, self.gradients
        weight, bias = f"{name}.weight", f"{name}.bias"
        return LayerNorm(p[weight][:, None], p[bias][:, None], g.get(weight), g.get(bias), self.shape.epsilon)

    def hidden(
        self, ids: Int[Tensor, "member batch position"], generators: list[torch.Generator] | None = None
    ) -> tuple[Float[Tensor, "member token width"], Tape]:
        """The final hidden state (after the last layer norm), and what the backward pass needs.

        Dropout is on exactly when generators are given.
        """
        batch = ids.shape[1]
        masks = self.masks(batch, ids.shape[2], generators) if generators and self.shape.dropout else None
        x = self._embed(ids)
        if masks:
            x *= masks.embed
        tapes = []
        for block, keep in zip(self.blocks, self._by_layer(masks), strict=True):
            x, tape = block.forward(x, batch, keep)
            tapes.append(tape)
        h, ln_f = self.ln_f.forward(x)
        return h, Tape(masks, tapes, ln_f)

    def masks(self, batch: int, positions: int, generators: list[torch.Generator]) -> Masks:
        """The dropout masks of one step over `batch` sequences of `positions` tokens."""
        s = self.shape
        return draw_masks(
            generators,
            s.dropout,
            batch=batch,
            positions=positions,
            width=s.width,
            heads=s.heads,
            layers=s.layers,
            dtype=self.dtype,
        )

    def _by_layer(self, masks: Masks | None) -> list[LayerMasks] | list[None]:
        return masks.layers if masks else [None] * self.shape.layers

    def _embed(self, ids: Int[Tensor, "member batch position"]) -> Float[Tensor, "member token width"]:
        words = torch.stack([W[own] for W, own in zip(self.parameters["wte.weight"], ids, strict=True)])
        return words.add_(self.parameters["wpe.weight"][:, None, : ids.shape[2]]).flatten(1, 2)

    def loss_and_gradients(
        self,
        ids: Int[Tensor, "member batch position"],
        valid: Bool[Tensor, "member batch position"],
        generators: list[torch.Generator] | None = None,
    ) -> Float[Tensor, " member"]:
        """Mean next-token cross-entropy over the valid targets of each member; fills `gradients`.

        Args:
            ids: padded on the right; `valid` is False on the padding.
            generators: one source of dropout masks per member; None switches dropout off.
        """
        inputs, targets = ids[..., :-1], ids[..., 1:].flatten(1)
        share = valid[..., 1:].flatten(1).to(self.dtype)
        share /= share.sum(1, keepdim=True)
        h, tape = self.hidden(inputs, generators)
        loss, dx = cross_entropy_head(
            h, self.parameters["wte.weight"], self.gradients.get("wte.weight"), targets, share
        )
        dx = self.ln_f.backward(dx, tape.ln_f)
        for block, own, keep in reversed(list(zip(self.blocks, tape.blocks, self._by_layer(tape.masks), strict=True))):
            dx = block.backward(dx, own, inputs.shape[1], keep)
        self._embed_backward(dx * tape.masks.embed if tape.masks else dx, inputs)
        return loss

    def _embed_backward(self, dx: Tensor, ids: Int[Tensor, "member batch position"]) -> None:
        if "wte.weight" in self.gradients:  # the head wrote its share already: the embedding is tied
            for gradient, own, d in zip(self.gradients["wte.weight"], ids.flatten(1), dx, strict=True):
                gradient.index_add_(0, own, d)
        if "wpe.weight" in self.gradients:
            own = self.gradients["wpe.weight"]
            own[:, ids.shape[2] :].zero_()
            torch.sum(dx.unflatten(1, ids.shape[1:]), 1, out=own[:, : ids.shape[2]])

    def logits(
        self, ids: Int[Tensor, "member batch position"], *, last_only: bool = False
    ) -> Float[Tensor, "member batch scored vocabulary"]:
        """Next-token logits without dropout; with `last_only` the position axis has length one."""
        h = self.hidden(ids)[0].unflatten(1, ids.shape[1:])
        h = h[:, :, -1:] if last_only else h
        return torch.einsum("ebtc,evc->ebtv", h, self.parameters["wte.weight"])

    def state(self, member: int) -> dict[str, Tensor]:
        """The member's state dict under Hugging Face's names, on the CPU, contiguous."""
        out = {name: value[member] for name, value in self.parameters.items()}
        out["wpe.weight"] = torch.cat([out["wpe.weight"], self.tail[member] * self.tail_scale])
        return {f"transformer.{name}": value.detach().cpu().clone().contiguous() for name, value in out.items()}


def _add(x: Tensor, out: Tensor, mask: Tensor | None) -> Tensor:
    return x + out if mask is None else torch.addcmul(x, out, mask)


def is_decayed(name: str) -> bool:
    """Weight decay touches matrices, not biases or layer norms (the rule of transformers.Trainer)."""
    return not name.endswith("bias") and ".ln_" not in f".{name}"
