"""Reading and replacing activations, by hooks that undo themselves."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from anatomy.models.adapters import adapter_of
from anatomy.sites import Site

# (module input, module output) -> new output, all [batch, position, width]; for a head: (z, z) -> new z of that head.
Edit = Callable[[Tensor, Tensor], Tensor]


class SilentEditError(RuntimeError):
    """An edit was installed and never ran: the model was not called, or calls its module in another way."""


@contextmanager
def edited(model: PreTrainedModel, edits: Mapping[Site, Edit]) -> Iterator[PreTrainedModel]:
    """Within the context the activations of the given sites are what the edits return.

    The hooks go away on leaving, also on an exception.

    Raises:
        ArtifactError: the model's architecture has no adapter.
        IndexError: the model has no such layer or head.
        SilentEditError: an edit never ran. An edit that silently does nothing would look like a module without effect.
    """
    ran = dict.fromkeys(edits, False)
    adapter = adapter_of(model)

    def output_hook(site: Site, edit: Edit) -> Callable:
        def hook(_: nn.Module, args: tuple, kwargs: dict, output: Tensor | tuple) -> Tensor | tuple:
            ran[site] = True
            x = args[0] if args else kwargs["hidden_states"]
            if isinstance(output, tuple):
                return (edit(x, output[0]), *output[1:])
            return edit(x, output)

        return hook

    def head_hook(site: Site, edit: Edit) -> Callable:
        if site.head is None or site.head not in range(adapter.heads):  # a slice behind the last would be empty
            raise IndexError(f"{site}: the model has heads 0 to {adapter.heads - 1}")
        own = slice(site.head * adapter.head_width, (site.head + 1) * adapter.head_width)

        def hook(_: nn.Module, args: tuple) -> tuple:
            ran[site] = True
            z = args[0].clone()
            z[..., own] = edit(z[..., own], z[..., own])
            return (z, *args[1:])

        return hook

    with ExitStack() as stack:
        for site, edit in edits.items():
            target = adapter.module(site.layer, site.part)
            if site.part == "head":
                handle = target.register_forward_pre_hook(head_hook(site, edit))
            else:
                handle = target.register_forward_hook(output_hook(site, edit), with_kwargs=True)
            stack.callback(handle.remove)
        yield model
    if silent := [str(site) for site, done in ran.items() if not done]:
        raise SilentEditError(f"the edit of {', '.join(silent)} never ran")


def record(
    model: PreTrainedModel, ids: Int[Tensor, "batch position"], sites: Iterable[Site]
) -> dict[Site, Float[Tensor, "batch position width"]]:
    """Activations of the sites in one pass: module outputs, and for heads the input of the output projection."""
    seen: dict[Site, Tensor] = {}

    def keep(site: Site) -> Edit:
        def edit(_: Tensor, output: Tensor) -> Tensor:
            seen[site] = output.detach().clone()
            return output

        return edit

    with torch.no_grad(), edited(model, {site: keep(site) for site in sites}):
        model(ids)
    return seen


def next_token_logits(
    model: PreTrainedModel, ids: Int[Tensor, "batch position"], edits: Mapping[Site, Edit] | None = None
) -> Float[Tensor, "batch vocabulary"]:
    """Logits after the last position, under the edits."""
    with torch.no_grad(), edited(model, edits or {}):
        return model(ids, logits_to_keep=1).logits[:, -1]


def replace_with(value: Float[Tensor, "*position width"]) -> Edit:
    """Replace an output by a constant or by activations of another pass (they broadcast over the batch)."""

    def edit(_: Tensor, output: Tensor) -> Tensor:
        return value.to(output).expand_as(output)

    return edit


def at_last(edit: Edit) -> Edit:
    """The edit at the last position alone; it sees nothing else."""

    def own(x: Tensor, output: Tensor) -> Tensor:
        return torch.cat([output[:, :-1], edit(x[:, -1:], output[:, -1:])], dim=1)

    return own


def zero(_: Tensor, output: Tensor) -> Tensor:
    """Replace an output by zero."""
    return torch.zeros_like(output)
