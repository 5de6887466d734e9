"""`anatomy audit`, `explain` and `compare` of a study with one job."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from anatomy.commands.trust import expected_parameters
from anatomy.provenance.audit import Expected, audit
from anatomy.provenance.manifest import build_manifest, manifest_path, write_manifest
from anatomy.provenance.record import RECORD_SUFFIX, write_record
from anatomy.spec.read import load_study
from anatomy.spec.subtree import subtree

from .conftest import anatomy_says, edit, everything


def record_job(record: str, made: Path, rule: str = "no_such_stage") -> None:
    """The record of one job of the study `small`, as a stage writes it, and the manifest anew."""
    spec = json.loads(subtree(load_study("small"), "seeds", "toy.recipe", "toy.recipes.fast", "toy.amounts"))
    write_record(
        f"results/small/{record}",
        rule=rule,
        study="small",
        wildcards={"subject": "2-sentiment"},
        spec=spec,
        seeds=[0, 1],
        code="c" * 64,
        lock="sentinel",
        inputs={"words": [Path("data/lexicon/positive.txt")]},
        outputs={"table": [made]},
        device="cpu",
        threads=1,
        started=datetime(2026, 1, 2, tzinfo=UTC),
        wall_s=1.0,
        cpu_s=1.0,
        peak_rss_mb=1.0,
    )
    entries = build_manifest(sorted(Path("results/small").rglob(f"*{RECORD_SUFFIX}")))
    write_manifest(manifest_path("small"), entries, study="small", lock="sentinel")


@pytest.fixture
def finished(repository: Path) -> Path:
    """The study `small` with one job."""
    Path("requirements.lock").write_text("torch==1\n")
    made = Path("results/small/earlier.csv")
    record_job(RECORD_SUFFIX, made)
    return made


def verdict(study: str = "small") -> str:
    """What today's parameters make of the one artefact."""
    (finding,) = audit(study, expected=Expected(spec_sha256=expected_parameters(study))).findings
    return finding.verdict


def test_the_layout_file_is_not_reported_as_unrecorded(finished):
    assert verdict() == "intact"


def test_a_parameter_the_job_read_makes_its_result_outdated(finished):
    edit(lambda raw: raw["toy"]["recipes"]["fast"].update(rate=0.5))
    assert verdict() == "made with other parameters"


def test_a_variant_more_is_another_parameter(finished):
    edit(lambda raw: raw["toy"]["amounts"].update({"3-sentiment": [0.5]}))
    assert verdict() == "made with other parameters"


def test_a_recipe_that_is_gone_is_another_parameter(finished):
    edit(lambda raw: (raw["toy"]["recipes"].pop("fast"), raw["toy"].update(recipe="published")))
    assert verdict() == "made with other parameters"


def test_a_parameter_the_job_did_not_read_changes_nothing(finished):
    edit(lambda raw: (raw["toy"]["recipes"]["published"].update(rate=0.5), raw["toy"].update(trigger="happy")))
    assert verdict() == "intact"


def test_audit_exit_codes(finished):
    assert anatomy_says("audit", "small").exit_code == 1  # the record's lock is not that of today
    report = json.loads(anatomy_says("audit", "small", "--json").stdout)
    assert report["counts"] == {"made with another environment": 1} and report["ok"] is False
    missing = anatomy_says("audit", "smoke")
    assert missing.exit_code == 2
    assert "error: results/smoke/manifest.jsonl cannot be read" in missing.stderr


def test_an_intact_study_passes(finished, monkeypatch):
    monkeypatch.setattr("anatomy.commands.trust.sha256_file", lambda path: "sentinel")
    result = anatomy_says("audit", "small")
    assert result.exit_code == 0, result.output
    assert "intact: 1 artefacts" in result.stdout


def test_explain_shows_the_chain_and_fails_when_it_is_broken(finished):
    result = anatomy_says("explain", str(finished))
    assert result.exit_code == 0
    assert "no_such_stage[subject=2-sentiment]" in result.stdout and "raw input" in result.stdout
    with Path("data/lexicon/positive.txt").open("a") as file:
        file.write("newword\n")
    broken = anatomy_says("explain", str(finished))
    assert broken.exit_code == 1
    assert "CHANGED" in broken.stdout


def test_explain_of_an_unknown_file(finished):
    result = anatomy_says("explain", "results/small/earlier.cvs")
    assert result.exit_code == 2
    assert "The nearest name there is results/small/earlier.csv" in result.stderr


@pytest.fixture
def table(finished: Path) -> Path:
    """A table of the study `small`, made by a second job."""
    made = Path("results/small/tables/t.csv")
    made.parent.mkdir()
    made.write_text('row,column,metric,measured,n\np+t,"(1.0, 1.0)",share,0.25,3\n')
    record_job(f"tables/{RECORD_SUFFIX}", made, "no_such_table")
    return made


def test_explain_of_a_cell_shows_its_number_and_the_chain(table):
    result = anatomy_says("explain", f"{table}:p+t,(1.0, 1.0)")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{table}: p+t,(1.0, 1.0)\n")
    assert "0.25" in result.stdout and "no_such_table[subject=2-sentiment]" in result.stdout
    assert "single measurements: cannot be told" in result.stdout


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("results/small/tables/t.csv:p+t,1.0", "has no column '1.0'. Nearest: '(1.0, 1.0)'"),
        ("results/small/tables:p+t", "results/small/tables is a folder; only a CSV has rows to ask for"),
    ],
)
def test_explain_of_an_unknown_cell(table, asked, message):
    result = anatomy_says("explain", asked)
    assert result.exit_code == 2 and result.stdout == ""
    assert message in result.stderr


def test_explain_draws_the_chain(finished):
    assert anatomy_says("explain", str(finished), "--graph", "chain.svg").exit_code == 0
    assert Path("chain.svg").read_text().startswith("<svg ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chain.png", "give the file a name that ends in .svg"),
        ("results/small/chain.svg", "results/ holds only what the workflow made"),
        ("results/../results/chain.svg", "results/ holds only what the workflow made"),
    ],
)
def test_explain_draws_nowhere_else(finished, name, message):
    before = everything(Path())
    result = anatomy_says("explain", str(finished), "--graph", name)
    assert result.exit_code == 2 and message in result.stderr
    assert everything(Path()) == before


def test_compare_exit_codes(table):
    shutil.copytree("results/small", "earlier/results/small")
    same = anatomy_says("compare", "small", "earlier/results/small")
    assert same.exit_code == 0 and same.stdout.startswith(
        "equal: every line of the tables, figures and claims is the same (1 lines, 1 files)"
    )
    table.write_text(table.read_text().replace("0.25", "0.75"))
    moved = anatomy_says("compare", "earlier/results/small", "small")
    assert moved.exit_code == 1
    assert "tables/t.csv of run B is not as recorded (edited?)" in moved.stdout
    as_json = anatomy_says("compare", "earlier/results/small", "small", "--json")
    assert as_json.exit_code == 1 and json.loads(as_json.stdout)["equal"] is False
    unknown = anatomy_says("compare", "small", "smal")
    assert unknown.exit_code == 2
    assert "error: smal: no study under results/, and no such folder" in unknown.stderr
