"""What the checks say of themselves: the tests of the cluster run, or they are said to be left out."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SLURM = Path("/etc/slurm/slurm.conf")  # a link while the tests of the cluster run
CLOSING = "3 passed in 1.00s"
# The unit tests' and the others'; what is told of both together.
TWO = r"1 failed, 3 passed, 2 warnings in 1.50s\n5 passed, 2 skipped, 1 error in 61.00s (0:01:01)"
TOGETHER = "1 failed, 8 passed, 2 warning, 2 skipped, 1 error in 62.50s"


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run_ci(
    root: Path, place: Path, install: str, tests: int = 0, closing: str = CLOSING, **more: str
) -> subprocess.CompletedProcess[str]:
    """`.ci/run` with an installer and a `make` of ours."""
    program(place / "tests/cluster/slurm_install.sh", install)
    program(place / "bin/make", f'echo "make $@"\n[ $1 = lint ] || {{ printf "{closing}\\n"; exit {tests}; }}')
    (place / ".ci").mkdir()
    shutil.copy(root / ".ci/run", place / ".ci/run")
    own = {name: value for name, value in os.environ.items() if name != "CLUSTER"}
    return subprocess.run(
        [place / ".ci/run"],
        env={**own, **more, "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(
    SLURM.is_file() and not SLURM.is_symlink(), reason="looks at this machine's own Slurm, and there is one"
)
@pytest.mark.parametrize(
    "install",
    [
        *("exit 0", "echo 'installed, with a warning' >&2; exit 0"),
        *("echo 'there is no Slurm, and no apt-get' >&2; exit 2", "exit 1"),
    ],
)
@pytest.mark.parametrize("tests", [0, 1])
def test_the_cluster_is_tested_or_said_to_be_left_out(root: Path, tmp_path: Path, install: str, tests: int) -> None:
    done = run_ci(root, tmp_path, install, tests)
    lines = done.stdout.splitlines()
    assert done.returncode == tests and lines[-1] == CLOSING
    if install.endswith("exit 0"):
        assert "make test SELECT=cluster or not long" in lines
        assert "LEFT OUT" not in done.stdout
    else:
        assert lines[-2].startswith("LEFT OUT: the tests of the cluster (tests/cluster) did not run: ")
        assert lines[-2].endswith(
            "there is no Slurm, and no apt-get" if "echo" in install else "slurm_install.sh failed"
        )
        assert "make test SELECT=not cluster and not long" in lines
    assert ("make lint" in lines) == (tests == 0)


def test_the_cluster_may_be_left_out(root: Path, tmp_path: Path) -> None:
    done = run_ci(root, tmp_path, "echo 'never asked for' >&2; exit 2", CLUSTER="0")
    assert done.returncode == 0 and "make test SELECT=not cluster and not long" in done.stdout.splitlines()
    assert "did not run: CLUSTER=0 says so" in done.stdout and "never asked for" not in done.stdout


def test_both_runs_of_pytest_are_added_up(root: Path, tmp_path: Path) -> None:
    done = run_ci(root, tmp_path, "exit 1", tests=1, closing=TWO, CLUSTER="0")
    assert done.returncode == 1 and done.stdout.splitlines()[-1] == TOGETHER
