"""One run at a time in a folder, and no job that outlives its run.

A run is this process, Snakemake below it, and the jobs below that. Two things must hold however it ends,
kill -9 included: the next run can start, and no job of the old one is still writing. Results are safe in any
case: a stage writes to a name of its own and renames at its end (`provenance.digest.atomic_path`), so that a
job cut short leaves no result, and Snakemake makes it again.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TextIO

LOCK = Path(".snakemake/anatomy.lock")
GRACE = 20  # seconds between the request to stop and the end of patience
PR_SET_PDEATHSIG = 1  # linux/prctl.h

# Leads the process group of Snakemake and its jobs. Standard input is a pipe that only the driver holds open:
# where it ends, the driver is gone, of whatever cause, and the group with the guard in it is killed. (Linux
# can send a signal at a parent's death, but to its children only, not to the jobs below Snakemake.)
GUARD = ["/bin/sh", "-c", "trap '' INT TERM HUP QUIT TSTP; while read -r _; do :; done; kill -KILL 0"]


class Busy(Exception):
    """Another run is in progress in this folder."""


@contextlib.contextmanager
def sole_run(path: Path = LOCK) -> Iterator[TextIO]:
    """Hold the folder's lock. The kernel keeps it, so that it never outlives the processes that share it.

    Raises:
        Busy: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(
                f"another run is in progress in this folder (process {_holder(file)}); wait for it or stop it"
            ) from None
        _note(file, os.getpid())
        yield file


def _note(file: TextIO, *processes: int) -> None:
    """Write down who holds the lock, for the message of whoever meets it."""
    file.seek(0)
    file.truncate()
    file.write(" ".join(map(str, processes)) + "\n")
    file.flush()


def _holder(file: TextIO) -> str:
    """The first process noted that is alive: the driver, or the Snakemake it left behind."""
    file.seek(0)
    noted = [int(word) for word in file.read().split() if word.isdigit()]
    return next((str(process) for process in noted if _is_alive(process)), "unknown")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # alive, and another user's
        return True
    return True


def die_with_parent() -> None:
    """Be killed when the process that started this one ends: `kill -9` of make then ends the run as well.

    Not for runs a person starts, who may log out and let them go on. Linux only; elsewhere it does nothing.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def drive(command: Sequence[str], environment: Mapping[str, str], lock: TextIO | None = None) -> int:
    """Run a command in a process group of its own and return its exit code, as a shell counts it.

    Ctrl-C, SIGTERM and a hang-up become Ctrl-C for the whole group, which is how Snakemake stops at once (its
    answer to SIGTERM is to wait for the running jobs). A second one, or `GRACE` seconds, and the group is
    killed.
    """
    # Whoever holds a copy of the lock's file holds the lock: it is free only when all three are gone.
    kept = [lock.fileno()] if lock else []
    reading, writing = os.pipe()  # neither end is inherited by a child that is not given it
    with subprocess.Popen(GUARD, stdin=reading, process_group=0, pass_fds=kept) as guard:
        os.close(reading)
        try:
            with _passing_signals_on(guard.pid):
                child = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    process_group=guard.pid,
                    pass_fds=kept,
                )
                if lock:
                    _note(lock, os.getpid(), child.pid)
                code = child.wait()
        finally:
            os.killpg(guard.pid, signal.SIGKILL)  # the guard, and any job that Snakemake left behind
            os.close(writing)
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _passing_signals_on(group: int) -> Iterator[None]:
    requests = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal requests
        requests += 1
        os.killpg(group, signal.SIGINT if requests == 1 else signal.SIGKILL)
        signal.alarm(GRACE)

    def ignore(number: int, frame: FrameType | None) -> None:
        """A handler rather than SIG_IGN, which the child would inherit and then not be stopped by."""

    before = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        before[number] = signal.getsignal(number)
        if before[number] != signal.SIG_IGN:
            signal.signal(number, stop)
        elif number == signal.SIGINT:  # a script started this run in the background
            signal.signal(number, ignore)
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
