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
from torch.utils._pytree import tree_leaves, tree_map_only

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
MIXED = "Expected all tensors to be on the same device"
# The operators that take tensors of two devices: copies, and a GPU's tensor at indices on the CPU.
COPIES = {"aten::copy_", "aten::_to_copy"}
INDEXING = {"aten::index", "aten::index_put_", "aten::index_put", "aten::_unsafe_index", "aten::_index_put_impl_"}
DEVICE = Tensor.device.__get__  # type: ignore[attr-defined]
ON_GPU = Tensor.is_cuda.__get__  # type: ignore[attr-defined]


class _Labels:
    """The storages that are on the GPU. A new storage may have the number of one that is gone: each is labelled."""

    def __init__(self) -> None:
        self.gpu: set[int] = set()

    def of(self, x: Tensor) -> torch.device:
        return GPU if x.untyped_storage()._cdata in self.gpu else CPU

    def put(self, x: Tensor, device: torch.device) -> None:
        (self.gpu.add if device.type == "cuda" else self.gpu.discard)(x.untyped_storage()._cdata)


class _Operators(TorchDispatchMode):
    """Refuses operators whose tensors are on two devices; results are where the operands are."""

    def __init__(self, labels: _Labels) -> None:
        super().__init__()
        self.labels = labels

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on = {self.labels.of(x) for x in given if x.ndim}
        name = func._schema.name
        first = self.labels.of(given[0]) if given else CPU
        if len(on) > 1 and name not in COPIES and not (name in INDEXING and first == GPU):
            raise RuntimeError(f"{MIXED}, but found {', '.join(sorted(map(str, on)))} ({name})")
        if first == CPU and GPU in {self.labels.of(x) for x in given} and name not in COPIES and on == {CPU}:
            raise RuntimeError(f"{MIXED}, but found a scalar on {GPU} ({name})")
        own = {x.untyped_storage()._cdata for x in given}
        out = func(*args, **kwargs)
        place = first if name in COPIES or name in INDEXING else GPU if GPU in {self.labels.of(x) for x in given} else CPU
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and x.untyped_storage()._cdata not in own:
                self.labels.put(x, place)
        return out


class _Calls(TorchFunctionMode):
    """Answers what is asked about devices, and moves tensors."""

    def __init__(self, labels: _Labels) -> None:
        super().__init__()
        self.labels = labels

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == DEVICE:
            return self.labels.of(args[0])
        if func == ON_GPU:
            return self.labels.of(args[0]) == GPU
        if func is Tensor.numpy and self.labels.of(args[0]) == GPU:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func is Tensor.__array__ and self.labels.of(args[0]) == GPU:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func in (Tensor.cpu, Tensor.cuda):
            return self._moved(args[0], CPU if func is Tensor.cpu else GPU)
        if func is Tensor.to:
            return self._to(*args, **kwargs)
        device = kwargs.pop("device", None)
        if device is not None:
            device = torch.device(device)
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        known = {x.untyped_storage()._cdata for x in given}
        out = func(*args, **kwargs)
        fresh = device is not None or func is torch.from_numpy or func is torch.tensor
        if fresh and isinstance(out, Tensor):
            if out.untyped_storage()._cdata in known:
                out = out.clone()
            self.labels.put(out, device or CPU)
        return out

    def _to(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        device, rest = kwargs.pop("device", None), []
        for arg in args:
            if isinstance(arg, Tensor):
                device = self.labels.of(arg)
                rest.append(arg.dtype)
            elif isinstance(arg, (str, torch.device)):
                device = arg
            elif arg is not None:
                rest.append(arg)
        kept = [arg for arg in rest if isinstance(arg, torch.dtype)]
        if "other" in kwargs:
            other = kwargs.pop("other")
            device, kept = self.labels.of(other), [other.dtype]
        kwargs.pop("non_blocking", None)
        dtype = kwargs.pop("dtype", None) or (kept[0] if kept else x.dtype)
        out = torch._C.TensorBase.to(x, dtype, **kwargs)
        return out if device is None else self._moved(out, torch.device(device))

    def _moved(self, x: Tensor, device: torch.device) -> Tensor:
        if self.labels.of(x).type == device.type:
            return x
        out = x.clone()
        self.labels.put(out, device)
        return out


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Within the context "cuda" is a device like any other."""
    labels = _Labels()
    with _Calls(labels), _Operators(labels):
        yield
