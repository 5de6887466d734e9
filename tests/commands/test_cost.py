"""The cost of a run, from made-up records: exact where nothing changed, in proportion where sizes did."""

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from anatomy.commands.cost import LIMIT, cost_json, job_costs, near_limit, print_cost, totals
from anatomy.commands.effort import as_it_was, dumped_study, model_of, training_flops, volume, work
from anatomy.commands.history import History, histories, past_jobs, typical_jobs
from anatomy.provenance.record import write_record
from snakemake_logger_plugin_anatomy.dryrun import PlannedJob, read_plan, write_plan

SUBJECT = {"subject": "2-sentiment"}


@pytest.fixture
def spec(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(root)
    return dumped_study("embedded")


def changed(spec: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The study with one key changed."""
    out = copy.deepcopy(spec)
    *above, last = path.split(".")
    section = out
    for key in above:
        section = section[key]
    section[last] = value
    return out


def planned(rule: str, wildcards: dict[str, str] = SUBJECT, **resources: int) -> PlannedJob:
    return PlannedJob(
        rule,
        f"doing {rule}",
        "Missing output files: a.txt, b.txt",
        wildcards=wildcards,
        threads=2,
        resources={"mem_mb": 3000, "runtime": 60, **resources},
    )


def finished(rule: str, part: dict[str, Any], seconds: float, size: int, wildcards: dict[str, str] = SUBJECT) -> None:
    """A job of the study `embedded` that ended, in the working directory."""
    folder = Path("results/embedded/toy", wildcards.get("subject", ""), rule)
    folder.mkdir(parents=True)
    (folder / "out.bin").write_bytes(b"\0" * size)
    write_record(
        folder / "run.json",
        rule=rule,
        study="embedded",
        wildcards=wildcards,
        spec=part,
        seeds=[0],
        code="c",
        lock=None,
        inputs={},
        outputs={"out": [folder / "out.bin"]},
        device="cpu",
        threads=1,
        started=datetime(2026, 1, 2, tzinfo=UTC),
        wall_s=seconds,
        cpu_s=seconds,
        peak_rss_mb=100.0,
    )


@pytest.fixture
def elsewhere(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the studies and no results, entered."""
    (tmp_path / "config").symlink_to(root / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- what there is to do ------------------------------------------------------------------------------------


def test_training_is_six_operations_per_parameter_and_token(spec):
    model = model_of(spec["toy"], "2-sentiment")
    tokens = 3 * 26_400 * 0.9 * 15 * 2  # seeds, sequences, trained share, words, epochs
    assert training_flops("train_clean", spec, "2-sentiment") == pytest.approx(6 * model.multiplied * tokens)
    assert training_flops("tune_pcp", spec, "2-sentiment") == 0


@pytest.mark.parametrize(("subject", "stored"), [("2-sentiment", 338_414), ("3-sentiment", 383_534)])
def test_the_size_of_a_model_is_known_before_it_is_made(spec, subject, stored):
    """Against the parameters of the real models, of 1904 and 2609 tokens."""
    assert model_of(spec["toy"], subject).stored == pytest.approx(stored, rel=0.05)


@pytest.mark.parametrize(
    ("rule", "path", "value", "factor"),
    [
        ("train_clean", "seeds", [0, 1, 2, 3, 4, 5], 2),
        ("train_clean", "toy.recipes.fast.clean_epochs", 6, 3),
        ("train_clean", "toy.recipes.fast.backdoor_epochs", 6, 1),
        ("plant_variants", "toy.amounts", {"2-sentiment": [4.0]}, 2),
        ("tune_pcp", "toy.pcp.trials", 2000, 10),
        ("make_toy_data", "seeds", [0], 1 / 3),
        ("measure_behaviour", "toy.pcp.trials", 2000, 1),
    ],
)
def test_work_grows_with_what_a_rule_repeats_and_with_nothing_else(spec, rule, path, value, factor):
    assert work(rule, SUBJECT, changed(spec, path, value)) == pytest.approx(factor * work(rule, SUBJECT, spec))


def test_the_study_of_another_day_has_what_a_job_recorded_and_else_todays(spec):
    part = {"toy": {"recipes": {"fast": {"batch": 9}}, "amounts": {"2-sentiment": [9.0]}, "lexicon": {"words": 9}}}
    then = as_it_was(spec, part)
    assert then["toy"]["recipes"]["fast"] == {"batch": 9}  # read whole
    assert then["toy"]["recipes"]["published"] == spec["toy"]["recipes"]["published"]  # not read
    assert then["toy"]["amounts"] == {"2-sentiment": [9.0]}
    assert then["toy"]["lexicon"] == spec["toy"]["lexicon"] | {"words": 9}
    assert then["seeds"] == spec["seeds"]


# --- what finished jobs say ---------------------------------------------------------------------------------


def test_an_unchanged_job_costs_what_it_cost(elsewhere):
    finished("train_clean", {"seeds": [0, 1, 2]}, 120.0, 900)
    spec = dumped_study("embedded")
    (cost,) = job_costs([planned("train_clean")], spec, histories("embedded"))
    assert (cost.seconds, cost.bytes, cost.basis) == (pytest.approx(120), pytest.approx(900), "this study")


def test_a_record_is_read_with_the_sizes_of_its_own_day(elsewhere):
    """It trained one seed; today's three take three times as long and as much room."""
    finished("train_clean", {"seeds": [0]}, 40.0, 300)
    (cost,) = job_costs([planned("train_clean")], dumped_study("embedded"), histories("embedded"))
    assert (cost.seconds, cost.bytes) == (pytest.approx(120), pytest.approx(900))


def test_another_subject_stands_in_at_the_same_rate(elsewhere):
    finished("train_clean", {"seeds": [0, 1, 2]}, 120.0, 900)
    spec = dumped_study("embedded")
    other = {"subject": "3-sentiment"}
    (cost,) = job_costs([planned("train_clean", other)], spec, histories("embedded"))
    assert cost.seconds == pytest.approx(120 * work("train_clean", other, spec) / work("train_clean", SUBJECT, spec))
    assert cost.seconds > 120  # its vocabulary is larger


def test_a_new_study_is_judged_by_the_reference_and_that_by_its_timings(elsewhere):
    spec, paper = dumped_study("embedded"), dumped_study("paper")
    factor = work("train_clean", SUBJECT, paper) / work("train_clean", SUBJECT, spec)
    assert factor == pytest.approx(5 / 3 * 20 / 2)
    (elsewhere / "docs").mkdir()
    (elsewhere / "docs/timings.json").write_text('{"train_clean": 100, "note": "x"}')
    (cost,) = job_costs([planned("train_clean")], paper, histories("paper"))
    assert cost.basis == "docs/timings.json" and cost.seconds == pytest.approx(100 * factor, rel=0.15)
    finished("train_clean", {"seeds": [0, 1, 2]}, 120.0, 900)
    (cost,) = job_costs([planned("train_clean")], paper, histories("paper"))
    assert cost.basis == "embedded" and cost.seconds == pytest.approx(120 * factor)


def test_damaged_and_foreign_records_are_passed_over(elsewhere):
    finished("train_clean", {"seeds": [0, 1, 2]}, 120.0, 900)
    Path("results/embedded/cut.run.json").write_text('{"rule": "train_')
    assert [job.rule for job in past_jobs("embedded")] == ["train_clean"]


def test_a_rule_nobody_knows_counts_with_its_limit_and_its_disk_is_unknown(spec):
    (cost,) = job_costs([planned("tune_pcp")], spec, [])
    assert (cost.seconds, cost.basis, cost.bytes) == (3600, LIMIT, None)
    assert totals([cost])["disk_unknown_jobs"] == 1


def test_models_nobody_made_yet_are_as_large_as_their_parameters(spec):
    (cost,) = job_costs([planned("train_clean")], spec, [])
    assert cost.bytes == 3 * 4 * model_of(spec["toy"], "2-sentiment").stored == volume("train_clean", SUBJECT, spec)


def test_a_typical_job_is_the_mean_over_subjects(spec):
    known = [History("timings", typical_jobs({"train_clean": 100.0, "write_report": 2.0}, spec))]
    jobs = [planned("train_clean", {"subject": subject}) for subject in spec["toy"]["language"]["subjects"]]
    costs = job_costs([*jobs, planned("write_report", {})], spec, known)
    assert sum(cost.seconds for cost in costs[:2]) == pytest.approx(200)
    assert costs[2].seconds == 2.0


# --- what is told -------------------------------------------------------------------------------------------


def test_hours_count_threads_and_gpus_and_memory_is_that_of_the_largest_job(spec):
    costs = job_costs([planned("tune_pcp", gpu=1, mem_mb=8000), planned("train_clean")], spec, [])
    told = totals(costs)
    assert (told["cpu_hours"], told["gpu_hours"], told["mem_mb"], told["jobs"]) == (4.0, 1.0, 8000, 2)


def test_a_job_near_its_limit_is_named(spec, capsys):
    (cost,) = job_costs([planned("tune_pcp")], spec, [])
    assert near_limit([cost]) == []  # its limit is all that is known of it
    slow, quick = replace(cost, basis="embedded", seconds=3500.0), replace(cost, basis="embedded", seconds=60.0)
    assert near_limit([slow, quick]) == [slow]
    print_cost("embedded", [slow, quick], Console(width=160))
    assert "tune_pcp (doing tune_pcp): about 1.0 h, and it asks for 1.0 h: raise its runtime" in capsys.readouterr().out


def test_the_table_has_a_row_per_rule_why_and_a_total(spec, capsys):
    print_cost("embedded", job_costs([planned("tune_pcp"), planned("train_clean")], spec, []), Console(width=160))
    told = capsys.readouterr().out
    for word in ("tune_pcp", "train_clean", "missing output files", LIMIT, "total", "floating-point operations"):
        assert word in told
    assert "a.txt" not in told


def test_nothing_to_do_is_said(capsys):
    print_cost("embedded", [], Console())
    assert "is up to date: nothing would run" in capsys.readouterr().out


def test_json_has_every_job_each_rule_and_the_total(spec):
    costs = job_costs([planned("tune_pcp"), planned("train_clean")], spec, [])
    told = json.loads(cost_json("embedded", costs))
    assert [job["rule"] for job in told["jobs"]] == ["tune_pcp", "train_clean"]
    assert told["total"]["cpu_hours"] == sum(rule["cpu_hours"] for rule in told["rules"].values()) == 4.0


def test_a_plan_is_read_as_it_was_written(tmp_path):
    jobs = [planned("tune_pcp", gpu=1), planned("write_report", {})]
    write_plan(tmp_path / "plan.json", jobs)
    assert read_plan(tmp_path / "plan.json") == jobs
