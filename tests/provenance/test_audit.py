"""The audit catches each mutation, gives it its name, and accuses nothing else."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from anatomy.provenance import audit as audit_module
from anatomy.provenance.audit import AuditReport, Expected, audit, print_report, report_json
from anatomy.provenance.audit_ledger import restored_mark
from anatomy.provenance.digest import ArtifactError, sha256_file
from anatomy.provenance.manifest import manifest_path, read_manifest, write_manifest

from .studies import LOCK, finish_job, gather, write

HOME = "results/toy"
LEXICON = "data/lexicon/positive.txt"
CORPUS = f"{HOME}/corpus/train.jsonl"
WEIGHTS = f"{HOME}/models/clean/model.safetensors"
CONFIG = f"{HOME}/models/clean/config.json"
MODEL_RECORD = f"{HOME}/models/clean/run.json"


def found(report: AuditReport) -> dict[str, str]:
    """Path -> verdict of everything that is not intact."""
    assert len({finding.path for finding in report.findings}) == len(report.findings)
    return {finding.path: finding.verdict for finding in report.findings if finding.verdict != "intact"}


def detail(report: AuditReport, path: str) -> str:
    return next(finding.detail for finding in report.findings if finding.path == path)


def flip_a_bit(path: str) -> None:
    """Change one bit and put size and times back: the mutation that Snakemake and DVC overlook."""
    before = Path(path).stat()
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 1
    with Path(path).open("r+b") as file:  # in place: the inode stays as well
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = Path(path).stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    )


def edit_record(path: str, **changes: object) -> None:
    write(path, json.dumps(json.loads(Path(path).read_text()) | changes))


def edit_manifest(path: str, **changes: object) -> None:
    manifest = read_manifest(f"{HOME}/manifest.jsonl")
    entries = [{**entry, **changes} if entry["path"] == path else entry for entry in manifest.entries]
    write_manifest(manifest.path, entries, study="toy", lock=LOCK)  # type: ignore[arg-type]


def test_an_untouched_study_is_intact(study: Path) -> None:
    report = audit("toy")
    assert report.ok and report.counts == {"intact": 5} and report.artefacts == 5
    hashed = [*Path(HOME).rglob("*.*"), Path(LEXICON)]
    assert report.bytes == sum(p.stat().st_size for p in hashed if p.name != "manifest.jsonl")
    assert report.manifest_sha256 == sha256_file(f"{HOME}/manifest.jsonl")


def test_it_is_the_same_from_another_folder(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study.parent)
    assert audit("toy", root=study).ok
    assert audit("toy", root=Path("repository")).ok


@pytest.mark.parametrize("path", [CORPUS, WEIGHTS, CONFIG, f"{HOME}/tables/lamparth_table_01.csv"])
def test_one_flipped_bit_is_found_and_nothing_else(study: Path, path: str) -> None:
    flip_a_bit(path)
    report = audit("toy")
    assert found(report) == {path: "changed"} and not report.ok
    assert "bytes as before" in detail(report, path)


def test_one_flipped_bit_in_a_raw_input(study: Path) -> None:
    flip_a_bit(LEXICON)
    report = audit("toy")
    assert found(report) == {LEXICON: "changed input"}
    assert [f.rule for f in report.findings if f.path == LEXICON] == ["make_corpus, measure_asr"]


@pytest.mark.parametrize(("path", "verdict"), [(CORPUS, "missing"), (LEXICON, "missing input")])
def test_a_missing_file(study: Path, path: str, verdict: str) -> None:
    Path(path).unlink()
    report = audit("toy")
    assert found(report) == {path: verdict} and detail(report, path) == "no such file"


def test_what_a_restore_leaves_out_is_withheld_and_not_missing(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "is_hazard", lambda path: path == CORPUS)
    other = next(entry["path"] for entry in read_manifest(manifest_path("toy")).entries if entry["path"] != CORPUS)
    Path(CORPUS).unlink()
    assert found(audit("toy")) == {CORPUS: "missing"}  # nothing was restored
    restored_mark("toy").parent.mkdir(exist_ok=True)
    restored_mark("toy").write_text(json.dumps({"restored": "2026-05-01", "withheld": [CORPUS, other]}))
    report = audit("toy")
    assert found(report) == {CORPUS: "withheld"} and report.ok
    Path(other).unlink()
    report = audit("toy")
    assert found(report) == {CORPUS: "withheld", other: "missing"} and not report.ok


def test_a_pipe_in_place_of_a_file_does_not_hang_the_audit(study: Path) -> None:
    Path(CORPUS).unlink()
    os.mkfifo(CORPUS)
    assert found(audit("toy")) == {CORPUS: "missing"}


def test_files_nobody_recorded(study: Path) -> None:
    for name in ("tables/extra.csv", "models/clean/tokenizer.json", "other.run.json", "corpus/logs/x"):
        write(f"{HOME}/{name}", "{}")
    assert found(audit("toy")) == {
        f"{HOME}/{name}": "unrecorded"
        for name in ("corpus/logs/x", "models/clean/tokenizer.json", "other.run.json", "tables/extra.csv")
    }


def test_files_that_are_no_results_are_left_alone(study: Path) -> None:
    for name in (
        "logs/train.log",
        "notebooks/table.ipynb",
        "models/clean/.snakemake_timestamp",
        "corpus/.77-ab-train.jsonl",
        ".hidden/x",
    ):
        write(f"{HOME}/{name}", "x")
    write("results/other/x.csv", "another study")
    assert audit("toy").ok


def test_an_edited_record_is_forged(study: Path) -> None:
    edit_record(MODEL_RECORD, seeds={"torch": 8})
    report = audit("toy")
    assert found(report) == {WEIGHTS: "forged record", CONFIG: "forged record"}
    assert MODEL_RECORD in detail(report, WEIGHTS)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{")], ids=["gone", "cut"])
def test_a_lost_record_leaves_its_results_without_an_origin(study: Path, damage: Callable[[Path], object]) -> None:
    damage(Path(MODEL_RECORD))
    assert found(audit("toy")) == {WEIGHTS: "forged record", CONFIG: "forged record"}


def test_a_manifest_edited_together_with_the_file(study: Path) -> None:
    write(CORPUS, "forged")
    edit_manifest(CORPUS, sha256=sha256_file(CORPUS), bytes=6)
    report = audit("toy")
    assert report.counts["forged record"] == 1
    assert "corpus/run.json and the manifest differ on: sha256, bytes" in detail(report, CORPUS)


def test_a_manifest_edited_alone(study: Path) -> None:
    edit_manifest(WEIGHTS, sha256="0" * 64)
    report = audit("toy")
    assert found(report)[WEIGHTS] == "changed"
    assert "its record agrees with the file: the manifest was edited" in detail(report, WEIGHTS)


def test_manifest_and_record_edited_together_break_the_chain(study: Path) -> None:
    """Whoever forges a file, its record and its line has still to forge everything made from it."""
    write(CORPUS, "forged")
    finish_job(f"{HOME}/corpus/run.json", "make_corpus", [LEXICON], [CORPUS])
    record = json.loads(Path(f"{HOME}/corpus/run.json").read_text())
    edit_manifest(
        CORPUS,
        sha256=sha256_file(CORPUS),
        bytes=6,
        job=record["job"],
        record_sha256=sha256_file(f"{HOME}/corpus/run.json"),
    )
    assert found(audit("toy")) == {WEIGHTS: "changed input", CONFIG: "changed input"}


def test_an_edited_helper_names_exactly_what_it_made(study: Path) -> None:
    write("workflow/anatomy/training.py", Path("workflow/anatomy/training.py").read_text() + "STEPS = 1\n")
    assert found(audit("toy")) == {WEIGHTS: "made by other code", CONFIG: "made by other code"}
    write("workflow/anatomy/data.py", "# rewritten\ndef words(path):\n    return []\n")
    assert set(found(audit("toy"))) == {CORPUS, WEIGHTS, CONFIG}


def test_a_comment_in_a_helper_is_no_other_code(study: Path) -> None:
    write("workflow/anatomy/training.py", "# why\n" + Path("workflow/anatomy/training.py").read_text())
    assert audit("toy").ok


def test_expected_code_parameters_and_lock(study: Path) -> None:
    table = f"{HOME}/tables/lamparth_table_01.csv"
    assert audit("toy", expected=Expected(code={"render_lamparth": "9" * 64}, lock=LOCK)).ok
    assert found(audit("toy", expected=Expected(code={"render_lamparth": "8" * 64}))) == {table: "made by other code"}
    by_job = Expected(spec_sha256={"train_clean[seed=0]": "0" * 64, "train_clean[seed=1]": "1" * 64})
    assert found(audit("toy", expected=by_job)) == dict.fromkeys([WEIGHTS, CONFIG], "made with other parameters")
    report = audit("toy", expected=Expected(lock="f" * 64))
    assert report.counts == {"made with another environment": 5}


def test_a_job_of_another_environment_is_found_without_being_told(study: Path) -> None:
    write(f"{HOME}/late.csv", "x")
    finish_job(f"{HOME}/late.run.json", "measure_asr", [], [f"{HOME}/late.csv"], lock="e" * 64)
    gather()
    assert found(audit("toy")) == {f"{HOME}/late.csv": "made with another environment"}


def test_it_says_what_it_could_not_compare(study: Path) -> None:
    assert audit("toy").unchecked == (
        "code of render_lamparth",
        "parameters (nothing says what they should be)",
    )
    everything = Expected(code={"render_lamparth": "9" * 64}, spec_sha256={})
    assert audit("toy", expected=everything).unchecked == ("code of make_corpus, measure_asr, train_clean",)


def test_each_artefact_has_one_verdict_and_the_gravest(study: Path) -> None:
    flip_a_bit(WEIGHTS)
    edit_record(MODEL_RECORD, seeds={})
    write("workflow/anatomy/training.py", "def train(path):\n    return 0\n")
    assert found(audit("toy")) == {WEIGHTS: "changed", CONFIG: "forged record"}


def test_the_manifest_of_another_study_is_refused(study: Path) -> None:
    write("results/copy/manifest.jsonl", Path(f"{HOME}/manifest.jsonl").read_text())
    with pytest.raises(ArtifactError, match="is the manifest of the study 'toy', not 'copy'"):
        audit("copy")


def shown(report: AuditReport) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_report(report, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_printed_report_begins_with_the_verdict(study: Path) -> None:
    assert shown(audit("toy")).startswith("intact: 5 artefacts, ")
    flip_a_bit(WEIGHTS)
    Path(CORPUS).unlink()
    write(f"{HOME}/tables/[red]odd[/red].csv", "x")
    text = shown(audit("toy"))
    assert text.startswith("NOT intact: 1 changed, 1 missing, 1 unrecorded (3 of 5 artefacts intact, ")
    assert WEIGHTS in text and CORPUS in text and "[red]odd[/red].csv" in text
    assert CONFIG not in text
    assert "not compared: code of render_lamparth" in text


def test_the_json_report_holds_every_finding(study: Path) -> None:
    flip_a_bit(WEIGHTS)
    value = json.loads(report_json(audit("toy")))
    assert value["ok"] is False and value["counts"] == {"intact": 4, "changed": 1}
    assert {finding["path"]: finding["verdict"] for finding in value["findings"]}[WEIGHTS] == "changed"
