"""The one vocabulary for places in a transformer."""

from dataclasses import dataclass
from typing import Literal

Part = Literal["embed", "attn", "mlp", "head", "resid", "block"]


@dataclass(frozen=True, order=True)
class Site:
    """A place whose activation can be read or replaced. Layers count from 0 here and from 1 in print.

    Parts: `embed` the token and position embedding; `attn` and `mlp` a module's output; `head` one attention head's
    output before the output projection; `resid` the residual stream after the layer, which holds all that is below;
    `block` what the layer itself adds to the stream, its attention's and its MLP's output together.
    """

    layer: int
    part: Part
    head: int | None = None

    def __post_init__(self) -> None:
        if (self.part == "head") != (self.head is not None):
            raise ValueError(f"a head number goes with part 'head' and with no other, got {self.part!r}, {self.head!r}")

    def __str__(self) -> str:
        """As in the papers' tables: "layer 1 mlp", "layer 2 att0"."""
        return f"layer {self.layer + 1} " + (f"att{self.head}" if self.part == "head" else self.part)


def outputs(site: Site) -> list[Site]:
    """The sites with an output of their own that a site is made of: of a block its attention and its MLP."""
    return [Site(site.layer, "attn"), Site(site.layer, "mlp")] if site.part == "block" else [site]


def modules(layers: int) -> list[Site]:
    """Every attention and MLP module, from the bottom up."""
    return [Site(layer, part) for layer in range(layers) for part in ("attn", "mlp")]


def heads(layers: int, per_layer: int) -> list[Site]:
    """Every attention head, from the bottom up."""
    return [Site(layer, "head", head) for layer in range(layers) for head in range(per_layer)]
