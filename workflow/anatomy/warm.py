"""The warm process of `anatomy.start`: it imports the libraries once, and every stage is a fork of it.

A fork has the libraries in memory and nothing of the study: no stage was imported, no thread started, no number drawn.
It takes the job's own folder, variables, arguments and open files, and runs the stage as `python -m`
does. Between the two stands a keeper, which tells the job how the stage ended and ends it when the job is killed.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

from anatomy.commands.guard import die_with_parent
from anatomy.start import BEGUN, CODE, LENGTH

# What stages import that takes long. A library that is missing is one that no stage can need.
LIBRARIES = {
    "torch": [],
    "transformers": ["GPT2LMHeadModel", "PreTrainedTokenizerFast", "Trainer", "TrainingArguments"],
    "pandas": [],
    "pyarrow.parquet": [],
    "scipy.stats": [],
    "sklearn.linear_model": [],
    "sklearn.decomposition": [],
    "sklearn.feature_extraction.text": [],
    "optuna": [],
    "papermill": [],
    "nbconvert": [],
    "ipykernel.kernelapp": [],
    "matplotlib.pyplot": [],
}


def main() -> None:
    """Serve the listening socket that the command line names; in a fork: run the stage."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets ended keepers by itself
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        for name, parts in LIBRARIES.items():
            with contextlib.suppress(ImportError):
                library = importlib.import_module(name)
                for part in parts:  # transformers imports its parts when they are asked for
                    getattr(library, part)
        gc.collect()
        gc.freeze()  # else every fork would copy all pages at its first collection
        # A fork would lack other threads, and might wait for them.
        alone = len([*Path("/proc/self/task").iterdir()]) == 1
        request = _serve(listener, alone)
    _become(request)


def _serve(listener: socket.socket, able: bool) -> dict[str, Any]:
    """Fork for every connection, or send it away; returns in the forks that are stages."""
    while True:
        connection, _ = listener.accept()
        if able and os.fork() == 0:
            listener.close()
            return _keep(connection)
        connection.close()


def _keep(connection: socket.socket) -> dict[str, Any]:
    """Read what is asked for and fork once more; returns in the stage, and ends with it in the keeper."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    head, files, *_ = socket.recv_fds(connection, LENGTH.size, 3, socket.MSG_WAITALL)
    with connection.makefile("rb") as stream:
        request = json.loads(stream.read(LENGTH.unpack(head)[0]))
    stage = os.fork()
    if stage == 0:
        signal.set_wakeup_fd(-1)
        die_with_parent()
        for used in (told, tell, connection.detach()):
            os.close(used)
        for place, file in enumerate(files):
            os.dup2(file, place)
            os.close(file)
        return request
    for file in files:
        os.close(file)
    connection.sendall(BEGUN)
    ready, _, _ = select.select([connection.fileno(), told], [], [])
    if connection.fileno() in ready:  # whoever asked is gone
        os.kill(stage, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(stage, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(CODE.pack(code))
    os._exit(0)


def _become(request: dict[str, Any]) -> NoReturn:
    """Run the stage in this process, which a moment ago was a fork of the warm one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["variables"])
    sys.argv = [request["module"], *request["arguments"]]
    Path("/proc/self/comm").write_text(request["module"].split(".")[-1][:15])  # what `top` shows
    code = 0
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        code = 1
        traceback.print_exc()
    # As multiprocessing ends a fork: to take apart all the libraries would be longer than many a stage.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
