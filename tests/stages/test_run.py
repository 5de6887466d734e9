"""What all stages share: arguments from the signature, a record at the end, one line for a known error."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from anatomy.metrics.measurement import read_parquet, write_parquet
from anatomy.models.toy import load_state
from anatomy.provenance.digest import ArtifactError, sha256_file
from anatomy.provenance.record import read_record
from anatomy.spec.errors import SpecError
from anatomy.stages._run import In, Ins, Job, Out, Outs, remove_quietly, run

SPEC = {"seeds": [4, 5], "toy": {"trigger": "love"}}


@pytest.fixture(autouse=True)
def torch_as_before() -> Iterator[None]:
    """A stage sets torch's threads and determinism for its process, which here is the tests'."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run a stage as a rule does, in a folder of its own; returns where its record belongs."""
    monkeypatch.chdir(tmp_path)

    def start(
        main: Callable[..., None], *arguments: str, spec: dict[str, Any] = SPEC, cached: bool = False, **shared: str
    ) -> Path:
        given = {
            "rule": "toy_rule", "study": "smoke", "spec": json.dumps(spec), "code": "c0de", "lock": "10cc",
            "wildcards": '{"subject": "2-sentiment"}', "record": "results/run.json",
        } | shared  # fmt: skip
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        monkeypatch.setattr(sys, "argv", ["stage", *words, *arguments])
        run(main, shared=cached)
        return tmp_path / given["record"]

    return start


def write(path: str, text: str) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return path


def test_arguments_follow_from_the_signature(call: Callable) -> None:
    seen: dict[str, Any] = {}

    def main(job: Job, *, corpus_table: In, models: Ins, curve: Out, figures: Outs) -> None:
        """Say what was given."""
        seen.update(job=job, corpus_table=corpus_table, models=models, curve=curve, figures=figures)
        for path in (curve, *figures):
            write(str(path), "made")

    for name in ("a.parquet", "m/0", "m/1"):
        write(name, name)
    call(
        main, "--corpus-table", "a.parquet", "--models", "m/0", "m/1", "--curve", "results/c",
        "--figures", "results/f", "--threads", "2",
    )  # fmt: skip
    job = seen.pop("job")
    assert seen == {
        "corpus_table": Path("a.parquet"),
        "models": [Path("m/0"), Path("m/1")],
        "curve": Path("results/c"),
        "figures": [Path("results/f")],
    }
    assert (job.rule, job.study, job.code, job.threads, job.device) == ("toy_rule", "smoke", "c0de", 2, "cpu")
    assert job.wildcards == {"subject": "2-sentiment"} and job.seeds == [4, 5] and job.spec.toy.trigger == "love"
    assert torch.get_num_threads() == 2


@dataclass(frozen=True)
class Pair:
    """Two files that are read together."""

    left: In
    right: In


def test_files_of_a_group_are_arguments_and_inputs_like_others(call: Callable) -> None:
    def main(job: Job, *, pair: Pair, both: Out) -> None:
        write(str(both), pair.left.read_text() + pair.right.read_text())

    record = read_record(call(main, "--left", write("l", "lo"), "--right", write("r", "ve"), "--both", "results/both"))
    assert Path("results/both").read_text() == "love"
    assert {name: [file["path"] for file in files] for name, files in record["inputs"].items()} == {
        "left": ["l"],
        "right": ["r"],
    }


def copy(job: Job, *, words: In, upper: Out) -> None:
    """A stage as they are."""
    upper.parent.mkdir(exist_ok=True)
    upper.write_text(words.read_text().upper())


def test_a_stage_that_ends_well_writes_its_record(call: Callable) -> None:
    record_path = call(copy, "--words", write("words.txt", "love"), "--upper", "results/upper.txt", "--threads", "1")
    record = read_record(record_path)
    assert (record["rule"], record["study"], record["code"], record["lock"]) == (
        "toy_rule",
        "smoke",
        "c0de",
        "10cc",
    )
    assert record["spec"] == SPEC and record["seeds"] == [4, 5]
    assert record["wildcards"] == {"subject": "2-sentiment"}
    assert record["inputs"] == {"words": [{"path": "words.txt", "sha256": sha256_file("words.txt"), "bytes": 4}]}
    assert record["outputs"] == {
        "upper": [{"path": "results/upper.txt", "sha256": sha256_file("results/upper.txt"), "bytes": 4}]
    }
    assert (record["device"], record["threads"]) == ("cpu", 1)
    assert record["wall_s"] >= 0 and record["peak_rss_mb"] > 1


