"""How likely an answer becomes when each of many sites in turn is replaced at the prompt's last position.

The plain way is one forward pass per site. But with causal attention a change at position T-1 (from 0) leaves all
positions below T-1 as they are, and a change in layer l all layers below l. So one pass over the prompts, without any
edit, keeps the residual stream of the positions from T-1 on, and the keys and values of those below. Then a growing
batch goes up the layers: above layer l the patched sites of layer l join it, and only the positions from T-1 on are
computed. Up to rounding the scores are those of the plain way (a test: 1e-10 in float64).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from anatomy.interventions.generate import Ids, split
from anatomy.models.adapters import Adapter, Rotation, adapter_of
from anatomy.sites import Part, Site

ROWS = 2048  # residual vectors (site, prompt, position) in one batch; bounds the memory, changes no result


@dataclass(frozen=True)
class Scores:
    """Log-probabilities ln p(y_1 .. y_m | x) of the prompts' answers, at least in float32."""

    sites: tuple[Site, ...]
    tokens: Int[Tensor, " prompt"]  # m, the number of tokens that are scored
    base: Float[Tensor, " prompt"]  # without a patch
    patched: Float[Tensor, "site prompt"]

    def effects(self) -> Float[Tensor, "site prompt"]:
        """Causal indirect effects (CIE): P(y | x; do(site := constant)) - P(y | x); their mean over prompts is ACIE.

        P = (p(y_1) .. p(y_m))^(1/m), as in BkdAttr (arXiv 2509.21761, calculate_cie.py).
        """
        # P(patched) - P(base) without cancellation: most effects are small.
        return (self.base / self.tokens).exp() * ((self.patched - self.base) / self.tokens).expm1()


