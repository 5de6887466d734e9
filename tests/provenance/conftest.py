"""Fixtures: a package with an import graph, and the repository of a finished study."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .studies import build_study, write


@pytest.fixture
def package(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Write a package called anatomy from {relative file: source} and return the folder that holds it."""

    def build(sources: dict[str, str]) -> Path:
        for name, text in sources.items():
            write(tmp_path / "package" / "anatomy" / name, text)
        return tmp_path / "package"

    return build


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository of the finished study `toy`, entered."""
    root = tmp_path / "repository"
    root.mkdir()
    monkeypatch.chdir(root)
    build_study()
    return root
