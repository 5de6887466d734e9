"""Where an edit reads and writes: a block, its MLP's last matrix, hooks on them that undo themselves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from anatomy.models.adapters import adapter_of


def block(model: PreTrainedModel, layer: int) -> nn.Module:
    """A block of an architecture that has an adapter."""
    return adapter_of(model).module(layer, "resid")


def output_projection(model: PreTrainedModel, layer: int) -> nn.Module:
    """The last matrix of a block's MLP."""
    mlp: Any = adapter_of(model).module(layer, "mlp")
    return cast(nn.Module, mlp.c_proj if model.config.model_type == "gpt2" else mlp.down_proj)


def matrix(model: PreTrainedModel, layer: int) -> Float[Tensor, "width inner"]:
    """The matrix W itself, a view on the weight (GPT-2 keeps it as [inner, width])."""
    weight = cast(Tensor, output_projection(model, layer).weight).data
    return weight.T if model.config.model_type == "gpt2" else weight


@contextmanager
def seen(
    outputs: Mapping[str, nn.Module], inputs: Mapping[str, nn.Module] | None = None
) -> Iterator[dict[str, Tensor]]:
    """What the modules put out (or take in), by the given names, once the modules were called within the context."""
    caught: dict[str, Tensor] = {}
    handles = []
    for name, module in outputs.items():

        def after(_: nn.Module, args: tuple, output: Tensor | tuple, name: str = name) -> None:
            caught[name] = (output[0] if isinstance(output, tuple) else output).detach()

        handles.append(module.register_forward_hook(after))
    for name, module in (inputs or {}).items():

        def before(_: nn.Module, args: tuple, name: str = name) -> None:
            caught[name] = args[0].detach()

        handles.append(module.register_forward_pre_hook(before))
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def added(
    module: nn.Module, row: Int[Tensor, " prompt"], place: Int[Tensor, " prompt"], delta: Float[Tensor, "prompt width"]
) -> Iterator[None]:
    """Within the context a module's output has `delta` on top, in each row at its own place."""

    def hook(_: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
        own = output[0] if isinstance(output, tuple) else output
        own = own.index_put((row, place), delta.to(own), accumulate=True)
        return (own, *output[1:]) if isinstance(output, tuple) else own

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
