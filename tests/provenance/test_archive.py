"""Attestations travel with an archive where a study has some; what is packed as one and is none gets nowhere."""

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from anatomy.provenance import archive as archive_module
from anatomy.provenance import restore as restore_module
from anatomy.provenance.archive import archive, archive_path, attestations_path, pointer_path
from anatomy.provenance.attest import attest
from anatomy.provenance.audit import audit
from anatomy.provenance.audit_ledger import restored_mark
from anatomy.provenance.digest import ArtifactError, sha256_file
from anatomy.provenance.manifest import manifest_path, read_manifest
from anatomy.provenance.restore import restore

from .documents import add_phases, allow, make_key
from .studies import write
from .test_attest import needs_ssh

FOLDER = Path("results/toy/attestations")
METADATA, STATEMENTS = archive_path("toy"), attestations_path("toy")


@pytest.fixture
def asked(study: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The study `toy`, archived and restored with a DVC that only writes pointers; what it was asked for."""
    add_phases()
    for name in ("ANATOMY_SIGNING_KEY", "ANATOMY_ALLOWED_SIGNERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(study / "gitconfig"))
    words: list[tuple[str, ...]] = []

    def dvc(*given: str) -> str:
        words.append(given)
        for path in given[2:] if given[0] == "add" else ():
            write(pointer_path(Path(path)), "outs: []\n")
        return "store" if given == ("remote", "list") else ""

    spec = SimpleNamespace(study="toy", archive=SimpleNamespace(push_hazards=True))
    for module in (archive_module, restore_module):
        monkeypatch.setattr(module, "dvc", dvc)
        monkeypatch.setattr(module, "study_of_ledger", lambda study: spec)
    monkeypatch.setattr(restore_module, "pushed_outs", lambda spec: ["results/toy"])
    monkeypatch.setattr(restore_module, "_refuse_without_archive", lambda spec: None)
    monkeypatch.setattr(restore_module, "_archived_manifest", lambda study: read_manifest(manifest_path(study)))
    return words


def restored() -> None:
    """The study with the mark of a restore and without attestations."""
    write(restored_mark("toy"), "{}")
    shutil.rmtree(FOLDER, ignore_errors=True)


def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The study with signed statements; the files by name."""
    key = make_key(tmp_path / "ada")
    monkeypatch.setenv("ANATOMY_SIGNING_KEY", str(key))
    monkeypatch.setenv("ANATOMY_ALLOWED_SIGNERS", str(allow(tmp_path / "signers", "ada@example.org", key)))
    attest("toy")
    return {path.name: path.read_bytes() for path in FOLDER.iterdir()}


@needs_ssh
def test_attestations_travel_and_are_judged_where_they_arrive(
    asked: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = signed(tmp_path, monkeypatch)
    assert f"6 files of attestations are in {STATEMENTS}" in archive("toy")
    pointers = (f"{METADATA}.dvc", f"{STATEMENTS}.dvc")
    assert asked[-3:] == [
        ("add", "--no-relink", str(METADATA), str(STATEMENTS)),
        ("remote", "list"),
        ("push", *archive_module.PHASES, *pointers),
    ]
    restored()
    restore("toy")
    assert asked[-1] == ("pull", "results/toy", *pointers)
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == made
    notes = [note for note in audit("toy").notes if note.startswith("attestations/")]
    assert len(notes) == 3 and all(note.endswith("signature good (by ada@example.org)") for note in notes)
    restore("toy")  # nothing to write over


def test_a_study_without_attestations_is_archived_as_before(asked: list) -> None:
    said = archive("toy")
    assert not [sentence for sentence in said if "attestations" in sentence]
    assert asked[-3:] == [
        ("add", "--no-relink", str(METADATA)),
        ("remote", "list"),
        ("push", *archive_module.PHASES, f"{METADATA}.dvc"),
    ]
    restored()
    restore("toy")
    assert asked[-1] == ("pull", "results/toy", f"{METADATA}.dvc")
    assert not FOLDER.exists() and audit("toy").ok


def test_attestations_of_an_earlier_archive_do_not_stay(asked: list) -> None:
    attest("toy")
    archive("toy")
    before = sha256_file(STATEMENTS)
    archive("toy")
    assert sha256_file(STATEMENTS) == before  # the same statements, the same bytes
    shutil.rmtree(FOLDER)
    archive("toy")
    assert not STATEMENTS.exists() and not pointer_path(STATEMENTS).exists()


def test_attestations_that_were_changed_since_are_not_written_over(asked: list) -> None:
    attest("toy")
    archive("toy")
    restored()
    restore("toy")
    write(FOLDER / "train.intoto.json", "{}")
    with pytest.raises(ArtifactError, match=r"1 files are not those of the archive any more \(.*train.intoto.json"):
        restore("toy")
    assert (FOLDER / "train.intoto.json").read_text() == "{}"


def test_an_attestation_that_does_not_belong_to_the_study_fails_the_audit(asked: list) -> None:
    attest("toy")
    statement = FOLDER / "train.intoto.json"
    archive("toy")
    repack(lambda name, content: (name, content.replace(b'"toy"', b'"joy"')))
    restored()
    restore("toy")
    wrong = [finding.path for finding in audit("toy").findings if finding.verdict != "intact"]
    assert statement.as_posix() in wrong


@pytest.mark.parametrize("name", ["attestations/../claims.csv", "attestations/notes.txt", "tables/train.intoto.json"])
def test_what_is_no_attestation_is_not_unpacked(asked: list, name: str) -> None:
    attest("toy")
    archive("toy")
    repack(lambda old, content: (name if "train" in old else old, content))
    restored()
    with pytest.raises(ArtifactError, match=r"toy.attestations.tar.gz: refused, as it holds .*, which is no statement"):
        restore("toy")
    assert not FOLDER.exists() and not Path("results/toy/claims.csv").exists()


def repack(change: Callable[[str, bytes], tuple[str, bytes]]) -> None:
    """Pack the archived attestations anew, with other names or contents."""
    with tarfile.open(STATEMENTS) as tar:
        files = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    with tarfile.open(STATEMENTS, "w:gz") as tar:
        for name, content in (change(*file) for file in files):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            "ERROR: unexpected error - Unable to locate credentials\n\nHaving any troubles? Hit us up at a page!\n",
            "dvc push failed: Unable to locate credentials. Can the remote be reached",
        ),
        (
            "ERROR: failed to connect to s3 (a/b)\nERROR: failed to push data\n",
            "dvc push failed: failed to connect to s3 (a/b); failed to push data. Can the remote be reached",
        ),
        ("something else\n", "dvc push failed: something else. Can the remote be reached"),
    ],
)
def test_an_error_of_dvc_is_one_line(told: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(returncode=255, stdout="", stderr=told)
    monkeypatch.setattr(archive_module.subprocess, "run", lambda *words, **options: failed)
    with pytest.raises(ArtifactError) as caught:
        archive_module.dvc("push", "poison")
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
