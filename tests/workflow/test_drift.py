"""Files that are generated from others, or must agree with them, do."""

from pathlib import Path

import pytest

from anatomy.provenance.archive import archive
from anatomy.provenance.digest import ArtifactError
from anatomy.provenance.ledger import phase_outs, render_ledger
from anatomy.provenance.restore import restore
from anatomy.spec.read import load_study, schema

ROOT = Path(__file__).parents[2]


def test_the_schema_is_the_models() -> None:
    assert (ROOT / "config/schema.json").read_text() == schema()


def test_the_ledger_is_the_study() -> None:
    assert (ROOT / "dvc.yaml").read_text() == render_ledger(load_study("embedded", ROOT))


def test_every_rule_output_lies_in_exactly_one_phase(smoke) -> None:
    study = load_study("smoke", smoke.path)
    outs = [out for phase in phase_outs(study).values() for out in phase]
    skipped = {"logs", "notebooks"}
    for file in (smoke.path / "results/smoke").rglob("*"):
        relative = file.relative_to(smoke.path).as_posix()
        if not file.is_file() or file.parts[len(smoke.path.parts) + 2] in skipped or file.name == "LAYOUT":
            continue
        holders = [out for out in outs if relative == out or relative.startswith(f"{out}/")]
        assert len(holders) == 1, f"{relative} is in {holders}"


def test_a_ledger_of_another_study_archives_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("config", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    for command in (archive, restore):
        with pytest.raises(ArtifactError, match=r"dvc\.yaml is not the ledger of the study smoke.*--ledger smoke"):
            command("smoke")
