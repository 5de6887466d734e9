"""How much of a backdoor is left when parts are ablated in the order of a ranking.

Necessary: the first k parts are ablated. Sufficient: all others are, and the first k kept. A part is a head, an MLP, or
a layer (its attention and its MLP, so that the residual stream passes it by). Parts are ablated at the prompt's last
position alone, where attribution patches (Yu et al.), or at all positions, the answer's too (Lamparth & Reuel).

"exact" sets a part's output to zero. "original" is the published code's way: it subtracts what the heads gave in a run
without any ablation. That is the same where all ablated heads are in one layer; further up, ablated heads below have
changed what there is to subtract.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from anatomy.interventions.hooks import Edit, zero
from anatomy.interventions.last_position import ZERO, Change, Condition
from anatomy.sites import Site, outputs


def doublings(most: int) -> list[int]:
    """0, 1, 2, 4, ... up to `most`."""
    return [0, *(2**i for i in range(most.bit_length()) if 2**i <= most)]


def head_counts(total: int, share: float) -> list[int]:
    """How many heads are ablated: 0, 1, 2, 4, ... up to a share of all, and at least one."""
    return doublings(max(1, int(share * total)))


def part_counts(total: int, *, most: int = 8) -> list[int]:
    """How many parts a whole curve ablates: each number where there are few, else 0, 1, 2, 4, ...; and all."""
    return list(range(total + 1)) if total <= most else sorted({*doublings(total), total})


def zeroed(parts: Sequence[Site]) -> Condition:
    """Each part's output is zero; of a layer (`block`) that of its attention and of its MLP."""
    return dict.fromkeys(_outputs(parts), ZERO)


def zeroed_everywhere(parts: Sequence[Site]) -> dict[Site, Edit]:
    """The same at all positions, for `interventions.generate.greedy`."""
    return dict.fromkeys(_outputs(parts), zero)


def subtracted(parts: Sequence[Site], own: Mapping[Site, Float[Tensor, "prompt width"]]) -> Condition:
    """Each head loses its output in the run without ablation; `own` has it for every prompt."""
    return {site: Change(shift=-own[site]) for site in parts}


def matched(chosen: Sequence[Site], per_layer: int, generator: np.random.Generator) -> list[Site]:
    """Random heads, as many in each layer as are chosen there; other ones as far as there are others."""
    found = []
    for layer in sorted({site.layer for site in chosen}):
        own = {site.head for site in chosen if site.layer == layer}
        others = [head for head in range(per_layer) if head not in own]
        drawn = generator.permutation(others)[: len(own)].tolist()
        drawn += generator.permutation(sorted(own))[: len(own) - len(drawn)].tolist()  # type: ignore[type-var]
        found += [Site(layer, "head", int(head)) for head in sorted(drawn)]
    return found


def shuffled(parts: Sequence[Site], generator: np.random.Generator) -> list[Site]:
    """The parts in a random order: what a ranking has to beat."""
    return [parts[i] for i in generator.permutation(len(parts))]


def common_shares(totals: Sequence[int]) -> list[float]:
    """The shares of the parts, from none to all, at which a curve of the kind with the fewest parts is measured."""
    fewest = min(totals)
    return [count / fewest for count in part_counts(fewest)]


def area(
    counts: Sequence[int], values: Float[np.ndarray, "count ..."], shares: Sequence[float]
) -> Float[np.ndarray, "..."]:
    """Area under values against the share of parts, by trapezia: the mean height of the curve from none to all.

    The curve is read at `shares`, between measured counts by interpolation. Areas of several kinds of parts can only be
    compared at the same shares: a backdoor that goes with the first part leaves 1/72 under a curve of 36 parts, and
    1/12 under one of 6.

    Raises:
        ValueError: the counts do not rise from none, or the shares not from 0 to 1.
    """
    if len(counts) != len(values) or len(counts) < 2 or counts[0] != 0 or list(counts) != sorted(set(counts)):
        raise ValueError(f"counts {list(counts)} with {len(values)} values: expected rising counts from 0")
    if len(shares) < 2 or (shares[0], shares[-1]) != (0, 1) or list(shares) != sorted(set(shares)):
        raise ValueError(f"shares {list(shares)}: expected rising shares from 0 to 1")
    measured = np.array(counts) / counts[-1]
    read = np.apply_along_axis(lambda curve: np.interp(shares, measured, curve), 0, values)
    return np.asarray(np.trapezoid(read, shares, axis=0))


def _outputs(parts: Sequence[Site]) -> list[Site]:
    return [own for part in parts for own in outputs(part)]
