"""What the audit says about dvc.lock and about restored results."""

import hashlib
import json
from pathlib import Path

import pytest

from anatomy.provenance.audit import audit
from anatomy.provenance.audit_ledger import ledger_notes, restored_mark
from anatomy.provenance.manifest import manifest_path


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = manifest_path("toy", tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text("the manifest\n")
    return path


def lock(root: Path, path: str, md5: str) -> None:
    stages = {"render": {"outs": [{"path": path, "md5": md5}]}, "raw": {}}
    (root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))  # JSON is YAML


def test_the_manifest_that_dvc_lock_holds(manifest: Path, tmp_path: Path) -> None:
    md5 = hashlib.md5(manifest.read_bytes()).hexdigest()
    lock(tmp_path, "results/toy/manifest.jsonl", md5)
    assert ledger_notes("toy", tmp_path) == ["dvc.lock: holds this manifest, and with it these results"]
    manifest.write_text("the manifest \n")
    (note,) = ledger_notes("toy", tmp_path)
    assert note.startswith("dvc.lock: holds the manifest of another run") and "anatomy archive toy" in note


def test_a_dvc_lock_without_the_study(manifest: Path, tmp_path: Path) -> None:
    lock(tmp_path, "results/other/manifest.jsonl", "0" * 32)
    assert ledger_notes("toy", tmp_path)[0].startswith("dvc.lock: holds another study")


@pytest.mark.parametrize("text", ["", "stages: 3", "{", "stages: {render: {outs: [x]}}"])
def test_a_dvc_lock_that_is_none(text: str, manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(text)
    assert ledger_notes("toy", tmp_path) == ["dvc.lock: cannot be read"]


def test_no_dvc_lock(manifest: Path, tmp_path: Path) -> None:
    assert ledger_notes("toy", tmp_path) == ["dvc.lock: not there (`anatomy archive toy` writes it)"]


@pytest.mark.parametrize(("mark", "said"), [('{"restored": "2026-05-01T10:00:00"}', "2026-05-01"), ("{", "not tell")])
def test_restored_results_are_told_as_such(mark: str, said: str, manifest: Path, tmp_path: Path) -> None:
    restored_mark("toy", tmp_path).parent.mkdir()
    restored_mark("toy", tmp_path).write_text(mark)
    note = ledger_notes("toy", tmp_path)[1]
    assert note.startswith("restored from an archive") and said in note


def test_the_audit_says_it(study: Path) -> None:
    assert any(note.startswith("dvc.lock: ") for note in audit("toy").notes)
