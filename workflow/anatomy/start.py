"""Starts a stage: `python -m anatomy.start anatomy.stages.train_clean --rule ...` is `python -m` without `start`.

Where `anatomy run` says so, the stage is a fork of a process that has the libraries already (`anatomy.warm`): to import
torch and transformers takes longer than many a stage. The first job brings that process up; it serves the jobs that
have its environment variables, as libraries read some of these when they are imported. Whatever goes wrong before the
stage begins, it is run as without it. Nothing heavy is imported here.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from anatomy.commands.guard import die_with_parent

# Names the folder of the sockets, one for each set of environment variables. A short path, as a socket's must be.
VARIABLE = "ANATOMY_WARM"
# These differ from shell to shell and from notebook to notebook, and no library of a study reads them.
PASSING = {"_", "SHLVL", "PWD", "OLDPWD", "JPY_PARENT_PID", "PYDEVD_USE_FRAME_EVAL"}
# pyarrow's allocator would start a thread of its own, which a fork would lack.
SINGLE = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
# Answers: the stage is running; then, at its end, its exit code, negative for the signal that ended it.
BEGUN = b"begun"
LENGTH, CODE = struct.Struct("!I"), struct.Struct("!i")


def main() -> NoReturn:
    """Run the module that the command line names, with the rest of the line as its arguments."""
    module, *arguments = sys.argv[1:]
    folder = os.environ.get(VARIABLE)
    code = _served(Path(folder), module, arguments) if folder else None
    if code is None:
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
    if code < 0:
        with contextlib.suppress(OSError):  # of SIGKILL there is no other
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _served(folder: Path, module: str, arguments: list[str]) -> int | None:
    """The exit code of the stage as a fork of the warm process; none: it was not begun."""
    request = {"module": module, "arguments": arguments, "folder": str(Path.cwd()), "variables": dict(os.environ)}
    message = json.dumps(request).encode()
    die_with_parent()
    with contextlib.suppress(OSError), _connected(folder) as server:
        socket.send_fds(server, [LENGTH.pack(len(message))], [0, 1, 2])
        server.sendall(message)
        if server.recv(len(BEGUN)) != BEGUN:
            return None
        # Ctrl-C goes to the stage as well: its answer is waited for. If this process is killed, the stage is, too.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ended = server.recv(CODE.size)
        return CODE.unpack(ended)[0] if len(ended) == CODE.size else 1
    return None


@contextlib.contextmanager
def _connected(folder: Path) -> Iterator[socket.socket]:
    """A connection to the warm process of this environment, which is started where it is not there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name not in PASSING}
    key = hashlib.sha256(json.dumps([sys.executable, kept], sort_keys=True).encode()).hexdigest()[:16]
    path = folder / key
    with (folder / f"{key}.lock").open("w") as lock, socket.socket(socket.AF_UNIX) as server:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            server.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):  # there is none, or it is gone
            _bring_up(path)
            server.connect(str(path))
        fcntl.flock(lock, fcntl.LOCK_UN)
        yield server


def _bring_up(path: Path) -> None:
    """Start a warm process behind a socket that listens already: who connects waits until it is ready."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        quiet = subprocess.DEVNULL
        command = [sys.executable, "-m", "anatomy.warm", str(listener.fileno())]
        # In this job's process group, which ends with the run.
        subprocess.Popen(
            command,
            pass_fds=[listener.fileno()],
            env={**os.environ, **SINGLE},
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
        )


if __name__ == "__main__":
    main()
