"""Real runs of a workflow that only sleeps: one at a time, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import ANATOMY, PACKAGE, anatomy_says, everything, start


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def job_process() -> int | None:
    """The shell of the sleeping job, once it is at work."""
    log = Path("results/small/logs/sleeper.log")
    text = log.read_text().strip() if log.exists() else ""
    return int(text) if text else None


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    if sys.platform != "linux":
        return True
    try:  # a zombie, where nobody reaps orphans, is dead enough
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone in between
        return False


@pytest.fixture
def running(repository: Path, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A run whose job is at work, and the job's process."""
    driver = start("run", "small", "--cores", "1", interrupts=getattr(request, "param", signal.SIG_DFL))
    job = None
    try:
        wait_for(lambda: job_process() or driver.poll() is not None)
        job = job_process()
        assert job, driver.communicate()
        yield driver, job
    finally:
        driver.kill()
        driver.communicate()
        if job:
            wait_for(lambda: not is_alive(job))


def test_one_run_at_a_time_and_none_left_behind_by_kill_9(running, repository):
    driver, job = running
    before = everything(repository)
    second = anatomy_says("run", "small")
    assert second.exit_code == 3
    assert second.stderr == (
        f"error: another run is in progress in this folder (process {driver.pid}); wait for it or stop it\n"
    )
    assert everything(repository) == before

    driver.kill()
    driver.wait()
    wait_for(lambda: not is_alive(job), seconds=10)
    Path("results/small/logs/sleeper.log").unlink()
    third = start("run", "small", "--cores", "1")  # nothing has to be unlocked by hand
    try:
        wait_for(lambda: job_process() or third.poll() is not None)
        assert third.poll() is None, third.communicate()
    finally:
        third.kill()
        third.communicate()


# A script that starts a run in the background has it ignore SIGINT; SIGTERM must still stop all of it.
@pytest.mark.parametrize(
    ("running", "number"),
    [(signal.SIG_DFL, signal.SIGINT), (signal.SIG_DFL, signal.SIGTERM), (signal.SIG_IGN, signal.SIGTERM)],
    indirect=["running"],
)
def test_a_request_to_stop_ends_the_jobs_too(running, number):
    driver, job = running
    driver.send_signal(number)
    _, said = driver.communicate(timeout=30)
    assert driver.returncode == 1
    assert "the same command continues from here" in said
    assert not is_alive(job)
    assert not Path("results/small/out.txt").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_kill_9_of_make_ends_the_run(repository):
    command = [*ANATOMY, "run", "small", "--cores", "1", "--with-parent"]
    parent = subprocess.Popen([sys.executable, "-c", f"import subprocess; subprocess.run({command})"], env=PACKAGE)
    try:
        wait_for(lambda: job_process() or parent.poll() is not None)
        job = job_process()
        assert job
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not is_alive(job), seconds=10)
