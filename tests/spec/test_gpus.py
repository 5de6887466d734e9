"""GPUs of one machine: each job on its own, however the ones before it ended. Names stand in for GPUs."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anatomy.provenance.code import HOME
from anatomy.spec.gpus import SHARED, VISIBLE, parse_listing, take_gpu, usable_gpus

# Takes a GPU, says so, and holds it until it is told to end.
HOLDER = """
import sys
from pathlib import Path
from anatomy.spec.gpus import VISIBLE, take_gpu
import os
slot = take_gpu(folder=Path(sys.argv[1]), pause=0.02)
print(os.environ[VISIBLE], flush=True)
sys.stdin.read()
"""
# Jobs that note when they had which GPU, as stages do that use one.
WORKFLOW = """
rule all:
    default_target: True
    input: expand("results/small/{n}.json", n=range(6))

rule job:
    output: "results/small/{n}.json"
    log: "results/small/logs/{n}.log"
    message: "job {wildcards.n}"
    resources: gpu=1
    shell: "python job.py {output} > {log} 2>&1"
"""
JOB = """
import json, os, sys, time
from anatomy.spec.gpus import take_gpu
slot = take_gpu()
begin = time.monotonic()
time.sleep(1.5)
json.dump([os.environ["CUDA_VISIBLE_DEVICES"], begin, time.monotonic()], open(sys.argv[1], "w"))
"""


def holder(folder: Path, gpus: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        env={**os.environ, "PYTHONPATH": str(HOME), SHARED: gpus},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_each_process_gets_its_own_and_the_next_waits_until_one_is_killed(tmp_path):
    processes = [holder(tmp_path, "GPU-a,GPU-b") for _ in range(2)]
    try:
        assert {said(process) for process in processes} == {"GPU-a", "GPU-b"}
        third = holder(tmp_path, "GPU-a,GPU-b")
        processes.append(third)
        assert said(third) == "waiting for one of 2 GPUs, all taken by other jobs"
        assert third.poll() is None
        processes[1].kill()  # kill -9: nothing of it can tidy up
        processes[1].wait()
        assert said(third) in ("GPU-a", "GPU-b")
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_one_process_takes_one_after_another_until_none_is_left(tmp_path):
    environ = {SHARED: "0,1,2"}
    slots, names = [], []
    try:
        for _ in range(3):
            slots.append(take_gpu(environ, tmp_path))
            names.append(environ[VISIBLE])
    finally:
        for slot in slots:
            assert slot is not None
            os.close(slot)
    assert names == ["0", "1", "2"]


def test_what_two_allocations_call_0_are_two_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    slots = []
    for job in ({}, {"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "8"}):
        slots.append(take_gpu({SHARED: "0", **job}))  # would wait for ever for one that is taken
    for slot in slots:
        os.close(slot)
    assert len(list(tmp_path.iterdir())) == 3


def test_where_no_gpus_are_shared_out_nothing_is_touched(tmp_path):
    for environ in ({}, {SHARED: ""}, {VISIBLE: "3"}):
        before = dict(environ)
        assert take_gpu(environ, tmp_path / "none") is None
        assert environ == before
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("0,1", ["0", "1"]),
        (" GPU-aa , MIG-bb", ["GPU-aa", "MIG-bb"]),
        ("", []),
        ("-1", []),
        ("2,-1,3", ["2"]),
        ("1,1", ["1"]),
    ],
)
def test_what_is_visible_is_what_there_is(visible, names):
    assert usable_gpus({VISIBLE: visible}) == names


@given(st.lists(st.integers(0, 3), max_size=5))
def test_a_gpu_in_parts_is_used_by_its_parts(parts):
    """As `nvidia-smi -L` prints it: a line per GPU, and an indented one per part."""
    lines, wanted = [], []
    for number, count in enumerate(parts):
        lines.append(f"GPU {number}: NVIDIA A100-SXM4-40GB (UUID: GPU-{number}f-4e)")
        lines += [f"  MIG 1g.5gb     Device  {part}: (UUID: MIG-{number}-{part})" for part in range(count)]
        wanted += [f"MIG-{number}-{part}" for part in range(count)] or [f"GPU-{number}f-4e"]
    assert parse_listing("\n".join(lines)) == wanted


@pytest.mark.parametrize("script", ["echo 'GPU 0: H200 (UUID: GPU-1-2)'", "echo 'no driver' >&2; exit 9"])
def test_the_driver_is_asked_where_the_environment_says_nothing(tmp_path, monkeypatch, script):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert usable_gpus({}) == (["GPU-1-2"] if "exit" not in script else [])


def test_a_run_on_two_gpus_has_at_most_two_jobs_at_once_and_never_two_on_one(tmp_path, root):
    """Through Snakemake, on six cores that it is told of."""
    for name in ("config", "profiles", "data/lexicon"):
        shutil.copytree(root / name, tmp_path / name)
    (tmp_path / "Snakefile").write_text(WORKFLOW)
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "config/small.yaml").write_text("extends: smoke\nstudy: small\n")
    locks = tmp_path / "locks"
    locks.mkdir()
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "anatomy.cli", "run", "small", "--cores", "6"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HOME), VISIBLE: "GPU-a,GPU-b", "TMPDIR": str(locks)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = [json.loads((tmp_path / f"results/small/{n}.json").read_text()) for n in range(6)]
    assert {gpu for gpu, _, _ in jobs} == {"GPU-a", "GPU-b"}
    for number, (gpu, start, end) in enumerate(jobs):
        assert begin < start
        for other, begun, ended in jobs[:number]:
            assert gpu != other or end <= begun or ended <= start
    # The limit keeps jobs in the queue: none was started that had to wait.
    assert not [log for log in (tmp_path / "results/small/logs").glob("*.log") if "waiting" in log.read_text()]
