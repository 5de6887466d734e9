"""The short form of `make chaos`: two kills, the full disk, two drivers. The faults stand in tests/chaos."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos import faults

from .conftest import Checkout

# What is made again after a fault: seconds of work, at the end of the graph.
LATE = ("toy/*/measurements", "toy/*/pcp", "tables", "figures", "report")


@pytest.fixture
def unfinished(smoke: Checkout, tmp_path: Path) -> Checkout:
    """The smoke study with its last phases still to be made."""
    place = tmp_path / "checkout"
    shutil.copytree(smoke.path, place, symlinks=True)
    for pattern in LATE:
        for folder in (place / "results/smoke").glob(pattern):
            shutil.rmtree(folder)
    return Checkout(place)


def finishes_as_undisturbed(checkout: Checkout, smoke: Checkout) -> None:
    results = checkout.path / "results/smoke"
    assert faults.broken_promises(checkout.path, results) == []
    code, printed = faults.Run(checkout.path).finish()
    assert code == 0, printed
    assert faults.digests(results) == faults.digests(smoke.path / "results/smoke")


@pytest.mark.long  # the tests of the cluster kill a driver as well
def test_two_kills_at_random_moments(unfinished: Checkout, smoke: Checkout) -> None:
    chance = random.Random(0)
    for _ in range(2):
        faults.kill_at_random(unfinished.path, chance, longest=20)
        assert faults.broken_promises(unfinished.path, unfinished.path / "results/smoke") == []
    finishes_as_undisturbed(unfinished, smoke)


@pytest.mark.skipif(not faults.can_mount(), reason="only root may mount a small file system")
def test_a_full_disk(make_checkout: Callable[[], Checkout]) -> None:
    fresh = make_checkout()
    faults.fill_disk(fresh.path, 256 << 10)
    assert faults.broken_promises(fresh.path, fresh.path / "results/smoke") == []
    done = fresh.anatomy("run", "smoke", "poison", "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_second_driver_is_refused_and_the_first_finishes(unfinished: Checkout, smoke: Checkout) -> None:
    faults.start_two(unfinished.path)
    finishes_as_undisturbed(unfinished, smoke)


def test_a_broken_promise_is_seen(smoke: Checkout, tmp_path: Path) -> None:
    """The check itself: one byte more in a file that a record names."""
    place = tmp_path / "checkout"
    shutil.copytree(smoke.path / "results", place / "results", symlinks=True)
    with (place / "results/smoke/toy/2-sentiment/data/lexicon.json").open("a") as file:
        file.write(" ")
    (told,) = faults.broken_promises(place, place / "results/smoke")
    assert told.endswith("lexicon.json")
