"""A study through a real Slurm of one node: cancelled, drained, preempted, killed, and the same bytes come out.

It is the smoke study's toy arm: what the other arms' jobs ask a cluster for, `anatomy cost` shows (tests/workflow).

`make cluster-test`. Memory limits are not enforced by this Slurm, its GPUs are pretended, and its node is this
machine: docs/cluster.md says what that leaves untried.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from tests.workflow.conftest import ALL_RULES, ARM_RULES, Checkout

from anatomy.commands.cluster import job_prefix
from anatomy.provenance.digest import sha256_file

pytestmark = pytest.mark.cluster

SCRIPTS = Path(__file__).parent
SUBJECTS = ("2-sentiment", "3-sentiment")
STUDY = "queued"
STUDY_FILE = f"extends: smoke\nstudy: {STUDY}\nlanguage: null\ninstruction: null\n"
# Results; not run records and executed notebooks, which hold times, nor what is made from run records.
RESULTS = ("toy/**/*.safetensors", "toy/**/*.parquet", "toy/**/*.json", "tables/*.csv", "figures/*.csv", "claims.csv")


def slurm_says(*command: str) -> str:
    """The answer of a Slurm command."""
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def wait_for(condition: Callable[[], Any], seconds: float = 300) -> Any:
    """What a condition says once it holds."""
    end = time.monotonic() + seconds
    while not (said := condition()):
        assert time.monotonic() < end, f"it did not happen within {seconds} s"
        time.sleep(0.5)
    return said


def digests(checkout: Checkout) -> dict[str, str]:
    """Result -> digest, in the finished study of a checkout."""
    home = checkout.path / "results" / STUDY
    files = {file for pattern in RESULTS for file in home.glob(pattern) if not file.name.endswith("run.json")}
    return {str(file.relative_to(home)): sha256_file(file) for file in files}


class Cluster:
    """A checkout whose study runs through Slurm."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        profile = checkout.path / "profiles/slurm/profile.yaml"
        text = profile.read_text().replace("status-checks: 15", "status-checks: 2").replace("wait: 60", "wait: 10")
        profile.write_text(text)
        # Training at this size ends before a checkpoint is due, and before anyone can cancel it.
        loop = checkout.path / "workflow/anatomy/training/toy.py"
        text = loop.read_text().replace("checkpoint_every_s: float = 20.0", "checkpoint_every_s: float = 0.2")
        slower = text.replace(
            "            report(step + 1, total)\n",
            "            report(step + 1, total)\n            time.sleep(0.1)\n",
        )
        assert slower != text
        loop.write_text(slower)
        (checkout.path / f"config/{STUDY}.yaml").write_text(STUDY_FILE)
        self.prefix = job_prefix(checkout.path)
        self.said = checkout.path / "driver.log"

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        """`anatomy run --profile slurm`, in a session of its own."""
        with self.said.open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "anatomy.cli", "run", STUDY, *words, "--profile", "slurm"],
                cwd=self.checkout.path,
                env=self.checkout.environment(ANATOMY_ACCOUNT="study", **more),
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def queue(self, rule: str = "", state: str = "") -> dict[str, str]:
        """Slurm job -> state, of this checkout's jobs in the queue."""
        lines = slurm_says("squeue", "--noheader", "--format", "%i|%j|%T|%k").splitlines()
        jobs = [line.split("|", 3) for line in lines]
        return {
            number: now
            for number, name, now, comment in jobs
            if name.startswith(self.prefix) and comment.startswith(f"rule_{rule}") and now.startswith(state)
        }

    def past(self, *columns: str) -> list[list[str]]:
        """Accounting of this checkout's jobs, oldest first: the named columns."""
        asked = ("--format", ",".join(("jobname%80", *columns)))
        options = ("--allocations", "--noheader", "--parsable2", "--duplicates", "--starttime", "now-2days")
        lines = slurm_says("sacct", *options, *asked).splitlines()
        return [line.split("|")[1:] for line in lines if line.startswith(self.prefix)]

    def numbers(self) -> set[str]:
        """Numbers of all jobs so far; accounting hears of a new one a little late."""
        return {job for (job,) in self.past("jobid")} | self.queue().keys()

    def checkpointed(self) -> tuple[str, str] | None:
        """A job that trains clean models and has a checkpoint, and its subject."""
        for subject in SUBJECTS:
            jobs = self.queue(f"train_clean_wildcards_{subject}", "RUNNING")
            if jobs and self.checkpoint(subject).exists():
                return next(iter(jobs)), subject
        return None

    def checkpoint(self, subject: str) -> Path:
        return self.checkout.path / f"results/{STUDY}/toy/{subject}/clean/checkpoint.safetensors"

    def log(self, rule: str, subject: str) -> Path:
        return self.checkout.path / f"results/{STUDY}/logs/{subject}/{rule}.log"

    def first_step(self, rule: str, subject: str) -> int | None:
        """The step of which a job that trains told first."""
        log = self.log(rule, subject)
        told = re.search(r"^progress: (\d+)/", log.read_text(), re.MULTILINE) if log.exists() else None
        return int(told[1]) if told else None

    def training(self, rule: str) -> bool:
        """Whether a job of the rule runs and has said how far it is."""
        return bool(self.queue(rule, "RUNNING")) and any(self.first_step(rule, subject) for subject in SUBJECTS)


