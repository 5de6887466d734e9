"""A Slurm for the tests, and the throw-away checkouts of the workflow tests."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.workflow.conftest import make_checkout

__all__ = ["make_checkout"]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave these tests out unless they are asked for by name: they start daemons.

    The option in pyproject.toml says so too, but any other `-m` takes its place.
    """
    if not re.search(r"\bcluster\b", config.option.markexpr):
        items[:] = [item for item in items if HERE not in item.path.parents]


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    """Slurm is up; stopped again at the end unless it was up before."""
    install = subprocess.run([HERE / "slurm_install.sh"], capture_output=True, text=True, timeout=600, check=False)
    assert install.returncode == 0, install.stderr
    was_up = Path("/etc/slurm/slurm.conf").is_symlink()
    up = subprocess.run([HERE / "slurm_up.sh"], capture_output=True, text=True, timeout=300, check=False)
    assert up.returncode == 0, up.stdout + up.stderr
    yield
    if not was_up:
        subprocess.run([HERE / "slurm_down.sh"], timeout=120, check=True)
