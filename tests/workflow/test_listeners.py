"""No process of a run listens, nor one of DVC: nobody on the network can speak to them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.listeners import needs_proc, watch

from anatomy.provenance.ledger import render_ledger
from anatomy.spec.read import load_study

from .conftest import Checkout

pytestmark = [pytest.mark.workflow, pytest.mark.long, needs_proc]
SERVER = """
import subprocess, sys
child = "import socket, time; server = socket.create_server(('127.0.0.1', 0)); time.sleep(1)"
subprocess.run([sys.executable, "-c", child])
"""


def test_a_run_and_dvc_do_not_listen(make_checkout: Callable[[], Checkout]) -> None:
    checkout = make_checkout()
    words = [sys.executable, "-m", "anatomy.cli", "run", "smoke", "poison", "--cores", "2"]
    code, found, most = watch(words, checkout.path, checkout.environment())
    assert code == 0, (checkout.path / "watched.log").read_text()
    assert found == set() and most >= 4  # the command, its guard, Snakemake, a job
    subprocess.run(["git", "init", "-q"], cwd=checkout.path, check=True)
    (checkout.path / "dvc.yaml").write_text(render_ledger(load_study("smoke", checkout.path)), encoding="utf-8")
    for words in (["status"], ["commit", "--force", "--no-relink", "poison"]):
        code, found, _ = watch([sys.executable, "-m", "dvc", *words], checkout.path, checkout.environment())
        assert code == 0, (checkout.path / "watched.log").read_text()
        assert found == set()


def test_a_process_below_that_listens_is_seen(tmp_path: Path) -> None:
    code, found, most = watch([sys.executable, "-c", SERVER], tmp_path, os.environ)
    assert (code, found, most) == (0, {"0100007F"}, 2)
