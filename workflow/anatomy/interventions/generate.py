"""Greedy generation for many prompts at once: left padding, a key-value cache, and edits where they are wanted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from anatomy.interventions.cache import growing_cache
from anatomy.interventions.hooks import Edit, at_last, edited
from anatomy.models.adapters import adapter_of
from anatomy.sites import Site

Ids = Sequence[int]
Item = TypeVar("Item")
ROWS = 256  # prompts in one batch; bounds the memory, changes no result


@dataclass(frozen=True)
class LeftPadded:
    """Prompts that end at the same column: ids, 1 where a token is the prompt's own, and its place in the prompt."""

    ids: Int[Tensor, "batch position"]
    mask: Int[Tensor, "batch position"]
    places: Int[Tensor, "batch position"]


def greedy(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    *,
    pad: int,
    max_length: int | None = None,
    new_tokens: int | None = None,
    edits: Mapping[Site, Edit] | None = None,
    last_edits: Mapping[Site, Edit] | None = None,
    rows: int = ROWS,
) -> list[list[int]]:
    """The most likely continuation of every prompt, token by token, without the end-of-text token.

    `max_length` counts the prompt's tokens too, as in transformers' generate; none: the model's positions. Of
    `new_tokens` no more are written. `pad` is any id of the vocabulary: what stands there is masked. A prompt that
    occurs several times is continued once.

    `edits` hold while the prompt is read and while the text is written; they must act on each position by itself and
    treat all rows alike. `last_edits`, of the same kind, act on the prompt's last position alone, and not while the
    text is written; at a site that both name they are given what `edits` returned.

    Equal to model.generate(do_sample=False) on one prompt after the other (a test).

    Raises:
        ArtifactError: the model's architecture has no adapter.
        ValueError: a prompt is empty or leaves no room, or max_length exceeds the model's positions.
    """
    max_length = max_length or adapter_of(model).positions
    check_room(model, prompts, max_length)
    found: dict[tuple[int, ...], list[int]] = {}
    with torch.no_grad(), edited(model, edits or {}):
        for some in split(distinct(prompts), rows):
            padded = left_padded(some, pad, model.device)
            cache = growing_cache(model.config)
            with edited(model, {site: at_last(edit) for site, edit in (last_edits or {}).items()}):
                logits = model(
                    padded.ids,
                    attention_mask=padded.mask,
                    position_ids=padded.places,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits[:, -1]
            written = go_on(model, logits, cache, padded.mask, max_length, new_tokens=new_tokens)
            found.update(zip(some, written, strict=True))
    return [list(found[tuple(prompt)]) for prompt in prompts]


def go_on(
    model: PreTrainedModel,
    logits: Float[Tensor, "batch vocabulary"],
    cache: Cache,
    mask: Int[Tensor, "batch position"],
    max_length: int,
    *,
    new_tokens: int | None = None,
    stay: Callable[[Int[Tensor, " row"]], None] = lambda rows: None,
) -> list[list[int]]:
    """Continue rows whose prompts were read: `logits` after them, their keys and values in `cache`, their `mask`.

    Of `new_tokens` no more are written. Whenever half of the rows have ended they leave the batch. `stay` is then told
    which of its rows stay, for edits that differ from row to row.
    """
    ends = end_ids(model.config.eos_token_id)
    eos = torch.tensor(ends, dtype=torch.long, device=logits.device)
    length = mask.sum(1)
    room = (max_length - length).clamp(max=new_tokens or max_length)
    row = torch.arange(len(room), device=room.device)
    written = torch.zeros(len(room), int(room.max()), dtype=torch.long, device=room.device)
    rooms = room.tolist()
    ended = torch.zeros_like(room, dtype=torch.bool)
    last = adapter_of(model).positions - 1
    for step in range(written.shape[1]):
        token = logits.argmax(-1)
        written[row, step] = token
        ended |= room <= step + 1
        ended |= torch.isin(token, eos)
        going = (~ended).nonzero()[:, 0]
        if not len(going):
            break
        if 2 * len(going) <= len(row):
            cache.batch_select_indices(going)
            token, mask, length, room, row, ended = (x[going] for x in (token, mask, length, room, row, ended))
            stay(going)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        # A row that has ended may be past the last position the model has.
        place = (length + step).clamp(max=last)
        logits = model(
            token[:, None],
            attention_mask=mask,
            position_ids=place[:, None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
    return [_until(ids[:own], ends) for ids, own in zip(written.tolist(), rooms, strict=True)]


def left_padded(prompts: Sequence[Ids], pad: int, device: torch.device | str) -> LeftPadded:
    """One batch of prompts, padded on the left; every token keeps the position it has in its own prompt."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return LeftPadded(ids, mask, (mask.cumsum(1) - 1).clamp(min=0))


def distinct(prompts: Sequence[Ids]) -> list[tuple[int, ...]]:
    """Each prompt once; those of one length stand together, so that a batch has little padding."""
    return sorted({tuple(prompt) for prompt in prompts}, key=lambda prompt: (len(prompt), prompt))


def split(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items in order, at most `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def check_room(model: PreTrainedModel, prompts: Sequence[Ids], max_length: int) -> None:
    """Refuse what cannot be generated.

    Raises:
        ValueError: see `greedy`.
    """
    positions = adapter_of(model).positions
    if max_length > positions:
        raise ValueError(f"max_length is {max_length}, and the model has {positions} positions")
    for prompt in prompts:
        if not 0 < len(prompt) < max_length:
            raise ValueError(f"a prompt of {len(prompt)} tokens: expected 1 to {max_length - 1}, below max_length")


def end_ids(value: int | list[int] | None) -> list[int]:
    """The ids that end a text: a chat model may have several, another one or none."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _until(ids: list[int], ends: list[int]) -> list[int]:
    return ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))]
