"""The made-up study whose audit `make bench` times is one that an audit finds intact, and that can be damaged."""

from pathlib import Path

import pytest

from anatomy import bench_audit
from anatomy.bench_audit import BESIDE, audit_rows, make_study
from anatomy.commands.trust import audit_study


@pytest.fixture
def folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what an audit reads besides results."""
    for name in BESIDE:
        (tmp_path / name).symlink_to(root / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench_audit, "BYTES", 4096)
    return tmp_path


def test_the_made_up_study_is_intact_until_a_byte_is_changed(folder: Path) -> None:
    make_study("embedded", jobs=3, size=3000)
    report = audit_study("embedded")
    assert report.ok and report.artefacts == 3
    assert "ro-crate-metadata.json: agrees with the manifest" in report.notes
    file = next(Path("results").rglob("*.safetensors"))
    assert file.stat().st_size == 1000
    file.write_bytes(bytes(1000))
    assert not audit_study("embedded").ok


def test_without_results_the_made_up_study_is_timed_alone(folder: Path) -> None:
    own, made_up = audit_rows("embedded", repetitions=1)
    assert own[-1] == "no results of the embedded study here"
    assert made_up[0].startswith("audit of a made-up study: 64 files") and made_up[-1].endswith("; intact")
    assert not Path("results").exists()


def test_where_the_disk_is_nearly_full_it_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_audit, "NEEDED", 1 << 60)
    assert "left out: under" in audit_rows("embedded", repetitions=1)[1][-1]
