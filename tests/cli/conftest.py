"""A folder like the repository, with a small study; `anatomy` as a function and as a process."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

import anatomy
from anatomy.cli import app
from anatomy.commands import run as run_module
from anatomy.spec.layout import LAYOUT
from anatomy.spec.read import load_study

REPOSITORY = Path(__file__).resolve().parents[2]
ANATOMY = [sys.executable, "-m", "anatomy.cli"]
# A child process, too, takes the package under test.
PACKAGE = {**os.environ, "PYTHONPATH": str(Path(anatomy.__file__).parents[1])}
# One job that takes long, and one line about it, so that a test knows when it is at work.
SLEEPER = """
rule sleeper:
    output: "results/small/out.txt"
    log: "results/small/logs/sleeper.log"
    message: "sleeping"
    shell: "echo $$ > {log}; sleep 60; touch {output}"
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what `anatomy run` reads before it starts a job, a study `small`, and earlier results."""
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    shutil.copytree(REPOSITORY / "data" / "lexicon", tmp_path / "data" / "lexicon")
    shutil.copytree(REPOSITORY / "profiles", tmp_path / "profiles")
    (tmp_path / "Snakefile").write_text(SLEEPER)
    (tmp_path / "config" / "small.yaml").write_text("extends: smoke\nstudy: small\n")
    (tmp_path / "results" / "small").mkdir(parents=True)
    (tmp_path / "results" / "small" / "earlier.csv").write_text("kept\n")
    (tmp_path / "results" / "small" / "LAYOUT").write_text(f"{LAYOUT}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(change: Callable[[dict[str, Any]], None]) -> None:
    """Change the study `small`, written out in full."""
    raw = load_study("small").model_dump(mode="json")
    change(raw)
    Path("config/small.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")


def everything(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def anatomy_says(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def start(*words: str, interrupts: signal.Handlers = signal.SIG_DFL) -> subprocess.Popen[str]:
    """`anatomy ...` as a process; `interrupts` is what SIGINT does at its start."""
    return subprocess.Popen(
        [*ANATOMY, *words],
        env=PACKAGE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, interrupts),
    )


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that would have been run; none is."""
    commands: list[list[str]] = []

    def drive(command: list[str], *_: object) -> int:
        commands.append(command)
        return 0

    monkeypatch.setattr(run_module, "drive", drive)
    return commands


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's commands, pretended: the queue is a file, and scancel empties it."""
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "queue").write_text("")
    for name, script in {
        "sbatch": "exit 1",
        "squeue": f"cat {folder}/queue",
        "scancel": f'echo "$@" > {folder}/cancelled; : > {folder}/queue',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder
