"""Faults that a run has to survive, each as a function that does the damage to a checkout and repairs nothing.

After each, the next run must finish with the digests of an undisturbed run, and no file cut short may have been taken
for a result in between: whatever a run record vouches for must have the bytes it says.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from anatomy.provenance.digest import sha256_file
from anatomy.provenance.ledger import render_ledger
from anatomy.spec.read import load_study

# Bytes that every run makes alike; records, logs, executed notebooks and the report hold times.
STABLE = ("**/*.safetensors", "**/*.parquet", "**/factors.json", "tables/*", "figures/*.csv", "claims.csv")


def digests(results: Path) -> dict[str, str]:
    """Path below the results -> SHA-256, of everything that must come out alike."""
    files = {file for pattern in STABLE for file in results.glob(pattern) if "checkpoint" not in file.name}
    return {str(file.relative_to(results)): sha256_file(file) for file in sorted(files)}


def broken_promises(root: Path, results: Path) -> list[str]:
    """Files that a run record names and that are not what it says: none, whatever happened."""
    bad = []
    for record in sorted(results.rglob("*run.json")):
        for group in json.loads(record.read_text(encoding="utf-8"))["outputs"].values():
            for file in group:
                path = root / file["path"]
                # A job that is made again deletes its outputs first, and its record with them or after them.
                if path.exists() and sha256_file(path) != file["sha256"]:
                    bad.append(f"{record.name}: {file['path']}")
    return bad


class Run:
    """`anatomy run` in the background, in a process group of its own."""

    def __init__(self, checkout: Path, *words: str, study: str = "smoke"):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "anatomy.cli", "run", study, *words, "--cores", "2"],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout / "workflow"), "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self) -> tuple[int, str]:
        """Wait for the end: exit code and what was printed."""
        printed, _ = self.process.communicate()
        return self.process.returncode, printed

    def kill(self) -> bool:
        """Kill -9 of the whole group; whether there was anything left to kill."""
        alive = self.process.poll() is None
        if alive:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        return alive


def kill_at_random(checkout: Path, chance: random.Random, longest: float) -> str:
    """Kill -9 at a random moment of the next `longest` seconds."""
    moment = chance.uniform(0.5, longest)
    run = Run(checkout)
    time.sleep(moment)
    return f"killed after {moment:.1f} s" if run.kill() else "had ended before the kill"


def fill_disk(checkout: Path, size: int) -> str:
    """A run whose results lie on a file system of `size` bytes."""
    with tmpfs(checkout / "results", size):
        code, printed = Run(checkout).finish()
        if code == 0:
            raise AssertionError("the disk was never full")
        if "error: disk full: results/" not in printed:
            raise AssertionError(f"nothing says that the disk is full:\n{printed[-2000:]}")
        keep(checkout)
    restore_kept(checkout)
    return "stopped, and said why"


def forbid_writing(checkout: Path) -> str:
    """A run on a file system that was made read-only."""
    with tmpfs(checkout / "results", 400 << 20) as mount:
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        code, printed = Run(checkout).finish()
        if code == 0 or "Traceback" in printed:
            raise AssertionError(f"exit code {code}:\n{printed[-2000:]}")
        subprocess.run(["mount", "-o", "remount,rw", mount], check=True)
        keep(checkout)
    restore_kept(checkout)
    return "stopped, and said why"


def start_two(checkout: Path) -> str:
    """A second driver while the first is at work."""
    lock = checkout / ".snakemake/anatomy.lock"
    lock.unlink(missing_ok=True)  # an earlier run's, which names a process that is gone
    first = Run(checkout)
    wait_for(lambda: lock.exists() and lock.read_text().strip() != "")
    code, printed = Run(checkout).finish()
    if code != 3 or "another run is in progress" not in printed:
        raise AssertionError(f"the second driver ended with {code}:\n{printed[-2000:]}")
    code, printed = first.finish()
    if code:
        raise AssertionError(f"the first driver ended with {code}:\n{printed[-2000:]}")
    return "the second was refused, the first finished"


def set_clock_back(checkout: Path) -> str:
    """What is there was made an hour in the future, as after a clock that was set back."""
    later = time.time() + 3600
    for file in (checkout / "results").rglob("*"):
        os.utime(file, (later, later))
    return "results lie an hour ahead"


def interrupt_archive(checkout: Path, chance: random.Random) -> str:
    """Kill -9 of `anatomy archive` at a random moment."""
    (checkout / "dvc.yaml").write_text(render_ledger(load_study("smoke", checkout)), encoding="utf-8")
    (checkout / "dvc.lock").unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "anatomy.cli", "archive", "smoke"],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout / "workflow")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    moment = chance.uniform(0.5, 6)
    time.sleep(moment)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return f"killed after {moment:.1f} s" if alive else "had ended before the kill"


# ------------------------------------------------------------------------------------------------ tools


def can_mount() -> bool:
    """Whether this process may mount file systems (root on Linux, as a rule; not in every container): tried."""
    if sys.platform != "linux" or shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
        if tried.returncode == 0:
            subprocess.run(["umount", folder], check=True)
    return tried.returncode == 0


@contextmanager
def tmpfs(folder: Path, size: int) -> Iterator[Path]:
    """A file system in memory over `folder`, with what the folder holds."""
    folder.mkdir(exist_ok=True)
    held = folder.with_name(f"{folder.name}.held")
    shutil.copytree(folder, held, symlinks=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        shutil.copytree(held, folder, symlinks=True, dirs_exist_ok=True)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        shutil.rmtree(held)


def keep(checkout: Path) -> None:
    """Put what the mounted folder holds aside, before it goes with its file system."""
    shutil.copytree(checkout / "results", checkout / "results.kept", symlinks=True, dirs_exist_ok=True)


def restore_kept(checkout: Path) -> None:
    """Put it back: the next run finds what the fault left."""
    shutil.rmtree(checkout / "results")
    (checkout / "results.kept").rename(checkout / "results")


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Until it holds, or an AssertionError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited in vain")
        time.sleep(0.05)
