"""Study files to spoil."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def raw(root: Path) -> dict[str, Any]:
    """The toy study as plain data, free to change."""
    return yaml.safe_load((root / "config" / "toy.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def changed(raw: dict[str, Any]) -> Callable[[str, Any], dict[str, Any]]:
    """The toy study with one key, named by its path, set to another value."""

    def change(path: str, value: Any) -> dict[str, Any]:
        out = copy.deepcopy(raw)
        *parents, last = path.split(".")
        section = out
        for parent in parents:
            section = section[parent]
        section[last] = value
        return out

    return change


@pytest.fixture
def studies(tmp_path: Path, raw: dict[str, Any]) -> Callable[..., Path]:
    """A repository whose config/ holds the named texts, beside the toy study."""

    def write(**texts: str) -> Path:
        folder = tmp_path / "config"
        folder.mkdir()
        (folder / "toy.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
        for name, text in texts.items():
            (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        return tmp_path

    return write