@pytest.fixture(scope="module")
def cluster(slurm: None, make_checkout: Callable[[], Checkout]) -> Iterator[Cluster]:
    """A checkout, and no job of it left in the queue afterwards."""
    made = Cluster(make_checkout())
    yield made
    if left := list(made.queue()):
        subprocess.run(["scancel", *left], check=False, timeout=60)
    shutil.rmtree(made.checkout.path / ".snakemake/slurm", ignore_errors=True)


@pytest.fixture(scope="module")
def survived(cluster: Cluster) -> Cluster:
    """The study after a cancelled job, a drained node, a killed driver and a job sent back into the queue."""
    node = slurm_says("sinfo", "--noheader", "--format", "%n").splitlines()[0]
    driver = cluster.start()
    try:
        # Cancelled in the middle of training: Snakemake submits it again, with twice the memory.
        cancelled, subject = wait_for(cluster.checkpointed)
        with safe_open(cluster.checkpoint(subject), framework="pt") as file:
            step = file.metadata()["step"]
        slurm_says("scancel", cancelled)
        wait_for(lambda: cancelled not in cluster.queue())
        cluster.log("train_clean", subject).unlink(missing_ok=True)  # what stands there next is the next job's
        # Asked now: a driver that is killed below before it saw this job end makes it anew, from the first step on.
        went_on = wait_for(lambda: cluster.first_step("train_clean", subject))
        # Drained: what is submitted waits. Resumed: it runs.
        slurm_says("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
        try:
            wait_for(lambda: not cluster.queue(state="RUNNING") and not cluster.queue(state="COMPLETING"))
            wait_for(lambda: cluster.queue(state="PENDING"))
            assert driver.poll() is None, cluster.said.read_text()
        finally:
            slurm_says("scontrol", "update", f"NodeName={node}", "State=RESUME")
        # Killed, and its job goes on without it.
        wait_for(lambda: cluster.training("plant_variants"))
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        assert cluster.queue("plant_variants", "RUNNING"), "there was nothing left to stop"
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
    left = cluster.numbers()
    again = cluster.start()
    try:
        # Preempted: back into the queue under the same number, and the driver waits on.
        wait_for(lambda: cluster.queue("plant_variants", "RUNNING").keys() - left)
        requeued = min(cluster.queue("plant_variants", "RUNNING").keys() - left)
        slurm_says("scontrol", "requeue", requeued)
        assert again.wait(timeout=900) == 0, cluster.said.read_text()
    finally:
        if again.poll() is None:
            os.killpg(again.pid, signal.SIGKILL)
    (cluster.checkout.path / "requeued").write_text(requeued)
    (cluster.checkout.path / "cancelled").write_text(f"{cancelled} {step} {went_on}")
    return cluster


def test_up_again_is_no_change(slurm: None) -> None:
    before = slurm_says("scontrol", "show", "config").splitlines()[1:]
    subprocess.run([SCRIPTS / "slurm_up.sh"], check=True, timeout=120, capture_output=True)
    boot = [line for line in before if line.startswith("BOOT_TIME")]
    assert boot and boot[0] in slurm_says("scontrol", "show", "config")


def test_up_refuses_a_configuration_that_is_not_its_own(slurm: None, tmp_path: Path) -> None:
    """The running one is not that of another folder."""
    done = subprocess.run(
        [SCRIPTS / "slurm_up.sh"],
        env={**os.environ, "SLURM_TEST_HOME": str(tmp_path / "other")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "/etc/slurm/slurm.conf exists and is not ours" in done.stderr
    assert not (tmp_path / "other").exists()


def test_the_driver_stopped_what_its_killed_forerunner_left(survived: Cluster) -> None:
    assert "stopped Slurm jobs that an earlier run left in the queue" in survived.said.read_text()
    assert survived.queue() == {}


def test_a_cancelled_job_was_submitted_again_with_twice_the_memory(survived: Cluster) -> None:
    number = (survived.checkout.path / "cancelled").read_text().split()[0]
    jobs = survived.past("jobid", "state", "reqmem", "comment%80")
    ((state, memory, comment),) = [job[1:] for job in jobs if job[0] == number]
    assert state.startswith("CANCELLED") and memory == "3000M"
    assert ["6000M", comment] in [job[2:] for job in jobs]


def test_and_its_training_went_on_from_its_checkpoint(survived: Cluster) -> None:
    _, step, went_on = (survived.checkout.path / "cancelled").read_text().split()
    # Training that began anew would have told of a step that the checkpoint is past.
    assert int(went_on) > int(step) > 0


def test_a_requeued_job_ended_under_the_same_number(survived: Cluster) -> None:
    number = (survived.checkout.path / "requeued").read_text()
    states = [state for job, state in survived.past("jobid", "state") if job == number]
    assert "REQUEUED" in states and states[-1] == "COMPLETED", states


def test_every_job_ran_on_the_cluster(survived: Cluster) -> None:
    rules = ALL_RULES - ARM_RULES
    once = {rule for rule in rules if rule.startswith(("render_", "write_", "judge_"))}
    wanted = {f"rule_{rule}" for rule in once}
    wanted |= {f"rule_{rule}_wildcards_{subject}" for rule in rules - once for subject in SUBJECTS}

    def lacking() -> set[str]:
        return wanted ^ {comment for state, comment in survived.past("state", "comment%80") if state == "COMPLETED"}

    with contextlib.suppress(AssertionError):  # accounting hears of an end a little late
        wait_for(lambda: not lacking(), seconds=30)
    assert not lacking()


def test_the_same_bytes_come_out_as_on_one_machine(survived: Cluster, make_checkout: Callable[[], Checkout]) -> None:
    alone = make_checkout()
    (alone.path / f"config/{STUDY}.yaml").write_text(STUDY_FILE)
    done = alone.anatomy("run", STUDY, "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    here, there = digests(alone), digests(survived.checkout)
    assert len(here) > 60
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []


def test_the_audit_finds_it_intact_and_a_run_on_one_machine_has_nothing_to_do(survived: Cluster) -> None:
    audit = survived.checkout.anatomy("audit", STUDY)
    assert audit.returncode == 0, audit.stdout
    again = survived.checkout.anatomy("run", STUDY)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_gpu_class_gets_a_gpu_and_the_other_rules_none(survived: Cluster) -> None:
    study = survived.checkout.path / f"config/{STUDY}.yaml"
    study.write_text(study.read_text() + "compute: {compute_class: gpu-small}\n")
    target = f"results/{STUDY}/toy/2-sentiment/measurements/mean_ablation.parquet"
    before = sha256_file(survived.checkout.path / target)
    (survived.checkout.path / target).unlink()
    driver = survived.start(target, ANATOMY_GPU_PARTITION="gpu")
    assert driver.wait(timeout=600) == 0, survived.said.read_text()
    jobs = survived.past("comment%80", "partition", "reqmem", "account", "alloctres%80")
    *place, resources = jobs[-1]
    assert place == ["rule_ablate_modules_wildcards_2-sentiment", "gpu", "8000M", "study"]
    assert "gres/gpu=1" in resources
    assert not any("gres/gpu" in job[-1] for job in jobs[:-1])
    assert sha256_file(survived.checkout.path / target) == before
