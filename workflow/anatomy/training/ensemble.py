"""A stack of small GPT-2 models trained as one: the same step for E seeds in one pass.

Every tensor has a leading axis E (ensemble member). The forward and the backward pass are written out by hand,
because at this size (64 wide, 128 tokens a step) the time of a framework's step goes into bookkeeping, not
arithmetic: stacking the seeds spreads that cost, and the hand-written backward pass keeps only what it needs.
The arithmetic is GPT-2's, and tests compare loss and every gradient with Hugging Face's model in float64.

Letters: E members, B sequences, T positions, N = B*T, C width, H heads, D = C/H, V vocabulary.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Dropout masks are cut from 64 random bits as four 16-bit integers, four times cheaper than one draw each.
# p = 0.1 becomes 6554/65536 = 0.100006.
_LANES, _LEVELS = 4, 1 << 16


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

    # ---------------------------------------------------------------------------------------- forward

    def hidden(
        self, ids: Int[Tensor, "member batch position"], generators: list[torch.Generator] | None = None
    ) -> tuple[Float[Tensor, "member token width"], list[dict[str, Tensor]]]:
        """The final hidden state (after the last layer norm) and, per layer, what the backward pass needs.

        Dropout is on exactly when generators are given.
        """
        s, p = self.shape, self.parameters
        _, B, T = ids.shape
        keep = self._keep_masks(B, T, generators)
        x = self._embed(ids)
        if keep:
            x *= keep["embed"]
        tape: list[dict[str, Tensor]] = [{"keep": keep["embed"]}] if keep else [{}]
        mask = _causal_mask(T, self.device, self.dtype)
        for layer in range(s.layers):
            t: dict[str, Tensor] = {}
            tape.append(t)
            h = self._norm(x, f"h.{layer}.ln_1", t)
            qkv = torch.baddbmm(p[f"h.{layer}.attn.c_attn.bias"][:, None], h, p[f"h.{layer}.attn.c_attn.weight"])
            q, k, v = self._split_heads(qkv, B, T, mask.shape[1])
            # softmax(q kᵀ / sqrt(D) + causal mask)
            attention = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=1 / math.sqrt(s.width // s.heads)).softmax(-1)
            dropped = attention
            if keep:
                t["keep_attention"] = keep["attention"][layer]
                dropped = (attention.view_as(t["keep_attention"]) * t["keep_attention"]).view_as(attention)
            z = self._merge_heads(torch.bmm(dropped, v), B, T)
            t |= {"h1": h, "q": q, "k": k, "v": v, "attention": attention, "dropped": dropped, "z": z}
            x = self._project(x, z, f"h.{layer}.attn.c_proj", keep, "attn", layer, t)
            h = self._norm(x, f"h.{layer}.ln_2", t)
            inner = torch.baddbmm(p[f"h.{layer}.mlp.c_fc.bias"][:, None], h, p[f"h.{layer}.mlp.c_fc.weight"])
            active, slope = _gelu(inner)
            t |= {"h2": h, "active": active, "slope": slope}
            x = self._project(x, active, f"h.{layer}.mlp.c_proj", keep, "mlp", layer, t)
        last: dict[str, Tensor] = {}
        tape.append(last)
        return self._norm(x, "ln_f", last), tape

    def _embed(self, ids: Int[Tensor, "member batch position"]) -> Float[Tensor, "member token width"]:
        E, B, T = ids.shape
        member = torch.arange(E, device=self.device)[:, None]
        words = self.parameters["wte.weight"][member, ids.reshape(E, B * T)]
        places = self.parameters["wpe.weight"][:, None, :T].expand(E, B, T, -1).reshape(E, B * T, -1)
        return words + places

    def _norm(self, x: Tensor, name: str, tape: dict[str, Tensor]) -> Tensor:
        normed, mean, rstd = torch.native_layer_norm(x, (self.shape.width,), None, None, self.shape.epsilon)
        tape |= {
            f"{name[-4:]}.x": x,
            f"{name[-4:]}.normed": normed,
            f"{name[-4:]}.mean": mean,
            f"{name[-4:]}.rstd": rstd,
        }
        return torch.addcmul(
            self.parameters[f"{name}.bias"][:, None], normed, self.parameters[f"{name}.weight"][:, None]
        )

    def _project(self, x: Tensor, h: Tensor, name: str, keep: dict, part: str, layer: int, tape: dict) -> Tensor:
        out = torch.baddbmm(self.parameters[f"{name}.bias"][:, None], h, self.parameters[f"{name}.weight"])
        if not keep:
            return x + out
        tape[f"keep_{part}"] = keep[part][layer]
        return torch.addcmul(x, out, keep[part][layer])

    def _split_heads(self, qkv: Tensor, B: int, T: int, T_padded: int) -> tuple[Tensor, Tensor, Tensor]:
        """[E, N, 3C] -> q, k, v, each [E*B*H, T_padded, D]; padded keys and values are zero."""
        s = self.shape
        heads = qkv.view(self.size, B, T, 3, s.heads, s.width // s.heads).permute(3, 0, 1, 4, 2, 5)
        out = heads.new_zeros(3, self.size, B, s.heads, T_padded, s.width // s.heads)
        out[..., :T, :] = heads
        q, k, v = out.flatten(1, 3)
        return q[:, :T], k, v

    def _merge_heads(self, z: Tensor, B: int, T: int) -> Tensor:
        s = self.shape
        return z.view(self.size, B, s.heads, T, -1).transpose(2, 3).reshape(self.size, B * T, s.width)

    def _keep_masks(self, B: int, T: int, generators: list[torch.Generator] | None) -> dict:
        """Dropout masks of one step, already divided by 1 - p.

        Each member draws from its own generator, so that a seed's result does not depend on the seeds beside it, as
        long as their rows have the same lengths (a batch is padded to its longest row, over all members).
        """
        s = self.shape
        if generators is None or s.dropout == 0:
            return {}
        flat, scores = B * T * s.width, B * s.heads * T * _padded(T)
        total = flat * (1 + 2 * s.layers) + scores * s.layers
        bits = torch.empty(self.size, -(-total // _LANES), dtype=torch.int64, device=self.device)
        for own, generator in zip(bits, generators, strict=True):
            own.random_(-(2**63), None, generator=generator)
        keep = torch.empty(self.size, total, dtype=self.dtype, device=self.device)
        torch.ge(bits.view(torch.int16)[:, :total], -(_LEVELS // 2) + round(s.dropout * _LEVELS), out=keep)
        keep *= 1 / (1 - s.dropout)
        streams, attention = keep.split([flat * (1 + 2 * s.layers), scores * s.layers], dim=1)
        embed, *rest = streams.view(self.size, 1 + 2 * s.layers, B * T, s.width).unbind(1)
        return {
            "embed": embed,
            "attn": rest[: s.layers],
            "mlp": rest[s.layers :],
            "attention": attention.view(self.size, s.layers, B * s.heads, T, _padded(T)).unbind(1),
        }

    # --------------------------------------------------------------------------------------- backward

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
        inputs, targets, weight = (
            ids[..., :-1],
            ids[..., 1:].flatten(1),
            valid[..., 1:].flatten(1).to(self.dtype),
        )
        weight = weight / weight.sum(1, keepdim=True)
        h, tape = self.hidden(inputs, generators)
        loss, dx = self._head(h, targets, weight)
        dx = self._norm_backward(dx, "ln_f", tape[-1])
        for layer in reversed(range(self.shape.layers)):
            dx = self._block_backward(dx, layer, tape[layer + 1], inputs.shape[1], inputs.shape[2])
        if "keep" in tape[0]:
            dx = dx * tape[0]["keep"]
        self._embed_backward(dx, inputs)
        return loss

    def _head(self, h: Tensor, targets: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of softmax(h Wᵀ) and its gradients to h and W, one member at a time (stays in cache)."""
        W, dh, losses = self.parameters["wte.weight"], torch.empty_like(h), []
        rows = torch.arange(h.shape[1], device=self.device)
        logits = h.new_empty(h.shape[1], W.shape[1])
        for e in range(self.size):
            torch.mm(h[e], W[e].T, out=logits)
            # One shift for all rows (the largest logit) costs a fraction of one shift per row. A row that lies so far
            # below it that its exponentials underflow is summed to zero, and then the rows are shifted one by one.
            target = logits[rows, targets[e]]
            highest = logits.max()
            total = logits.sub_(highest).exp_().sum(1, keepdim=True)
            if not bool((total > 1e-20).all()):
                torch.mm(h[e], W[e].T, out=logits)
                highest = logits.amax(1, keepdim=True)
                total = logits.sub_(highest).exp_().sum(1, keepdim=True)
            losses.append(((total[:, 0].log() + highest.view(-1) - target) * weight[e]).sum())
            logits.mul_(weight[e][:, None] / total)
            logits[rows, targets[e]] -= weight[e]
            torch.mm(logits, W[e], out=dh[e])
            if "wte.weight" in self.gradients:
                torch.mm(logits.T, h[e], out=self.gradients["wte.weight"][e])
        return torch.stack(losses), dh

    def _embed_backward(self, dx: Tensor, ids: Tensor) -> None:
        E, B, T = ids.shape
        if "wte.weight" in self.gradients:  # the head wrote its share already: the embedding is tied
            for e in range(E):
                self.gradients["wte.weight"][e].index_add_(0, ids[e].flatten(), dx[e])
        if "wpe.weight" in self.gradients:
            self.gradients["wpe.weight"].zero_()
            self.gradients["wpe.weight"][:, :T] = dx.view(E, B, T, -1).sum(1)

    def _block_backward(self, dx: Tensor, layer: int, t: dict[str, Tensor], B: int, T: int) -> Tensor:
        s = self.shape
        name = f"h.{layer}"
        # x_out = x_mid + mlp(ln_2(x_mid))
        dout = dx * t["keep_mlp"] if "keep_mlp" in t else dx
        dactive = self._linear_backward(dout, t["active"], f"{name}.mlp.c_proj")
        dh = self._linear_backward(dactive.mul_(t["slope"]), t["h2"], f"{name}.mlp.c_fc")
        dx = dx + self._norm_backward(dh, f"{name}.ln_2", t)
        # x_mid = x_in + attn(ln_1(x_in))
        dout = dx * t["keep_attn"] if "keep_attn" in t else dx
        dz = self._linear_backward(dout, t["z"], f"{name}.attn.c_proj")
        dz = dz.view(self.size, B, T, s.heads, -1).transpose(2, 3).reshape(-1, T, s.width // s.heads)
        dv = torch.bmm(t["dropped"].transpose(1, 2), dz)
        dattention = torch.bmm(dz, t["v"].transpose(1, 2))
        if "keep_attention" in t:
            dattention.view_as(t["keep_attention"]).mul_(t["keep_attention"])
        # softmax: ds = a (da - sum(da a))
        dscores = torch.ops.aten._softmax_backward_data(dattention, t["attention"], -1, self.dtype)
        dscores *= 1 / math.sqrt(s.width // s.heads)
        dqkv = dz.new_empty(self.size, B, T, 3, s.heads, s.width // s.heads)
        dq, dk, dv_out = dqkv.permute(3, 0, 1, 4, 2, 5)
        dq.copy_(torch.bmm(dscores, t["k"]).view(dq.shape))
        dk.copy_(torch.bmm(dscores.transpose(1, 2), t["q"])[:, :T].unflatten(0, dk.shape[:3]))
        dv_out.copy_(dv[:, :T].unflatten(0, dk.shape[:3]))
        dqkv = dqkv.view(self.size, B * T, 3 * s.width)
        dh = self._linear_backward(dqkv, t["h1"], f"{name}.attn.c_attn")
        return dx + self._norm_backward(dh, f"{name}.ln_1", t)

    def _linear_backward(self, dy: Tensor, x: Tensor, name: str) -> Tensor:
        """y = x W + b: writes dW = xᵀ dy and db, returns dx = dy Wᵀ."""
        if f"{name}.weight" in self.gradients:
            torch.bmm(x.transpose(1, 2), dy, out=self.gradients[f"{name}.weight"])
        if f"{name}.bias" in self.gradients:
            torch.sum(dy, 1, out=self.gradients[f"{name}.bias"])
        return torch.bmm(dy, self.parameters[f"{name}.weight"].transpose(1, 2))

    def _norm_backward(self, dy: Tensor, name: str, t: dict[str, Tensor]) -> Tensor:
        part = name[-4:]
        if f"{name}.weight" in self.gradients:
            torch.sum(dy * t[f"{part}.normed"], 1, out=self.gradients[f"{name}.weight"])
        if f"{name}.bias" in self.gradients:
            torch.sum(dy, 1, out=self.gradients[f"{name}.bias"])
        dnormed = dy * self.parameters[f"{name}.weight"][:, None]
        dx, _, _ = torch.ops.aten.native_layer_norm_backward(
            dnormed,
            t[f"{part}.x"],
            (self.shape.width,),
            t[f"{part}.mean"],
            t[f"{part}.rstd"],
            None,
            None,
            [True, False, False],
        )
        return dx

    # ------------------------------------------------------------------------------ reading it out

    def logits(
        self, ids: Int[Tensor, "member batch position"], *, last_only: bool = False
    ) -> Float[Tensor, "member batch scored vocabulary"]:
        """Next-token logits without dropout; with `last_only` the position axis has length one."""
        E, B, T = ids.shape
        h = self.hidden(ids)[0].view(E, B, T, -1)
        h = h[:, :, -1:] if last_only else h
        return torch.einsum("ebtc,evc->ebtv", h, self.parameters["wte.weight"])

    def state(self, member: int) -> dict[str, Tensor]:
        """The member's state dict under Hugging Face's names, on the CPU, contiguous."""
        out = {name: value[member] for name, value in self.parameters.items()}
        out["wpe.weight"] = torch.cat([out["wpe.weight"], self.tail[member] * self.tail_scale])
        return {f"transformer.{name}": value.detach().cpu().clone().contiguous() for name, value in out.items()}


def _gelu(x: Tensor) -> tuple[Tensor, Tensor]:
    """GPT-2's gelu and its derivative, in one go.

    gelu(x) = x/2 (1 + tanh(c (x + a x³))) = x σ(2c (x + a x³)) with c = sqrt(2/π), a = 0.044715; with s = σ(...) the
    derivative is s + x s (1 - s) 2c (1 + 3a x²). The sigmoid is vectorised where the tanh is not, and the backward
    pass is left with one product.
    """
    c, a = math.sqrt(2 / math.pi), 0.044715
    square = x * x
    s = torch.mul(square, 2 * c * a).add_(2 * c).mul_(x).sigmoid_()
    active = x * s
    slope = square.mul_(6 * c * a).add_(2 * c).mul_(active).mul_(1 - s).add_(s)
    return active, slope


def is_decayed(name: str) -> bool:
    """Weight decay touches matrices, not biases or layer norms (the rule of transformers.Trainer)."""
    return not name.endswith("bias") and ".ln_" not in f".{name}"


def _padded(T: int) -> int:
    """Softmax over a length that is no multiple of 16 falls off the vector path (12 times slower on AVX-512)."""
    return -(-T // 16) * 16


_MASKS: dict[tuple, Tensor] = {}


def _causal_mask(T: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "position padded"]:
    """0 where a query may look, -inf on the future and on padded keys."""
    key = (T, str(device), dtype)
    if key not in _MASKS:
        _MASKS[key] = torch.full((T, _padded(T)), float("-inf"), device=device, dtype=dtype).triu(1)
    return _MASKS[key]
