"""Profiles are found by name or path; jobs that a killed run left in the queue are stopped, and no others."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from anatomy.commands import cluster
from anatomy.commands.cluster import (
    executor_of,
    job_prefix,
    jobs_left_behind,
    profile_path,
    require_slurm,
    stop_jobs_left_behind,
)
from anatomy.commands.run import snakemake_command, usable_cores
from anatomy.spec.errors import SpecError


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two profiles in profiles/ and one elsewhere, entered."""
    for folder, text in {
        "profiles/default": "keep-going: true",
        "profiles/slurm": "executor: slurm",
        "mine": "executor: other",
    }.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "profile.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_profile_is_a_name_or_a_folder(profiles):
    assert profile_path("slurm") == "profiles/slurm"
    assert profile_path("mine") == "mine"
    assert [executor_of(profile_path(name)) for name in ("default", "slurm", "mine")] == ["local", "slurm", "other"]


def test_an_unknown_profile_names_the_known_ones(profiles):
    with pytest.raises(SpecError, match=r"no profiles/slrum/profile\.yaml; expected one of default, slurm, or"):
        profile_path("slrum")


@pytest.mark.parametrize("text", ["a: [", "just words", ""])
def test_a_profile_that_is_no_mapping_is_refused(profiles, text):
    (profiles / "mine/profile.yaml").write_text(text)
    with pytest.raises(SpecError, match=r"mine/profile\.yaml: not a Snakemake profile"):
        executor_of("mine")


def test_on_a_cluster_all_cores_are_no_limit_and_jobs_bear_the_folders_name(profiles):
    assert usable_cores("all", "slurm") is None
    assert usable_cores("4", "slurm") == 4
    command = snakemake_command("s", [], profile="profiles/slurm", executor="slurm", cores=None, dry_run=False)
    assert "--cores" not in command
    assert command[command.index("--slurm-jobname-prefix") + 1] == job_prefix()
    local = snakemake_command("s", [], profile="profiles/default", executor="local", cores=2, dry_run=False)
    assert "--slurm-jobname-prefix" not in local


def test_the_prefix_is_the_folders_own_and_one_the_plugin_takes(tmp_path):
    names = {job_prefix(tmp_path / "a"), job_prefix(tmp_path / "b")}
    assert len(names) == 2
    assert all(name.replace("-", "").isalnum() and len(name) <= 50 for name in names)


def test_without_slurm_it_is_told_before_anything_is_touched(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SpecError, match="sbatch, squeue, scancel is not to be found; start it on a login node"):
        require_slurm()


# --- the queue, pretended -----------------------------------------------------------------------------------


class Queue:
    """Answers squeue and scancel; a cancelled job is seen `lingers` more times."""

    def __init__(self, jobs: dict[str, str], lingers: int = 1) -> None:
        self.jobs, self.lingers = jobs, lingers
        self.cancelled: list[str] = []

    def __call__(self, *command: str) -> str:
        if command[0] == "scancel":
            self.cancelled += command[1:]
            return ""
        if self.cancelled and self.lingers > 0:
            self.lingers -= 1
        elif self.cancelled:
            self.jobs = {job: name for job, name in self.jobs.items() if job not in self.cancelled}
        return "".join(f"{job} {name}\n" for job, name in self.jobs.items())


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Queue]:
    def make(jobs: dict[str, str], lingers: int = 1) -> Queue:
        pretended = Queue(jobs, lingers)
        monkeypatch.setattr(cluster, "_slurm", pretended)
        return pretended

    return make


def test_only_jobs_of_this_folder_are_stopped_and_waited_for(queue):
    pretended = queue(
        {"1": "anatomy-aa_run", "2": "anatomy-bb_run", "3": "other job", "4_2": "anatomy-aa_run"}, lingers=3
    )
    assert stop_jobs_left_behind("anatomy-aa", pause=0.0) == ["1", "4_2"]
    assert pretended.cancelled == ["1", "4_2"]
    assert jobs_left_behind("anatomy-aa") == []
    assert set(pretended.jobs) == {"2", "3"}


def test_an_empty_queue_needs_no_scancel(queue):
    pretended = queue({"2": "anatomy-bb_run"})
    assert stop_jobs_left_behind("anatomy-aa") == []
    assert pretended.cancelled == []


def test_jobs_that_do_not_end_stop_the_new_run(queue):
    queue({"7": "anatomy-aa_run"}, lingers=10**6)
    with pytest.raises(SpecError, match=r"Slurm jobs 7 of an earlier run in this folder do not end"):
        stop_jobs_left_behind("anatomy-aa", patience=0.0, pause=0.0)


def test_a_slurm_that_does_not_answer_is_told(tmp_path, monkeypatch):
    fake = tmp_path / "squeue"
    fake.write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpecError, match=r"squeue: Slurm does not answer \(Unable to contact slurm controller\)"):
        jobs_left_behind("anatomy-aa")


def test_the_slurm_profile_keeps_what_the_default_one_promises(root):
    default, slurm = (
        yaml.safe_load((root / "profiles" / name / "profile.yaml").read_text()) for name in ("default", "slurm")
    )
    assert slurm["executor"] == "slurm" and "executor" not in default
    for key in ("rerun-incomplete", "max-checksum-file-size", "keep-going"):
        assert slurm[key] == default[key]
    assert slurm["latency-wait"] >= default["latency-wait"]
    assert slurm["retries"] > 0 and slurm["slurm-requeue"] and slurm["slurm-keep-successful-logs"]
    assert not str(slurm["slurm-logdir"]).startswith("results")
