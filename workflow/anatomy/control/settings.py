"""What a replaced model writes under many settings of the factors at once."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GPT2LMHeadModel

from anatomy.control.replacement import Replacement
from anatomy.interventions.cache import growing_cache
from anatomy.interventions.generate import ROWS, check_room, distinct, go_on, left_padded
from anatomy.interventions.hooks import Edit, edited
from anatomy.sites import Site


def settings_continuations(
    model: GPT2LMHeadModel,
    replacement: Replacement,
    sigma: Float[Tensor, "setting rank"],
    prompts: Sequence[Sequence[int]],
    *,
    max_length: int,
    pad: int,
    rows: int = ROWS,
) -> list[list[list[int]]]:
    """Greedy continuations of every prompt under every setting: per setting, per prompt.

    Settings and prompts form one batch of at most `rows` rows. Equal to `greedy` under one setting after the other
    (a test); the arguments are those of `greedy`.
    """
    check_room(model, prompts, max_length)
    once = distinct(prompts)
    found: list[list[list[int]]] = []
    padded = left_padded(once, pad, model.device)
    # Rows that leave the batch take their factors with them: a CPU tensor cannot be indexed from a GPU.
    for some in sigma.to(model.device).split(max(1, rows // len(once))):
        times = len(some)
        mask = padded.mask.repeat(times, 1)
        cache = growing_cache(model.config)
        factors = _Factors(replacement, some.repeat_interleave(len(once), dim=0))
        with torch.no_grad(), edited(model, factors.edits()):
            logits = model(
                padded.ids.repeat(times, 1),
                attention_mask=mask,
                position_ids=padded.places.repeat(times, 1),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            written = go_on(model, logits, cache, mask, max_length, stay=factors.stay)
        for start in range(0, len(written), len(once)):
            own = dict(zip(once, written[start : start + len(once)], strict=True))
            found.append([list(own[tuple(prompt)]) for prompt in prompts])
    return found


class _Factors:
    """The factors of each row of the batch."""

    def __init__(self, replacement: Replacement, sigma: Float[Tensor, "row rank"]) -> None:
        self.replacement, self.sigma = replacement, sigma

    def stay(self, rows: Int[Tensor, " row"]) -> None:
        """The other rows have left the batch."""
        self.sigma = self.sigma[rows]

    def edits(self) -> dict[Site, Edit]:
        """The interventions under the factors of the rows that are in the batch."""
        return {site: self._edit(site) for site in self.replacement.sites}

    def _edit(self, site: Site) -> Edit:
        return lambda x, output: self.replacement.edits(self.sigma)[site](x, output)
