"""Reading and changing what stands at a prompt's last position, where the answer begins, for many conditions at once.

With causal attention a change at the last position leaves all earlier ones as they are. So the prompts are read once,
up to their last token. Then there is one row per condition and prompt, which reads that token under the condition's
changes, and writes on without any.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from anatomy.interventions.cache import growing_cache
from anatomy.interventions.generate import Ids, check_room, go_on, left_padded, split
from anatomy.interventions.hooks import Edit, edited
from anatomy.models.adapters import adapter_of
from anatomy.sites import Site

ROWS = 512  # rows (condition and prompt) in one batch; bounds the memory, changes no result


@dataclass(frozen=True)
class Change:
    """A site's activation a becomes scale * a + shift; `shift` is one vector, or one per prompt."""

    scale: float = 1.0
    shift: Float[Tensor, "*prompt width"] | None = None


# What is changed together in one run; nothing, where it is empty.
Condition = Mapping[Site, Change]
ZERO = Change(scale=0.0)


def read_last(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    sites: Sequence[Site],
    *,
    pad: int,
    what: Literal["output", "input"] = "output",
    rows: int = ROWS,
) -> dict[Site, Float[Tensor, "prompt width"]]:
    """Activations of the sites at every prompt's last position, in the order of the prompts.

    what "input": what the site's module is given (the input of attention and of the MLP is behind the layer norm).

    Raises:
        ValueError: no prompts, or an empty one.
    """
    if not all(map(len, prompts)) or not prompts:
        raise ValueError(f"{len(prompts)} prompts, the shortest of them empty: expected at least 1 token in each")
    seen: dict[Site, list[Tensor]] = {site: [] for site in sites}

    def keep(site: Site) -> Edit:
        def edit(x: Tensor, output: Tensor) -> Tensor:
            seen[site].append((x if what == "input" else output)[:, -1].clone())
            return output

        return edit

    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with torch.no_grad(), edited(model, {site: keep(site) for site in sites}):
        body: Any = model.base_model
        for some in split(order, rows):
            padded = left_padded([prompts[i] for i in some], pad, model.device)
            body(padded.ids, attention_mask=padded.mask, position_ids=padded.places, use_cache=False)
    back = torch.tensor(order).argsort().to(model.device)
    return {site: torch.cat(parts)[back] for site, parts in seen.items()}


def changed_continuations(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    conditions: Sequence[Condition],
    *,
    new_tokens: int,
    pad: int,
    rows: int = ROWS,
) -> list[list[list[int]]]:
    """For every condition: the greedy continuation of every prompt, without the end-of-text token.

    The conditions' changes hold at the prompt's last position, while the prompt is read, and not while the text is
    written. At most `rows` rows (condition and prompt) are in one batch.

    Equal to greedy(model, prompts, last_edits=...), condition by condition (a test).

    Raises:
        ArtifactError: the model's architecture has no adapter.
        ValueError: a prompt of less than two tokens or without room, or a shift that is not one vector of the site's
            width, or one per prompt.
    """
    adapter = adapter_of(model)
    check_room(model, prompts, adapter.positions)
    if any(len(prompt) < 2 for prompt in prompts):
        raise ValueError("a prompt of 1 token: expected at least 2, of which all but the last are read once")
    for condition in conditions:
        for site, change in condition.items():
            width = adapter.width if site.head is None else adapter.head_width
            if change.shift is not None and tuple(change.shift.shape) not in ((width,), (len(prompts), width)):
                raise ValueError(
                    f"{site}: a shift of shape {tuple(change.shift.shape)}; expected ({width},) "
                    f"or ({len(prompts)}, {width})"
                )
    found: list[list[list[int]]] = [[[] for _ in prompts] for _ in conditions]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with torch.no_grad():
        for some in split(order, rows):
            asked = _Asked(model, [prompts[i] for i in some], pad)
            for group in split(range(len(conditions)), max(1, rows // len(some))):
                texts = asked.write(_edits(model, [conditions[c] for c in group], some), len(group), new_tokens)
                for number, text in enumerate(texts):
                    found[group[number // len(some)]][some[number % len(some)]] = text
    return found


class _Asked:
    """Prompts, read up to their last token."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Ids], pad: int) -> None:
        before = left_padded([prompt[:-1] for prompt in prompts], pad, model.device)
        self.model, self.cache = model, growing_cache(model.config)
        body: Any = model.base_model
        body(
            before.ids,
            attention_mask=before.mask,
            position_ids=before.places,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.mask = torch.cat([before.mask, torch.ones_like(before.mask[:, :1])], dim=1)
        self.last = torch.tensor([[prompt[-1]] for prompt in prompts], device=model.device)

    def write(self, edits: Mapping[Site, Edit], times: int, new_tokens: int) -> list[list[int]]:
        """Continuations of as many copies of the prompts, the edits on at the last position alone."""
        cache = growing_cache(self.model.config)
        layers: list[Any] = self.cache.layers
        for number, layer in enumerate(layers):
            cache.update(layer.keys.repeat(times, 1, 1, 1), layer.values.repeat(times, 1, 1, 1), number)
        mask = self.mask.repeat(times, 1)
        with edited(self.model, edits):
            logits = self.model(
                self.last.repeat(times, 1),
                attention_mask=mask,
                position_ids=mask.sum(1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        return go_on(self.model, logits, cache, mask, adapter_of(self.model).positions, new_tokens=new_tokens)


def _edits(model: PreTrainedModel, conditions: Sequence[Condition], some: Sequence[int]) -> dict[Site, Edit]:
    """One edit per site that any condition changes; rows of other conditions keep their value, to the bit."""
    adapter = adapter_of(model)

    def edit(site: Site) -> Edit:
        width = adapter.width if site.head is None else adapter.head_width
        scale = torch.ones(len(conditions), len(some), 1)
        shift = torch.zeros(len(conditions), len(some), width, dtype=model.dtype)
        for c, condition in enumerate(conditions):
            change = condition.get(site, Change())
            scale[c] = change.scale
            if change.shift is not None:
                shift[c] = (change.shift if change.shift.ndim == 1 else change.shift[list(some)]).to(shift)
        scale, shift = scale.flatten(0, 1)[:, None].to(model.device), shift.flatten(0, 1)[:, None].to(model.device)
        return lambda _, output: output * scale.to(output) + shift

    return {site: edit(site) for site in sorted({site for condition in conditions for site in condition})}
