"""Files that are generated from others, or must agree with them, do."""

import re
from pathlib import Path

import pytest
import yaml

from anatomy.provenance.archive import archive
from anatomy.provenance.digest import ArtifactError
from anatomy.provenance.ledger import phase_outs, render_ledger
from anatomy.provenance.restore import restore
from anatomy.spec.read import load_study, schema

ROOT = Path(__file__).parents[2]
NAMES = {"pytorch": "torch", "pytorch-cpu": "torch", "pytorch-gpu": "torch", "snakemake-minimal": "snakemake"} | {
    "matplotlib-base": "matplotlib"
}


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = (line.split("==") for line in lines if "==" in line)
    return {re.sub(r"[-_.]+", "-", name).lower(): version.split(";")[0].strip() for name, version in pins}


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda p: p.stem)
def test_conda_pins_equal_the_lock(path: Path) -> None:
    lock = locked()
    for entry in yaml.safe_load(path.read_text())["dependencies"]:
        for pin in entry["pip"] if isinstance(entry, dict) else [entry]:
            if pin == "pip" or pin.startswith("python="):
                continue
            name, version = re.split("==?", pin)
            assert lock[NAMES.get(name, name)] == version, pin


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


def test_no_cuda_library_is_locked() -> None:
    assert not [name for name in locked() if name.startswith(("nvidia", "triton", "cuda"))]


def test_a_ledger_of_another_study_archives_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("config", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    for command in (archive, restore):
        with pytest.raises(ArtifactError, match=r"dvc\.yaml is not the ledger of the study smoke.*--ledger smoke"):
            command("smoke")
