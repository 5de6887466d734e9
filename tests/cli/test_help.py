"""Help comes at once, and `make` names its commands."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import REPOSITORY, everything


@pytest.mark.parametrize(
    "words", [[], ["run"], ["summary"], ["audit"], ["explain"], ["compare"], ["inspect"], ["schema"]]
)
def test_help_loads_nothing_heavy(words):
    code = (
        "import sys; from anatomy.cli import app\n"
        f"try: app({[*words, '--help']!r})\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'transformers', 'snakemake', 'pandas', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def make(*words: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    """`make ...` with this repository's Makefile in the folder of the test."""
    shutil.copy(REPOSITORY / "Makefile", "Makefile")
    # Tests may themselves run below make, which hands its variables down.
    env = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "STUDY"}}
    return subprocess.run(["make", *words], input=answer, env=env, capture_output=True, text=True, check=False)


def test_make_help_lists_every_command(repository):
    result = make()
    assert result.returncode == 0
    commands = {"help", "reproduce", "test", "lint", "bench", "archive", "restore", "audit", "clean"}
    assert commands <= {line.split()[0] for line in result.stdout.splitlines()[1:]}


def test_make_names_the_python_it_needs(repository):
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, name)
    result = make("venv", "PYTHON=/bin/false")
    assert result.returncode == 2
    assert "no Python of version 3.11 or newer" in result.stderr and "make PYTHON=" in result.stderr
    assert not Path(".venv").exists()


@pytest.mark.parametrize("study", ["", "..", "../small", "small/", "."])
def test_make_clean_takes_only_the_name_of_a_study(repository, study):
    before = everything(repository)
    result = make("clean", f"STUDY={study}", "YES=1")
    assert result.returncode == 2
    assert "is no study's name" in result.stderr
    assert everything(repository) == before | {"Makefile": (REPOSITORY / "Makefile").read_bytes()}


def test_make_clean_asks_first(repository):
    for answer, kept in [("n\n", True), ("", True), ("y\n", False)]:
        result = make("clean", "STUDY=small", answer=answer)
        assert result.returncode == 0
        assert "results/small holds 2 files" in result.stdout
        assert Path("results/small").exists() is kept
    assert Path("results").exists()
