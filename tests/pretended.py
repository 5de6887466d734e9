"""A GPU that is only pretended: tensors compute on the CPU, and those on the other device are told apart by a label.

torch's `meta` device does not serve: it takes CPU tensors in matrix products and as indices, and nothing can be read
from it. Here everything runs, generation included, and what a GPU refuses is refused:

    with pretended_gpu():
        model.to("cuda")

The label belongs to a storage, so that views and changes in place share it. Not pretended: kernels that a GPU lacks,
random streams, rounding.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
MIXED = "Expected all tensors to be on the same device"
# The operators that take tensors of two devices: copies, and a GPU's tensor at indices on the CPU.
COPIES = {"aten::copy_", "aten::_to_copy"}
INDEXING = {"aten::index", "aten::index_put_", "aten::index_put", "aten::_unsafe_index", "aten::_index_put_impl_"}
LABEL = "pretended_on_gpu"
DEVICE = Tensor.device.__get__  # type: ignore[attr-defined]
ON_GPU = Tensor.is_cuda.__get__  # type: ignore[attr-defined]


def where(x: Tensor) -> torch.device:
    """The device a tensor is said to be on; `meta`, where models are built that are then loaded, stays what it is."""
    real = torch.device("meta") if x.is_meta else CPU
    return GPU if getattr(x.untyped_storage(), LABEL, False) else real


def put(x: Tensor, device: torch.device) -> None:
    """Label a tensor's storage; the label goes with the storage."""
    setattr(x.untyped_storage(), LABEL, device.type == "cuda")


class _Operators(TorchDispatchMode):
    """Refuses operators whose tensors are on two devices; results are where the operands are."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on = {where(x) for x in given if x.ndim}
        name = func._schema.name
        first = where(given[0]) if given else CPU
        if len(on) > 1 and name not in COPIES and not (name in INDEXING and first == GPU):
            raise RuntimeError(f"{MIXED}, but found {', '.join(sorted(map(str, on)))} ({name})")
        if first == CPU and GPU in {where(x) for x in given} and name not in COPIES and on == {CPU}:
            raise RuntimeError(f"{MIXED}, but found a scalar on {GPU} ({name})")
        own = {x.untyped_storage()._cdata for x in given}
        out = func(*args, **kwargs)
        place = first if name in COPIES or name in INDEXING else GPU if GPU in {where(x) for x in given} else CPU
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and x.untyped_storage()._cdata not in own:
                put(x, place)
        return out


class _Calls(TorchFunctionMode):
    """Answers what is asked about devices, and moves tensors."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == DEVICE:
            return where(args[0])
        if func == ON_GPU:
            return where(args[0]) == GPU
        if func in (Tensor.numpy, Tensor.__array__) and where(args[0]) == GPU:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func in (Tensor.cpu, Tensor.cuda):
            return self._moved(args[0], CPU if func is Tensor.cpu else GPU)
        if func is Tensor.to:
            return self._to(*args, **kwargs)
        device = kwargs.get("device")
        if device is not None:
            device = torch.device(device)
            if device.type == "cuda":
                kwargs["device"] = CPU
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        known = {x.untyped_storage()._cdata for x in given}
        out = func(*args, **kwargs)
        fresh = device is not None or func is torch.from_numpy or func is torch.tensor
        if fresh and isinstance(out, Tensor):
            if out.untyped_storage()._cdata in known:
                out = out.clone()
            put(out, device or CPU)
        return out

    def _to(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        device, rest = kwargs.pop("device", None), []
        for arg in args:
            if isinstance(arg, Tensor):
                device = where(arg)
                rest.append(arg.dtype)
            elif isinstance(arg, (str, torch.device)):
                device = arg
            elif arg is not None:
                rest.append(arg)
        kept = [arg for arg in rest if isinstance(arg, torch.dtype)]
        if "other" in kwargs:
            other = kwargs.pop("other")
            device, kept = where(other), [other.dtype]
        kwargs.pop("non_blocking", None)
        dtype = kwargs.pop("dtype", None) or (kept[0] if kept else x.dtype)
        out = torch._C.TensorBase.to(x, dtype, **kwargs)
        return out if device is None else self._moved(out, torch.device(device))

    def _moved(self, x: Tensor, device: torch.device) -> Tensor:
        if where(x).type == device.type:
            return x
        if device.type == "meta":
            return torch._C.TensorBase.to(x, device)
        out = x.clone()
        put(out, device)
        return out


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Within the context "cuda" is a device like any other."""
    with _Calls(), _Operators():
        yield
