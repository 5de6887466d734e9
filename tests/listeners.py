"""Who waits for calls from a network: TCP sockets in the state "listen", as Linux tells of them in /proc."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import pytest

# A text, as it is run by a kernel too: addresses (hexadecimal) at which a process waits for others.
LISTENERS = """
import os
def listeners(processes):
    own = set()
    for pid in processes:
        try:
            handles = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for handle in handles:
            try:
                own.add(os.readlink(f"/proc/{pid}/fd/{handle}"))
            except OSError:
                continue
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for words in map(str.split, open(table).read().splitlines()[1:]):
            if words[3] == "0A" and f"socket:[{words[9]}]" in own:
                found.append(words[1].split(":")[0])
    return found
"""
needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux says in /proc who listens")
PAUSE = 0.05  # seconds between two looks


def listeners(processes: Sequence[int]) -> list[str]:
    """The addresses at which some processes wait for others."""
    names: dict = {}
    exec(LISTENERS, names)
    return names["listeners"](processes)


def watch(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, set[str], int]:
    """Run a command; its exit code, where any process below it ever waited for others, and how many it had at most."""
    found: set[str] = set()
    most = 0
    with (folder / "watched.log").open("w") as log:
        process = psutil.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            try:
                below = [process.pid, *(child.pid for child in process.children(recursive=True))]
            except psutil.NoSuchProcess:
                break
            most = max(most, len(below))
            found |= set(listeners(below))
            try:
                process.wait(PAUSE)
            except psutil.TimeoutExpired:
                continue
    return process.wait(), found, most
