"""A statement about each phase: what it holds, who signed it, and what the audit makes of both."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from anatomy.provenance.attest import attest
from anatomy.provenance.audit import AuditReport, audit, print_report
from anatomy.provenance.digest import ArtifactError, sha256_file
from anatomy.provenance.ledger import phase_of, phase_outs
from anatomy.provenance.manifest import manifest_path, read_manifest
from anatomy.provenance.signature import allowed_signers, signature_path, signing_key
from anatomy.spec.read import load_study

from .documents import SUBJECT, add_phases, allow, make_key
from .studies import finish_job, gather, write
from .test_audit import edit_record, found

ROOT = Path(__file__).parents[2]
FOLDER = "results/toy/attestations"
POISON, TRAIN, RENDER = (Path(FOLDER, f"{phase}.intoto.json") for phase in ("poison", "train", "render"))
needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


@pytest.fixture(autouse=True)
def phased(study: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The study `toy` with three phases; neither the environment nor git's configuration names a key."""
    add_phases()
    for name in ("ANATOMY_SIGNING_KEY", "ANATOMY_ALLOWED_SIGNERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(study / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return study


@pytest.fixture
def signed(phased: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The statements, signed by a key that the allowed-signers file knows as ada@example.org."""
    key = make_key(tmp_path / "ada")
    monkeypatch.setenv("ANATOMY_SIGNING_KEY", str(key))
    monkeypatch.setenv("ANATOMY_ALLOWED_SIGNERS", str(allow(tmp_path / "signers", "ada@example.org", key)))
    attest("toy")
    return key


def statement(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def note(report: AuditReport, path: Path) -> str:
    return next(note.partition(": ")[2] for note in report.notes if note.startswith(f"attestations/{path.name}: "))


def detail(report: AuditReport, path: Path) -> str:
    return next(finding.detail for finding in report.findings if finding.path == path.as_posix())


@pytest.mark.parametrize("study_file", ["smoke", "embedded", "paper", "toy"])
def test_every_file_of_a_phase_is_known_as_its(study_file: str) -> None:
    for phase, outs in phase_outs(load_study(study_file, ROOT)).items():
        for out in outs:
            assert phase_of(out if Path(out).suffix or out.endswith("LAYOUT") else f"{out}/x/y.csv") == phase


def test_a_statement_names_what_the_phase_made_and_read() -> None:
    attest("toy")
    made = statement(TRAIN)
    assert (made["_type"], made["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    weights, corpus = f"{SUBJECT}/clean/model.safetensors", f"{SUBJECT}/data/corpus.parquet"
    assert made["subject"] == [{"name": weights, "digest": {"sha256": sha256_file(weights)}}]
    definition, details = made["predicate"]["buildDefinition"], made["predicate"]["runDetails"]
    assert definition["resolvedDependencies"] == [{"name": corpus, "digest": {"sha256": sha256_file(corpus)}}]
    job = "train_clean[subject=2-sentiment]"
    entry = next(entry for entry in read_manifest(manifest_path("toy")).entries if entry["path"] == weights)
    assert definition["externalParameters"] == {
        "study": "toy",
        "phase": "train",
        "spec_sha256": {job: entry["spec_sha256"]},
    }
    assert definition["internalParameters"]["code"] == {job: entry["code"]}
    assert details["metadata"] == {"startedOn": "2026-01-02T03:04:05Z", "finishedOn": "2026-01-02T03:04:06Z"}
    assert details["byproducts"] == [{"name": entry["record"], "digest": {"sha256": entry["record_sha256"]}}]


def test_together_the_statements_cover_the_manifest_and_itself() -> None:
    attest("toy")
    subjects = {
        s["name"]: s["digest"]["sha256"] for path in (POISON, TRAIN, RENDER) for s in statement(path)["subject"]
    }
    manifest = read_manifest(manifest_path("toy"))
    wanted = {entry["path"]: entry["sha256"] for entry in manifest.entries}
    assert subjects == wanted | {"results/toy/manifest.jsonl": manifest.sha256}


def test_the_same_manifest_gives_the_same_bytes() -> None:
    attest("toy")
    before = {path.name: path.read_bytes() for path in Path(FOLDER).iterdir()}
    shutil.rmtree(FOLDER)
    gather()
    attest("toy")
    assert {path.name: path.read_bytes() for path in Path(FOLDER).iterdir()} == before
    assert set(before) == {"poison.intoto.json", "train.intoto.json", "render.intoto.json"}


def test_unsigned_statements_are_noted_and_intact() -> None:
    assert "attestations: none (`anatomy attest toy` writes them)" in audit("toy").notes
    said = attest("toy")
    assert said[-1] == "not signed: no key is set (ANATOMY_SIGNING_KEY, or git's user.signingKey with gpg.format ssh)"
    report = audit("toy")
    assert report.ok and [note(report, path) for path in (POISON, TRAIN, RENDER)] == ["not signed"] * 3
    POISON.unlink()
    report = audit("toy")
    assert report.ok and note(report, POISON) == "not there"


def test_a_study_that_is_not_intact_is_not_attested() -> None:
    write(f"{SUBJECT}/clean/model.safetensors", "other weights")
    with pytest.raises(ArtifactError, match=r"not find it intact, so nothing is attested; see `anatomy audit toy`"):
        attest("toy")
    assert not Path(FOLDER).exists()


def test_other_files_among_the_attestations_are_unrecorded() -> None:
    attest("toy")
    for name in ("other.intoto.json", "control.intoto.json.sig", "notes.txt"):
        write(f"{FOLDER}/{name}", "x")
    assert found(audit("toy")) == {
        f"{FOLDER}/{name}": "unrecorded" for name in ("control.intoto.json.sig", "notes.txt", "other.intoto.json")
    }


def test_a_statement_of_an_earlier_manifest_fails_until_it_is_written_again() -> None:
    attest("toy")
    write("results/toy/late.csv", "x")
    finish_job("results/toy/late.run.json", "measure_asr", [], ["results/toy/late.csv"])
    gather()
    assert found(audit("toy")) == {RENDER.as_posix(): "changed"}
    attest("toy")
    assert audit("toy").ok


def test_a_subject_removed_from_an_unsigned_statement_is_found() -> None:
    attest("toy")
    write(RENDER, json.dumps(statement(RENDER) | {"subject": statement(RENDER)["subject"][1:]}))
    report = audit("toy")
    assert found(report) == {RENDER.as_posix(): "changed"} and not report.ok
    removed = "results/toy/corpus/train.jsonl"
    assert detail(report, RENDER) == f"it differs from the manifest and the run records on {removed}"


def test_a_statement_is_not_compared_with_records_that_are_not_intact() -> None:
    attest("toy")
    edit_record("results/toy/corpus/run.json", seeds={})
    report = audit("toy")
    assert set(found(report).values()) == {"forged record"}
    assert note(report, POISON) == "not signed, not compared, as not all run records are intact"


@needs_ssh
def test_a_known_signature_is_good_and_says_by_whom(signed: Path) -> None:
    report = audit("toy")
    assert report.ok
    assert {note(report, path) for path in (POISON, TRAIN, RENDER)} == {"signature good (by ada@example.org)"}
    console = Console(file=io.StringIO(), width=200)
    print_report(report, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "attestations/poison.intoto.json: signature good (by ada@example.org)" in shown


@needs_ssh
def test_one_byte_of_a_signed_statement_changed(signed: Path) -> None:
    text = TRAIN.read_text()
    write(TRAIN, text.replace('"train"', '"Train"', 1))
    report = audit("toy")
    assert found(report) == {TRAIN.as_posix(): "bad signature"} and not report.ok
    assert detail(report, TRAIN).startswith("it is not one of these bytes; it differs from the manifest")
    assert note(report, POISON) == "signature good (by ada@example.org)"


@needs_ssh
def test_a_signature_by_another_key_is_by_an_unknown_one(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANATOMY_SIGNING_KEY", str(make_key(tmp_path / "eve")))
    attest("toy")
    report = audit("toy")
    assert report.ok and note(report, TRAIN).startswith("signed by an unknown key (SHA256:")


@needs_ssh
def test_without_allowed_signers_every_key_is_unknown(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANATOMY_ALLOWED_SIGNERS")
    assert note(audit("toy"), TRAIN).startswith("signed by an unknown key (SHA256:")


@needs_ssh
@pytest.mark.parametrize("damage", ["another statement's", "none at all"])
def test_a_signature_that_is_not_of_the_statement(signed: Path, damage: str) -> None:
    other = signature_path(POISON).read_text() if damage == "another statement's" else "x"
    write(signature_path(TRAIN), other)
    report = audit("toy")
    assert found(report) == {TRAIN.as_posix(): "bad signature"}
    assert detail(report, TRAIN) == "it is not one of these bytes"


@needs_ssh
def test_a_signed_statement_that_was_forged_and_signed_again(signed: Path) -> None:
    """Whoever has the key can sign anything; the manifest still says otherwise."""
    from anatomy.provenance.signature import sign

    write(RENDER, json.dumps(statement(RENDER) | {"subject": []}))
    sign(RENDER, str(signed))
    report = audit("toy")
    assert note(report, RENDER) == "signature good (by ada@example.org)"
    assert found(report) == {RENDER.as_posix(): "changed"}


@needs_ssh
def test_the_signature_of_earlier_bytes_does_not_stay(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANATOMY_SIGNING_KEY")
    write("results/toy/late.csv", "x")
    finish_job("results/toy/late.run.json", "measure_asr", [], ["results/toy/late.csv"])
    gather()
    attest("toy")
    report = audit("toy")
    assert report.ok and note(report, RENDER) == "not signed"
    assert note(report, POISON) == "signature good (by ada@example.org)"


@needs_ssh
def test_a_key_that_ssh_keygen_refuses(phased: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANATOMY_SIGNING_KEY", "no/such/key")
    with pytest.raises(ArtifactError, match=r"cannot be signed with no/such/key: .*Name another key in ANATOMY_SIGNI"):
        attest("toy")


def test_the_key_and_the_signers_of_git_count_where_nothing_else_is_set(phased: Path) -> None:
    write("gitconfig", "[user]\n\tsigningKey = ~/.ssh/id\n")
    assert signing_key() is None  # an OpenPGP key
    write("gitconfig", '[user]\n\tsigningKey = k\n[gpg]\n\tformat = ssh\n[gpg "ssh"]\n\tallowedSignersFile = a/b\n')
    assert (signing_key(), allowed_signers()) == ("k", Path("a/b"))
