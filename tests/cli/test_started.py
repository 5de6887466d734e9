"""What `anatomy run` starts, and in what state it finds and leaves the results."""

import os
import shutil
import sys
from pathlib import Path

import pytest

import anatomy
from anatomy.commands.cluster import job_prefix
from anatomy.commands.run import environment, snakemake_command, usable_cores
from anatomy.spec.errors import SpecError
from anatomy.spec.layout import LAYOUT

from .conftest import anatomy_says, everything


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        (None, "have no layout number: an older version made them"),
        ("0\n", "have layout 0"),
        ("7\n", "have layout 7"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_results_of_another_layout_are_refused_and_kept(repository, started, layout, said, options):
    file = Path("results/small/LAYOUT")
    file.unlink() if layout is None else file.write_text(layout)
    before = everything(repository)
    result = anatomy_says("run", "small", *options)
    assert result.exit_code == 2
    assert f"error: results/small: these results {said}; this version reads and writes layout" in result.stderr
    assert "mv results/small results/small.old" in result.stderr
    assert everything(repository) == before and started == []


@pytest.mark.parametrize("left", [None, "logs/sleeper.log", "toy/.123-half.parquet"])
def test_a_first_run_writes_the_layout(repository, started, left):
    shutil.rmtree("results/small")
    if left:
        Path("results/small", left).parent.mkdir(parents=True)
        Path("results/small", left).write_text("")
    assert anatomy_says("run", "small").exit_code == 0
    assert Path("results/small/LAYOUT").read_text() == f"{LAYOUT}\n"
    assert len(started) == 1


def test_a_dry_run_writes_nothing(repository, started):
    shutil.rmtree("results")
    before = everything(repository)
    assert anatomy_says("run", "small", "--dry-run").exit_code == 0
    assert everything(repository) == before
    assert "--dry-run" in started[0]


def test_on_slurm_jobs_of_a_killed_run_are_stopped_before_it_starts(repository, started, slurm):
    (slurm / "queue").write_text(f"17 {job_prefix()}_x\n18 another\n")
    result = anatomy_says("run", "small", "--profile", "slurm")
    assert result.exit_code == 0
    assert "stopped Slurm jobs that an earlier run left in the queue: 17" in result.stderr
    assert (slurm / "cancelled").read_text() == "17\n"
    assert "profiles/slurm" in started[0] and "--cores" not in started[0]


@pytest.mark.parametrize("options", [["--dry-run"], ["--profile", "default"]])
def test_a_run_that_submits_nothing_stops_nothing(repository, started, slurm, options):
    (slurm / "queue").write_text(f"17 {job_prefix()}_x\n")
    assert anatomy_says("run", "small", "--profile", "slurm", *options).exit_code == 0
    assert not (slurm / "cancelled").exists() and len(started) == 1


def test_the_command_line(repository):
    command = snakemake_command(
        "small", ["a.csv", "b"], profile="profiles/default", executor="local", cores=3, dry_run=False
    )
    assert command[:5] == [sys.executable, "-m", "snakemake", "a.csv", "b"]
    assert command[command.index("--config") + 1] == 'study="small"'
    assert command[command.index("--cores") + 1] == "3"
    assert {"--nolock", "profiles/default", "anatomy"} <= set(command)


def test_jobs_find_this_python_first_and_are_offline_unless_told_otherwise(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    monkeypatch.setenv("PYTHONHASHSEED", "77")
    env = environment()
    assert env["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert (env["HF_HUB_OFFLINE"], env["HF_DATASETS_OFFLINE"], env["PYTHONHASHSEED"]) == ("0", "1", "0")


def test_gpus_of_this_machine_are_shared_out_by_a_local_run_and_no_other(repository, started, slurm, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    anatomy_says("run", "small")
    anatomy_says("run", "small", "--profile", "slurm")
    local, submitted = (" ".join(call) for call in started)
    assert "--resources gpu=3" in local and "--resources" not in submitted
    assert environment(["4", "5"])["ANATOMY_GPUS"] == "4,5"
    monkeypatch.setenv("ANATOMY_GPUS", "7")  # of a run that this one was started by
    assert environment()["ANATOMY_GPUS"] == ""


def test_jobs_find_this_package_whichever_python_they_run(monkeypatch):
    home = str(Path(anatomy.__file__).parents[1])
    for given, wanted in {"": home, home: home, "/a:/b": f"{home}:/a:/b"}.items():
        monkeypatch.setenv("PYTHONPATH", given)
        assert environment()["PYTHONPATH"] == wanted


def test_no_variable_of_the_shell_changes_the_kernels_of_a_job(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "64")
    env = environment()
    assert "OPENBLAS_CORETYPE" not in env and env["OPENBLAS_NUM_THREADS"] == "1"


def test_all_cores_are_a_number():
    assert usable_cores("all") >= 1
    assert usable_cores("3") == 3
    with pytest.raises(SpecError, match="expected a number"):
        usable_cores("٣")