def swept_scores(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    answers: Sequence[Ids],
    constants: Mapping[Site, Float[Tensor, " constant"]],
    *,
    rows: int = ROWS,
) -> Scores:
    """Score every prompt's answer, for every site with the site replaced by its constant at the last prompt position.

    The definition is that of ACIE in BkdAttr (arXiv 2509.21761, calculate_cie.py): the patch is at the last token of
    the prompt alone. The answer is read behind it (teacher forcing), and its positions are not patched; they see the
    patch through the attention of the layers above. All m tokens of an answer are scored, the first by the patched
    position itself.

    `constants` has one vector per site, such as a mean over prompts: for a head what stands in place of its slice of
    the output projection's input (so that the projection's bias stays whole), for `attn`, `mlp` and `resid` of the
    output, for `block` of the sum of attention's and MLP's (which share of it is whose, nothing above can see). Prompts
    are batched with those of the same length and length of the answer: nothing is padded. Logits are computed at the
    scored positions only, and in float32 also where the model is in a shorter type.

    At most `rows` residual vectors (site, prompt and position) are in one batch, or one prompt's, where that is more.

    Raises:
        ArtifactError: the model's architecture has no adapter.
        ValueError: an empty prompt or answer, one too long for the model, a number of answers that is not that of the
            prompts, a site that the model lacks or a constant of another width, or a model in training mode.
    """
    adapter = adapter_of(model)
    _check(model, adapter, prompts, answers, constants)
    sites = sorted(constants)  # from the bottom up
    with torch.no_grad():
        head = adapter.unembedding()
        head = head.to(torch.promote_types(head.dtype, torch.float32))
        base = head.new_empty(len(prompts))
        patched = head.new_empty(len(sites), len(prompts))
        for (length, tokens), alike in _by_length(prompts, answers).items():
            most = rows // max(tokens * len(sites), length + tokens - 1)
            for some in split(alike, max(1, most)):
                ids = torch.tensor([[*prompts[i], *answers[i]] for i in some], device=head.device)
                read = _read(adapter, ids[:, :-1], length)
                targets = ids[:, length:]
                base[some] = _score(adapter, head, read.entering[-1][None], targets)[0]
                first = 0
                for group in split(sites, max(1, rows // (tokens * len(some)))):
                    resid = _climb(adapter, read, {site: constants[site] for site in group})
                    patched[first : first + len(group), some] = _score(adapter, head, resid, targets)
                    first += len(group)
    order = [sites.index(site) for site in constants]
    lengths = torch.tensor([len(answer) for answer in answers], device=head.device)
    return Scores(tuple(constants), lengths, base, patched[order])


@dataclass(frozen=True)
class _Read:
    """Prompts and answers of one length, read without a patch; "window" are the positions from T-1 on."""

    entering: list[Float[Tensor, "prompt window width"]]  # each block, and the final norm
    z: list[Float[Tensor, "prompt z"]]  # of each layer, at position T-1
    keys: list[Float[Tensor, "prompt head position width"]]  # of each layer, at the positions below T-1
    values: list[Float[Tensor, "prompt head position width"]]
    rotation: Rotation  # of the window


def _read(adapter: Adapter, ids: Int[Tensor, "prompt position"], length: int) -> _Read:
    below = length - 1
    positions = torch.arange(ids.shape[1], device=ids.device)
    rotation = adapter.rotation(positions)
    read = _Read([], [], [], [], adapter.rotation(positions[below:]))
    x = adapter.embed(ids)
    for layer in range(adapter.layers):
        read.entering.append(x[:, below:].clone())  # a copy: a view would keep all positions
        q, k, v = (part.transpose(1, 2) for part in adapter.query_key_value(layer, x, rotation))
        grouped = adapter.heads != adapter.key_heads
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=adapter.scaling(layer), enable_gqa=grouped)
        z = z.transpose(1, 2).flatten(2)
        read.z.append(z[:, below].clone())
        read.keys.append(k[:, :, :below].contiguous())
        read.values.append(v[:, :, :below].contiguous())
        if layer == adapter.layers - 1:  # nothing reads what it adds below
            x, z = x[:, below:], z[:, below:]
        x = x + adapter.project(layer, z)
        x = x + adapter.mlp(layer, x)
    read.entering.append(x)
    return read


def _climb(
    adapter: Adapter, read: _Read, constants: Mapping[Site, Float[Tensor, " constant"]]
) -> Float[Tensor, "site prompt window width"]:
    """What enters the final norm under each patch; `constants` lists the sites from the bottom up."""
    x = read.entering[0].new_empty(len(constants), *read.entering[0].shape)
    active = 0
    for layer in range(next(iter(constants)).layer, adapter.layers):
        if active:
            climbing = x[:active]
            climbing += adapter.project(layer, _attend(adapter, layer, climbing, read))
            climbing += adapter.mlp(layer, climbing)
        own = {site: value for site, value in constants.items() if site.layer == layer}
        if own:
            joining = x[active : active + len(own)]
            joining[:] = read.entering[layer + 1]
            joining[:, :, 0] = _patched(adapter, layer, read, own)
            active += len(own)
    return x


def _patched(
    adapter: Adapter, layer: int, read: _Read, constants: Mapping[Site, Float[Tensor, " constant"]]
) -> Float[Tensor, "site prompt width"]:
    """The residual stream at position T-1 after the layer, under each patch in the layer."""

    def replace(x: Tensor, part: Part) -> Tensor:
        for i, (site, value) in enumerate(constants.items()):
            if site.part == part:
                x[i] = value.to(x)
        return x

    z = read.z[layer].repeat(len(constants), 1, 1).unflatten(-1, (adapter.heads, adapter.head_width))
    for i, (site, value) in enumerate(constants.items()):
        if site.head is not None:
            z[i, :, site.head] = value.to(z)
    below = read.entering[layer][:, 0]
    x = below + replace(adapter.project(layer, z.flatten(2)), "attn")
    x = x + replace(adapter.mlp(layer, x), "mlp")
    for i, (site, value) in enumerate(constants.items()):
        if site.part == "block":
            x[i] = below + value.to(x)
    return replace(x, "resid")


def _attend(
    adapter: Adapter, layer: int, x: Float[Tensor, "site prompt window width"], read: _Read
) -> Float[Tensor, "site prompt window z"]:
    """The heads' outputs in the window. All sites share the keys and values below, which are never copied."""
    sites, window = x.shape[0], x.shape[2]
    keys, values = read.keys[layer], read.values[layer]
    q, k, v = adapter.query_key_value(layer, x, read.rotation)
    # [site, prompt, window, head, width] -> [prompt, key head, site, (head of the key head, window), width]
    q = (q * adapter.scaling(layer)).unflatten(3, (adapter.key_heads, -1)).permute(1, 3, 0, 4, 2, 5).flatten(3, 4)
    k, v = (part.permute(1, 3, 0, 2, 4) for part in (k, v))
    later = torch.ones(window, window, dtype=torch.bool, device=x.device).triu(1)
    later = later.repeat(adapter.heads // adapter.key_heads, 1)
    before = (q.flatten(2, 3) @ keys.mT).unflatten(2, (sites, -1))
    within = (q @ k.mT).masked_fill(later, float("-inf"))
    scores = torch.cat([before, within], dim=-1)
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)
    before, within = weights.split([keys.shape[2], window], dim=-1)
    z = (before.flatten(2, 3) @ values).unflatten(2, (sites, -1)) + within @ v
    return z.unflatten(3, (-1, window)).permute(2, 0, 4, 1, 3, 5).flatten(3)


def _score(
    adapter: Adapter,
    head: Float[Tensor, "vocabulary width"],
    resid: Float[Tensor, "site prompt window width"],
    targets: Int[Tensor, "prompt window"],
) -> Float[Tensor, "site prompt"]:
    """ln p of the targets, one position after the other: the logits of all would be the largest tensor by far."""
    total = head.new_zeros(resid.shape[:2])
    for i in range(targets.shape[1]):
        logits = F.linear(adapter.norm(resid[:, :, i]).to(head.dtype), head)
        target = targets[:, i].expand(len(resid), -1)[..., None]
        total += logits.gather(-1, target)[..., 0] - logits.logsumexp(-1)
    return total


def _by_length(prompts: Sequence[Ids], answers: Sequence[Ids]) -> dict[tuple[int, int], list[int]]:
    """The numbers of the prompts that have the same length, and an answer of the same length."""
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        found[len(prompt), len(answer)].append(i)
    return dict(sorted(found.items()))


def _check(
    model: PreTrainedModel,
    adapter: Adapter,
    prompts: Sequence[Ids],
    answers: Sequence[Ids],
    constants: Mapping[Site, Float[Tensor, " constant"]],
) -> None:
    if model.training:
        raise ValueError("the model is in training mode, where dropout is on; expected model.eval()")
    if len(prompts) != len(answers):
        raise ValueError(f"{len(prompts)} prompts and {len(answers)} answers; expected one answer per prompt")
    for prompt, answer in zip(prompts, answers, strict=True):
        if not prompt or not answer or len(prompt) + len(answer) - 1 > adapter.positions:
            raise ValueError(
                f"a prompt of {len(prompt)} tokens and an answer of {len(answer)}: expected at least 1 each, "
                f"and {adapter.positions} in all without the answer's last"
            )
    for site, value in constants.items():
        if site.part == "embed" or site.layer not in range(adapter.layers):
            raise ValueError(f"{site}: expected a head, attn, mlp, block or resid of layers 1 to {adapter.layers}")
        if site.head is not None and site.head not in range(adapter.heads):
            raise ValueError(f"{site}: the model has heads 0 to {adapter.heads - 1}")
        expected = adapter.width if site.head is None else adapter.head_width
        if value.shape != (expected,):
            raise ValueError(f"{site}: a constant of shape {tuple(value.shape)}; expected ({expected},)")
