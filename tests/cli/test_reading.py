"""Commands that read what is there: the summary, the study as it is resolved, its schema, its ledger."""

import json
from pathlib import Path

from .conftest import anatomy_says


def test_the_summary_is_printed_with_the_path_of_the_report(repository):
    Path("results/small/summary.csv").write_text(
        "item,published,measured,verdict\n"
        '"Table I, p+t [MLP 1]",0.35,"0.41 [0.30, 0.52]",reproduced\n'
        "claim 7,,0.02,not reproduced\n"
    )
    Path("results/small/report").mkdir()
    Path("results/small/report/index.html").write_text("")
    result = anatomy_says("summary", "small")
    assert result.exit_code == 0
    for text in ("claim or table cell", "Table I, p+t [MLP 1]", "0.41 [0.30, 0.52]", "not reproduced"):
        assert text in result.stdout
    assert result.stdout.splitlines()[-1] == f"Report: {repository / 'results/small/report/index.html'}"


def test_without_a_summary_it_says_what_makes_one(repository):
    result = anatomy_says("summary", "small")
    assert result.exit_code == 2
    assert "error: results/small/summary.csv: no summary yet" in result.stderr
    assert "make reproduce STUDY=small" in result.stderr


def test_a_table_that_is_no_summary_is_refused(repository):
    Path("results/small/summary.csv").write_text("item,measured\na,1\n")
    result = anatomy_says("summary", "small")
    assert result.exit_code == 2
    assert "no column published, verdict" in result.stderr


def test_inspect_shows_what_a_study_inherits(repository):
    result = anatomy_says("inspect", "small")
    assert result.exit_code == 0
    for text in ("[0, 1]", "trigger love", "data/lexicon/positive.txt", "results/small/", "toy.pcp"):
        assert text in result.stdout
    assert len(result.stdout.splitlines()) < 80


def test_the_schema_is_written_and_a_drift_is_told(repository):
    Path("config/schema.json").unlink(missing_ok=True)
    assert anatomy_says("schema", "--check").exit_code == 1
    assert anatomy_says("schema").exit_code == 0
    assert "seeds" in json.loads(Path("config/schema.json").read_text())["properties"]
    assert anatomy_says("schema", "--check").exit_code == 0


def test_the_ledger_of_another_study_is_written_on_request(repository):
    assert anatomy_says("schema", "--ledger", "smoke").exit_code == 0
    ledger = Path("dvc.yaml").read_text()
    assert "results/smoke/toy" in ledger and "results/embedded" not in ledger
