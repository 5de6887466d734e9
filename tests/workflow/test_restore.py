"""A finished study goes through a DVC remote into a fresh checkout, and counts as done there."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from anatomy.provenance.ledger import HAZARDOUS, phase_of, render_ledger
from anatomy.spec.read import load_study

from .conftest import Checkout


def dvc(checkout: Checkout, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *words], cwd=checkout.path, check=True, capture_output=True)


def opened(checkout: Checkout, remote: Path) -> Checkout:
    """The checkout with a repository of its own, as DVC wants one, the smoke study's ledger, and the remote."""
    subprocess.run(["git", "init", "-q"], cwd=checkout.path, check=True)
    ledger = render_ledger(load_study("smoke", checkout.path))
    (checkout.path / "dvc.yaml").write_text(ledger, encoding="utf-8")
    dvc(checkout, "remote", "add", "-q", "-d", "store", str(remote))
    return checkout


@pytest.fixture
def restored(smoke: Checkout, make_checkout: Callable[[], Checkout], tmp_path: Path) -> Checkout:
    """A fresh checkout into which the archived smoke study was restored."""
    first = tmp_path / "first"
    shutil.copytree(smoke.path, first, symlinks=True)
    source = opened(Checkout(first), tmp_path / "remote")
    told = source.anatomy("archive", "smoke")
    assert told.returncode == 0, told.stdout + told.stderr
    assert source.stale() == set()  # archiving touched no time stamp
    fresh = opened(make_checkout(), tmp_path / "remote")
    shutil.copy2(first / "dvc.lock", fresh.path)
    shutil.copytree(first / "archive", fresh.path / "archive", ignore=shutil.ignore_patterns("*.gz"))
    told = fresh.anatomy("restore", "smoke")
    assert told.returncode == 0, told.stdout + told.stderr
    return fresh


def test_a_restored_study_counts_as_done_and_keeps_its_hazards_at_home(restored: Checkout, smoke: Checkout) -> None:
    assert restored.stale() == set()
    there = {str(file.relative_to(restored.path)) for file in (restored.path / "results").rglob("*") if file.is_file()}
    assert there and not [path for path in there if phase_of(path) in HAZARDOUS]
    told = restored.anatomy("audit", "smoke")
    assert told.returncode == 0, told.stdout
    assert "were not fetched" in told.stdout and "dvc.lock: holds this manifest" in told.stdout
    assert "restored from an archive" in told.stdout


def test_a_byte_changed_on_the_way_is_found(restored: Checkout) -> None:
    table = next((restored.path / "results/smoke/tables").glob("*.csv"))
    table.write_bytes(table.read_bytes().replace(b"0", b"1", 1))
    told = restored.anatomy("audit", "smoke", "--json")
    assert told.returncode == 1
    found = {finding["path"]: finding["verdict"] for finding in json.loads(told.stdout)["findings"]}
    changed = [path for path, verdict in found.items() if verdict not in ("intact", "withheld")]
    assert changed == [table.relative_to(restored.path).as_posix()] and found[changed[0]] == "changed"
