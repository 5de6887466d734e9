"""A stage started as a fork of the warm process is the stage started by itself: same output, same end, same death."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anatomy import start
from anatomy.warm import LIBRARIES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stages are forked on Linux alone")

TELLS = """
import json, os, sys
known = sorted(name for name in ("torch", "transformers", "pandas") if name in sys.modules)
print(json.dumps({"arguments": sys.argv[1:], "name": __name__, "folder": os.getcwd(), "known": known,
                  "own": os.environ.get("PWD"), "stages": [m for m in sys.modules if m.startswith("anatomy.stages")]}))
print("a warning", file=sys.stderr)
"""
ENDS = """
import os, signal, sys
how = sys.argv[1]
if how == "two": sys.exit(2)
if how == "text": sys.exit("a text")
if how == "error": raise ValueError("a mistake")
if how == "signal": os.kill(os.getpid(), signal.SIGKILL)
"""
SLEEPS = """
import os, pathlib, time
pathlib.Path("process").write_text(str(os.getpid()))
while True: time.sleep(0.1)
"""
# A thread that is there when the warm process is ready, as a library might start one.
THREADED = """
import threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
"""

# Stands for a library: the real ones take seconds.
STANDIN = """
def __getattr__(name):
    if name.startswith("__"): raise AttributeError(name)
"""

Started = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of small modules, in which stages are started; the warm processes end with the tests."""
    folder = tmp_path_factory.mktemp("start")
    standins = {name.split(".")[0]: STANDIN for name in LIBRARIES}
    for name, text in ({"tells": TELLS, "ends": ENDS, "sleeps": SLEEPS} | standins).items():
        (folder / f"{name}.py").write_text(text)
    yield folder
    end_warm_processes(folder)


def end_warm_processes(folder: Path) -> None:
    """Kill the warm processes that were started in a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"anatomy.warm" in (process / "cmdline").read_bytes() and (process / "cwd").resolve() == folder:
                os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture(params=["warm", "cold"])
def started(request: pytest.FixtureRequest, folder: Path) -> Started:
    """Starts a module, warm or cold."""

    def started(module: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        own = {start.VARIABLE: "w"} if request.param == "warm" else {}
        kept = {name: value for name, value in os.environ.items() if name != start.VARIABLE}
        return subprocess.Popen(
            [sys.executable, "-m", "anatomy.start", module, *arguments],
            cwd=folder,
            env={**kept, "OPENBLAS_NUM_THREADS": "1", **own, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    started.warm = request.param == "warm"  # type: ignore[attr-defined]
    return started


def test_a_stage_has_its_own_arguments_folder_and_variables(started: Started, folder: Path) -> None:
    process = started("tells", "--one", "two words", PWD="of this shell")
    out, error = process.communicate()
    told = json.loads(out)
    assert told["arguments"] == ["--one", "two words"]
    assert (told["name"], told["folder"], told["own"]) == ("__main__", str(folder), "of this shell")
    assert told["stages"] == []
    assert (error, process.returncode) == ("a warning\n", 0)
    # The libraries are what it is for; cold, the same module has none.
    assert told["known"] == (["pandas", "torch", "transformers"] if started.warm else [])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [("two", 2, ""), ("text", 1, "a text\n"), ("none", 0, ""), ("signal", -signal.SIGKILL, "")],
)
def test_it_ends_as_the_stage_ended(started: Started, how: str, code: int, words: str) -> None:
    process = started("ends", how)
    assert process.communicate() == ("", words)
    assert process.returncode == code


def test_a_mistake_is_told_with_its_place(started: Started) -> None:
    process = started("ends", "error")
    _, error = process.communicate()
    assert error.endswith("ValueError: a mistake\n")
    assert 'ends.py", line 6' in error
    assert process.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_start_kills_its_stage(started: Started, folder: Path, number: int) -> None:
    (folder / "process").unlink(missing_ok=True)
    process = started("sleeps")
    stage = int(_waited_for(folder / "process"))
    process.send_signal(number)
    assert process.wait() == -number
    for _ in range(100):
        if not _runs(stage):
            return
        time.sleep(0.05)
    raise AssertionError("the stage outlived its job")


def test_the_libraries_themselves_start_no_thread(tmp_path: Path) -> None:
    """Else the warm process would send every job away."""
    (tmp_path / "tells.py").write_text(TELLS)
    environment = {**os.environ, start.VARIABLE: "w", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "anatomy.start", "tells"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["known"] == ["pandas", "torch", "transformers"]
    end_warm_processes(tmp_path)


def test_other_variables_have_another_process(folder: Path) -> None:
    """Libraries read variables when they are imported: a job with others must not be a fork of this process."""
    known = set()
    for threads in ("1", "2", "1"):
        environment = {**os.environ, start.VARIABLE: "w2", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": threads}
        command = [sys.executable, "-m", "anatomy.start", "tells"]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        known.add(len([path for path in (folder / "w2").iterdir() if path.is_socket()]))
    assert known == {1, 2}


def test_where_a_library_starts_a_thread_jobs_are_started_cold(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(THREADED)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, start.VARIABLE: "w3", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-m", "anatomy.start", "tells"]
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["known"] == []


def test_a_socket_left_over_is_replaced(folder: Path) -> None:
    environment = {**os.environ, start.VARIABLE: "w4", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "anatomy.start", "tells"]

    def known() -> list[str]:
        done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)["known"]

    assert known()
    end_warm_processes(folder)
    assert [path for path in (folder / "w4").iterdir() if path.is_socket()]
    assert known()


def _waited_for(path: Path) -> str:
    for _ in range(1200):
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come")


def _runs(process: int) -> bool:
    status = Path(f"/proc/{process}/status")
    try:
        return "State:\tZ" not in status.read_text()
    except FileNotFoundError:
        return False