@pytest.mark.parametrize("kind", [ArtifactError, SpecError])
def test_a_known_error_is_one_line_exit_code_two_and_no_record(
    kind: type[Exception], call: Callable, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def main(job: Job, *, upper: Out) -> None:
        """Fail."""
        raise kind("words.txt: holds no words")

    with pytest.raises(SystemExit) as caught:
        call(main, "--upper", "results/upper.txt")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: words.txt: holds no words\n"
    assert not (tmp_path / "results").exists()


def test_an_output_that_was_not_written_is_a_known_error(
    call: Callable, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def main(job: Job, *, upper: Out) -> None:
        """Forget to write."""

    with pytest.raises(SystemExit) as caught:
        call(main, "--upper", "results/upper.txt")
    assert caught.value.code == 2
    assert (
        capsys.readouterr().err == "error: results/upper.txt was to be recorded but is not there: did the job finish?\n"
    )
    assert not (tmp_path / "results" / "run.json").exists()


def test_an_unknown_error_keeps_its_traceback(call: Callable, tmp_path: Path) -> None:
    def main(job: Job, *, upper: Out) -> None:
        """Break."""
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(main, "--upper", "results/upper.txt")
    assert not (tmp_path / "results").exists()


def test_a_key_the_rule_did_not_name_is_no_attribute(call: Callable) -> None:
    def main(job: Job, *, upper: Out) -> None:
        """Look where the rule did not allow it."""
        _ = job.spec.toy.control

    with pytest.raises(AttributeError, match=r"no 'control', only trigger; name it in the rule's stage_params"):
        call(main, "--upper", "results/upper.txt")


@pytest.mark.parametrize("missing", ["--words", "--upper"])
def test_a_missing_argument_is_told(missing: str, call: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"--words": write("words.txt", "love"), "--upper": "results/upper.txt"}
    del given[missing]
    with pytest.raises(SystemExit) as caught:
        call(copy, *[word for pair in given.items() for word in pair])
    assert caught.value.code == 2
    assert f"the following arguments are required: {missing}" in capsys.readouterr().err


@pytest.mark.parametrize(("device", "built", "takes"), [("auto", True, 1), ("auto", False, 0), ("cpu", True, 0)])
def test_a_gpu_is_taken_only_by_a_job_that_may_use_one(
    call: Callable, monkeypatch: pytest.MonkeyPatch, device: str, built: bool, takes: int
) -> None:
    taken: list[None] = []
    monkeypatch.setattr("anatomy.stages._run.take_gpu", lambda: taken.append(None))
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def main(job: Job, *, curve: Out) -> None:
        write(str(curve), "made")

    call(main, "--curve", "results/c", spec=SPEC | {"compute": {"device": device}})
    assert len(taken) == takes


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a device that is not there; run it where there is none")
def test_asking_for_cuda_without_a_device_is_a_known_error(
    call: Callable, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec = SPEC | {"compute": {"device": "cuda"}}
    with pytest.raises(SystemExit) as caught:
        call(copy, "--words", write("words.txt", "love"), "--upper", "results/upper.txt", spec=spec)
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "error: compute.device: cuda was asked for and this job has no CUDA device; use auto or cpu\n"
    )
    assert not (tmp_path / "results").exists()


def read_both(job: Job, *, weights: In, table: In, upper: Out) -> None:
    """Read a model and a table, as the measuring stages do."""
    load_state(weights.parent)
    read_parquet(table)
    upper.write_text("read")


@pytest.mark.parametrize("damaged", ["model.safetensors", "corpus.parquet"])
def test_a_damaged_input_ends_a_stage_with_the_documented_message(
    damaged: str, call: Callable, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import pandas as pd
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(100)}, tmp_path / "model.safetensors")
    write_parquet(tmp_path / "corpus.parquet", pd.DataFrame({"x": range(100)}))
    arguments = ["--weights", "model.safetensors", "--table", "corpus.parquet", "--upper", "upper.txt"]
    call(read_both, *arguments)
    path = tmp_path / damaged
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SystemExit) as caught:
        call(read_both, *arguments, record="second.run.json")
    assert caught.value.code == 2
    kind = "safetensors" if damaged.startswith("model") else "Parquet"
    said = capsys.readouterr().err
    assert said.startswith(f"error: {damaged}: not a readable {kind} file (")
    assert said.endswith("); it is truncated or damaged, delete it and run again\n")
    assert not (tmp_path / "second.run.json").exists()


def test_progress_is_one_line_for_the_log(capsys: pytest.CaptureFixture[str], call: Callable) -> None:
    def main(job: Job, *, upper: Out) -> None:
        """Tell how far it is."""
        job.progress(3, 7, "steps")
        write(str(upper), "made")

    call(main, "--upper", "results/upper.txt")
    assert capsys.readouterr().out == "progress: 3/7 steps\n"


def test_deleting_a_file_that_is_gone_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_text("x")
    remove_quietly(path)
    remove_quietly(path)
    assert not path.exists()


def test_a_shared_job_is_done_once_and_a_broken_copy_is_told_of_and_done_again(
    call: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []

    def main(job: Job, *, corpus: In, curve: Out) -> None:
        """Count the calls."""
        calls.append(job.rule)
        write(str(curve), "made")

    monkeypatch.setenv("ANATOMY_CACHE", str(tmp_path / "cache"))
    write("a", "a")
    arguments = ("--corpus", "a", "--curve", "results/c")
    first = read_record(call(main, *arguments, cached=True))
    assert read_record(call(main, *arguments, cached=True))["job"] == first["job"] and len(calls) == 1
    assert "taken from the cache" in capsys.readouterr().out
    call(main, *arguments)  # not a shared stage: it does not look there
    assert len(calls) == 2
    (stored,) = (tmp_path / "cache").glob("*/*/0000")
    stored.write_text("mare")
    again = read_record(call(main, *arguments, cached=True))
    assert "refused a cache entry" in capsys.readouterr().err and len(calls) == 3
    assert read_record(call(main, *arguments, cached=True))["job"] == again["job"] and len(calls) == 3


def test_a_cache_that_cannot_be_written_costs_the_job_nothing(
    call: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(job: Job, *, curve: Out) -> None:
        """Write one file."""
        write(str(curve), "made")

    monkeypatch.setenv("ANATOMY_CACHE", str(tmp_path / "file"))
    write(str(tmp_path / "file"), "no folder")
    assert call(main, "--curve", "results/c", cached=True).exists()
    assert "not put into the cache" in capsys.readouterr().err
