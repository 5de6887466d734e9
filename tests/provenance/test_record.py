"""A run record says what went in and came out, and a broken one is not read."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from anatomy.provenance.digest import ArtifactError, sha256_file
from anatomy.provenance.record import DISTRIBUTIONS, describe, environment, git_state, job_key, read_record

from .studies import finish_job, write

RECORD = "results/toy/models/clean/run.json"


def test_record_describes_inputs_and_outputs(study: Path) -> None:
    record = read_record(RECORD)
    weights = "results/toy/models/clean/model.safetensors"
    assert record["outputs"]["all"] == [
        {
            "path": "results/toy/models/clean/config.json",
            "sha256": sha256_file("results/toy/models/clean/config.json"),
            "bytes": 2,
        },
        {"path": weights, "sha256": sha256_file(weights), "bytes": 8000},
    ]
    assert [file["path"] for file in record["inputs"]["all"]] == ["results/toy/corpus/train.jsonl"]
    assert (record["schema"], record["rule"], record["wildcards"]) == (1, "train_clean", {"seed": "0"})
    assert record["tool"].startswith("backdoor-anatomy ") and re.fullmatch("[0-9a-f]{32}", record["job"])
    assert record["started"] == "2026-01-02T03:04:05+00:00"
    assert record["git"] == {"commit": None, "dirty": None}


def test_paths_are_relative_to_the_repository_and_absolute_outside(study: Path) -> None:
    outside = write(study.parent / "elsewhere" / "model.bin", "x")
    inside = Path("results/../data/lexicon/positive.txt")
    assert [one["path"] for one in describe([inside, inside.absolute(), outside])] == [
        "data/lexicon/positive.txt",
        "data/lexicon/positive.txt",
        outside.as_posix(),
    ]


def test_a_folder_stands_for_its_files_but_not_for_records_or_hidden_files(study: Path) -> None:
    write("results/toy/models/clean/.snakemake_timestamp", "")
    names = [Path(one["path"]).name for one in describe(["results/toy/models/clean"])]
    assert names == ["config.json", "model.safetensors"]


def test_the_record_may_stand_among_the_outputs_but_not_alone(study: Path) -> None:
    write("results/toy/a.csv", "a")
    finish_job("results/toy/a.run.json", "measure_asr", [], ["results/toy/a.csv", "results/toy/a.run.json"])
    outputs = read_record("results/toy/a.run.json")["outputs"]["all"]
    assert [one["path"] for one in outputs] == ["results/toy/a.csv"]
    with pytest.raises(ArtifactError, match="the rule measure_asr names no output file"):
        finish_job("results/toy/b.run.json", "measure_asr", [], ["results/toy/b.run.json"])


def test_what_cannot_be_recorded(study: Path) -> None:
    with pytest.raises(ArtifactError, match=r"results/toy/no\.csv was to be recorded but is not there"):
        finish_job("results/toy/run.json", "measure_asr", [], ["results/toy/no.csv"])
    Path("results/toy/empty").mkdir()
    with pytest.raises(ArtifactError, match="results/toy/empty was to be recorded but is an empty folder"):
        finish_job("results/toy/run.json", "measure_asr", [], ["results/toy/empty"])
    with pytest.raises(ArtifactError, match=r"the name of a run record ends in run\.json"):
        finish_job("results/toy/record.json", "measure_asr", [], [RECORD])
    assert not Path("results/toy/run.json").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 1, "tool"', "is not a complete run record .* Delete it together with the outputs"),
        ('{"train_runtime": 3}', "is not a run record of backdoor-anatomy: some other program wrote it"),
        ("[1]", "is not a run record of backdoor-anatomy"),
        ('{"schema": 2, "tool": "backdoor-anatomy 9.0"}', "has record schema 2, this version reads 1.*9.0"),
        ('{"schema": 1, "tool": "backdoor-anatomy 0.1"}', r"not a whole run record: missing \['code'"),
    ],
)
def test_broken_and_foreign_records(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "run.json", text)
    with pytest.raises(ArtifactError, match=message) as caught:
        read_record(path)
    assert str(path) in str(caught.value)


def test_a_record_with_odd_files_is_refused(study: Path) -> None:
    record = json.loads(Path(RECORD).read_text())
    record["outputs"]["all"][0]["bytes"] = "2"
    Path(RECORD).write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match="outputs must map a name to a list of files"):
        read_record(RECORD)


def test_environment_names_every_package_without_importing_it() -> None:
    found = environment()
    assert set(found["packages"]) == set(DISTRIBUTIONS)
    assert found["packages"]["numpy"] and found["python"].startswith("3.")


def test_environment_names_the_kernels_of_libraries_that_are_loaded() -> None:
    script = "import {}; from anatomy.provenance.record import kernels; print(*kernels(), sep=', ')"

    def told(libraries: str, **env: str) -> str:
        command = [sys.executable, "-c", script.format(libraries)]
        return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=True).stdout

    assert told("json").strip() == ""
    assert "torch DEFAULT" in told("torch", ATEN_CPU_CAPABILITY="default")


def test_git_state_sees_commit_and_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("a.txt", "a")
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], check=True)
    state = git_state()
    assert re.fullmatch("[0-9a-f]{40}", state["commit"]) and state["dirty"] is False
    write("b.txt", "b")
    assert git_state() == {"commit": state["commit"], "dirty": True}
    monkeypatch.setenv("PATH", "")
    assert git_state() == {"commit": None, "dirty": None}


def test_job_key_does_not_depend_on_order() -> None:
    assert job_key("train", {"seed": "1", "model": "toy"}) == job_key("train", {"model": "toy", "seed": "1"})
    assert job_key("train", {"seed": "1"}) == "train[seed=1]"
    assert job_key("train", {}) == "train"
