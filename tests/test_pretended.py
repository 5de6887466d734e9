"""The pretended GPU refuses what a GPU refuses, and lets through what it lets through."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.pretended import MIXED, pretended_gpu
from torch import Tensor

Function = Callable[[Tensor, Tensor], object]
FIRST = torch.zeros(2, dtype=torch.long)
REFUSED: dict[str, Function] = {
    "a product": lambda on, off: on @ off.T,
    "a sum": lambda on, off: on + off,
    "a choice": lambda on, off: torch.where(on > 0, on, off),
    "a joint": lambda on, off: torch.cat([off, on]),
    "a change in place": lambda on, off: on.mul_(off),
    "a CPU tensor at places on the GPU": lambda on, off: off[FIRST.to(on.device)],
    "a CPU tensor scaled by a scalar on the GPU": lambda on, off: off * on.sum(),
    "a module of the CPU": lambda on, off: torch.nn.Linear(4, 2)(on),
}
ALLOWED: dict[str, Function] = {
    "moved first": lambda on, off: on + off.to(on),
    "as the model": lambda on, off: on + off.to(on.device),
    "a scalar of the CPU": lambda on, off: on * off.sum(),
    "a GPU's tensor at places on the CPU": lambda on, off: on[FIRST],
    "put in from the CPU": lambda on, off: on.clone().copy_(off),
    "made beside it": lambda on, off: on + torch.ones(4, device=on.device) + on.new_ones(4) + torch.ones_like(on),
    "a module that was moved": lambda on, off: torch.nn.Linear(4, 2).to(on.device)(on),
}


def both(device: str = "cuda") -> tuple[Tensor, Tensor]:
    values = torch.arange(12.0).view(3, 4)
    return values.to(device), values.clone()


@pytest.mark.parametrize("what", REFUSED)
def test_two_devices_in_one_operation_are_refused(what: str) -> None:
    with pretended_gpu(), pytest.raises(RuntimeError, match=MIXED):
        REFUSED[what](*both())


@pytest.mark.parametrize("what", ALLOWED)
def test_what_a_gpu_takes_gives_the_same_and_stays_there(what: str) -> None:
    torch.manual_seed(0)
    expected = ALLOWED[what](*both("cpu"))
    torch.manual_seed(0)
    with pretended_gpu():
        found = ALLOWED[what](*both())
        assert str(found.device) == "cuda:0" and str(found.T.device) == "cuda:0" and found.is_cuda
        assert found.cpu().device.type == "cpu" and found.cpu().tolist() == found.tolist()
    assert torch.equal(found, expected)


def test_numpy_is_given_no_tensor_of_the_gpu() -> None:
    with pretended_gpu():
        on, _ = both()
        for read in (on.numpy, lambda: np.asarray(on)):
            with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
                read()
        assert on.cpu().numpy().sum() == 66


def test_outside_there_is_no_gpu() -> None:
    with pretended_gpu():
        on, off = both()
    assert torch.equal(on + off, 2 * off)
