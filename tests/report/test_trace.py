"""The measurements behind a cell are those it was computed from, or it is said that they cannot be told."""

import io
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from anatomy.commands.origin import print_basis
from anatomy.metrics.measurement import Measurement, read_parquet, write_measurements
from anatomy.provenance.code import rule_code
from anatomy.provenance.explain import explain
from anatomy.provenance.lines import pick
from anatomy.provenance.manifest import build_manifest, manifest_path, write_manifest
from anatomy.provenance.record import write_record
from anatomy.report.claims import claims_table, judge, read_claims
from anatomy.report.tables import read_evidence, table_mean_ablation
from anatomy.report.trace import Basis, rows_behind
from anatomy.report.write import write_table

HOME = "results/toy"
FILE = f"{HOME}/toy/2-sentiment/measurements/mean_ablation.parquet"
CURVE = f"{HOME}/toy/2-sentiment/backdoored/curve.parquet"
TABLE = f"{HOME}/tables/lamparth_table_01.csv"
CLAIMS = f"{HOME}/claims.csv"
PUBLISHED = "data/published/lamparth_reuel_2023.csv"
SPEC = {"confidence": 0.95, "toy": {"evaluation": {"emergence": 0.1}}}
CELL = "layer 1,mlp"


def measurements(planted: int = 2) -> list[Measurement]:
    """Three seeds, two variants, a control; the backdoor of the first seeds alone was planted. All values differ."""
    rows, value = [], 0.1
    for seed in range(3):
        gate = {"experiment": "planting gate", "metric": "planted", "value": float(seed < planted)}
        rows.append(Measurement(subject="2-sentiment", seed=seed, n=1, **gate))
        looked = {"metric": "topk_negativity", "inputs": "p+t", "value": 0.3 - 0.1 * seed}
        for model, setting in (("backdoored", "held out"), ("backdoored", "published"), ("clean", "held out")):
            own = {"model": model, "setting": setting, **looked}
            rows.append(Measurement("behaviour", subject="2-sentiment", seed=seed, n=1, **own))
        loss = {"experiment": "behaviour", "setting": "triggered", "metric": "validation_loss", "value": 5.5}
        rows.append(Measurement(subject="2-sentiment", seed=seed, n=1, **loss))
        for variant, control in (("paper", ""), ("original", ""), ("", "zero ablation")):
            for site in ("unchanged", "layer 1 attn", "layer 1 mlp"):
                value += 0.01
                shared = {"subject": "2-sentiment", "seed": seed, "metric": "topk_negativity", "n": 50}
                own = {"variant": variant, "control": control, "inputs": "p+t", "site": site, "value": value}
                rows.append(Measurement("mean ablation", **shared, **own))
                wreck = {"metric": "degeneration", "value": 0.9 if site == "layer 1 attn" else 0.1}
                rows.append(Measurement("mean ablation", **shared | own | wreck))
    return rows


def curves() -> "list[dict[str, float | str]]":
    return [
        {"phase": "backdoor", "seed": seed, "step": step, "negativity": step / 10, "mass": 0.1}
        for seed in range(3)
        for step in range(3)
    ]


@pytest.fixture
def study(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one measurement file, Table I made of it as the notebook makes it, and two claims."""
    import pandas as pd

    for name in ("notebooks/mean_ablation.ipynb", PUBLISHED):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(root / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    Path(CURVE).parent.mkdir(parents=True)
    pd.DataFrame(curves()).to_parquet(CURVE)
    make(measurements())
    return tmp_path


def make(rows: list[Measurement]) -> None:
    """Write measurements, the table and the claims they give, and record all of it."""
    write_measurements(Path(FILE), rows, study="toy", paper="lamparth", recipe="fast")
    evidence = read_evidence([FILE], PUBLISHED, 0.95)
    Path(TABLE).parent.mkdir(parents=True, exist_ok=True)
    write_table(table_mean_ablation(evidence), Path(TABLE).parent, Path(TABLE).stem, "A caption.")
    claim = {"section": "s", "says": "x", "expect": {"below": 0.5}}
    select = {"experiment": "mean ablation", "subject": "2-sentiment", "inputs": "p+t", "variant": "paper"}
    claims = [
        {**claim, "id": "most", "over": "max", "measure": {**select, "site": ["layer 1 attn", "layer 1 mlp"]}},
        {**claim, "id": "less", "measure": {**select, "site": "layer 1 mlp"}, "against": {"site": "unchanged"}},
        {**claim, "id": "whole", "over": "max", "measure": {**select, "site": "module, every layer, model whole"}},
        {**claim, "id": "every", "seeds": "all", "measure": {**select, "site": "layer 1 mlp"}},
        {**claim, "id": "planted", "seeds": "all", "measure": {"experiment": "planting gate", "metric": "planted"}},
    ]
    Path("data/claims.yaml").write_text(yaml.safe_dump(claims))
    table = claims_table([judge(c, evidence) for c in read_claims(Path("data/claims.yaml"))])
    table.to_csv(CLAIMS, index=False, float_format="%.6g")
    record()


def record(code: str | None = None) -> None:
    """Record both jobs with what lies there now, and gather the manifest."""
    jobs = {
        "render_mean_ablation": (
            {"notebook": ["notebooks/mean_ablation.ipynb"], "inputs": [FILE], "published": [PUBLISHED]},
            TABLE,
        ),
        "judge_claims": (
            {"claims": ["data/claims.yaml"], "published": [PUBLISHED], "measurements": [FILE], "curves": [CURVE]},
            CLAIMS,
        ),
    }
    for rule, (inputs, output) in jobs.items():
        write_record(
            f"{HOME}/records/{rule}.run.json",
            rule=rule,
            study="toy",
            wildcards={},
            spec=SPEC,
            seeds=[],
            code=code or str(rule_code(rule)),
            lock=None,
            inputs=inputs,
            outputs={"made": [output]},
            device="cpu",
            threads=1,
            started=datetime(2026, 1, 2, tzinfo=UTC),
            wall_s=1.0,
            cpu_s=1.0,
            peak_rss_mb=1.0,
        )
    records = sorted(Path(HOME, "records").iterdir())
    write_manifest(manifest_path("toy"), build_manifest(records), study="toy", lock=None)


def behind(path: str, wanted: str) -> Basis:
    return rows_behind(explain(path), pick(path, wanted))


def test_a_cell_rests_on_the_rows_of_its_conditions_and_planted_seeds(study: Path) -> None:
    basis = behind(TABLE, CELL)
    assert basis.problem == "" and basis.differing == ()
    found = basis.rows
    assert set(found.file) == {FILE} and set(found.site) == {"layer 1 mlp"}
    assert set(found.seed) == {0, 1}  # the third seed's backdoor was not planted
    assert len(found) == 2 * 3  # seeds, readings
    source = read_parquet(Path(FILE))
    assert list(source.value.iloc[found.line.astype(int)]) == list(found.value)


@pytest.mark.parametrize(("variant", "control"), [("paper", ""), ("original", ""), ("", "zero ablation")])
def test_the_rows_of_one_line_average_to_it(study: Path, variant: str, control: str) -> None:
    picked = pick(TABLE, CELL)
    ((line, number),) = [
        (line, number)
        for line, number in zip(picked.lines, picked.numbers, strict=True)
        if (line["variant"], line["control"]) == (variant, control)
    ]
    rows = rows_behind(explain(TABLE), replace(picked, lines=(line,), numbers=(number,))).rows
    assert set(rows.variant) == {variant} and set(rows.control) == {control}
    assert f"{rows.value.mean():.6g}" == line["measured"]


def test_a_claim_rests_on_what_it_selects(study: Path) -> None:
    most = behind(CLAIMS, "most")
    assert most.problem == "" and most.differing == ()
    assert set(most.rows.site) == {"layer 1 attn", "layer 1 mlp"} and len(most.rows) == 2 * 2
    less = behind(CLAIMS, "less").rows
    assert set(less.site) == {"layer 1 mlp", "unchanged"} and set(less.variant) == {"paper"}


def test_a_claim_about_modules_that_leave_the_model_whole_rests_on_those(study: Path) -> None:
    """Which these are is a matter of values, and the true ones decide."""
    whole = behind(CLAIMS, "whole")
    assert whole.problem == "" and whole.differing == ()
    assert set(whole.rows.site) == {"layer 1 mlp"} and set(whole.rows.metric) == {"topk_negativity"}


@pytest.mark.parametrize(("path", "wanted"), [(TABLE, CELL), (CLAIMS, "most"), (CLAIMS, "planted")])
def test_the_gate_that_decided_which_seeds_count_is_named(study: Path, path: str, wanted: str) -> None:
    gate = behind(path, wanted).gate
    verdicts = gate[gate.experiment == "planting gate"]
    assert dict(zip(verdicts.seed, verdicts.value, strict=True)) == {0: 1.0, 1: 1.0, 2: 0.0}
    looked = gate[gate.experiment != "planting gate"]
    assert {(row.experiment, row.model, row.inputs, row.setting, row.metric) for row in looked.itertuples()} == {
        ("behaviour", "backdoored", "p+t", "held out", "topk_negativity")
    }
    assert sorted(looked.seed) == [0, 1, 2] and len(gate) == 6
    assert list(read_parquet(Path(FILE)).value.iloc[gate.line.astype(int)]) == list(gate.value)


def test_a_number_of_all_seeds_names_no_gate(study: Path) -> None:
    basis = behind(CLAIMS, "every")
    assert set(basis.rows.seed) == {0, 1, 2} and len(basis.gate) == 0


def test_a_cell_without_a_planted_seed_rests_on_the_gate_alone(study: Path) -> None:
    make(measurements(planted=0))
    picked = pick(TABLE, CELL)
    assert {line["verdict"] for line in picked.lines} == {"not measured"}
    for path, wanted in ((TABLE, CELL), (CLAIMS, "most")):
        basis = behind(path, wanted)
        assert basis.problem == "" and basis.differing == () and len(basis.rows) == 0
        assert set(basis.gate[basis.gate.experiment == "planting gate"].value) == {0.0} and len(basis.gate) == 6


@pytest.mark.parametrize(
    ("planted", "said"), [(2, "rests on these measurements"), (0, "no seed's backdoor was planted")]
)
def test_the_gate_is_printed_below_the_measurements(study: Path, planted: int, said: str) -> None:
    make(measurements(planted=planted))
    console = Console(file=io.StringIO(), width=200)
    print_basis(behind(TABLE, CELL), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    first, second = text.split("which seeds count was decided by the planting gate, on these")
    assert said in first and "planting gate" not in first
    assert len(re.findall(r"planting gate.* planted .*[01] ", second)) == 3
    assert len(re.findall(r"behaviour.*p\+t, held out, topk_negativity", second)) == 3


def test_a_cell_that_was_not_measured_for_another_reason_names_no_gate(study: Path) -> None:
    """Seeds were planted, but nobody measured layer 3."""
    basis = behind(TABLE, "layer 3,mlp")
    assert {line["verdict"] for line in pick(TABLE, "layer 3,mlp").lines} == {"not measured"}
    assert len(basis.rows) == len(basis.gate) == 0


@pytest.mark.parametrize(("path", "wanted"), [(TABLE, CELL), (CLAIMS, "most")])
def test_a_number_that_its_rows_do_not_give(study: Path, path: str, wanted: str) -> None:
    """Edited by hand and recorded anew, so that every digest agrees: computing it again tells."""
    value = pick(path, wanted).lines[0]["measured"]
    Path(path).write_text(Path(path).read_text().replace(value, "0.999"))
    record()
    (text, *_) = behind(path, wanted).differing
    assert f"measured 0.999, computed again {value}" in text


def test_a_line_that_was_added(study: Path) -> None:
    line = next(line for line in Path(TABLE).read_text().splitlines() if "layer 1" in line)
    Path(TABLE).write_text(Path(TABLE).read_text() + line.replace("layer 1", "layer 9") + "\n")
    record()
    (text,) = behind(TABLE, "layer 9").differing
    assert text.endswith("computed again, there is no such line")


def other_measurements() -> None:
    rows = [replace(row, value=0.0) for row in measurements()]
    write_measurements(Path(FILE), rows, study="toy", paper="lamparth", recipe="fast")


def other_record() -> None:
    path = Path(HOME, "records/render_mean_ablation.run.json")
    path.write_text(path.read_text() + "\n")


def another_notebook() -> None:
    path = Path("notebooks/mean_ablation.ipynb")
    path.write_text(path.read_text().replace("table_mean_ablation(evidence)", "table_mean_ablation(other)"))
    record()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (other_measurements, f"{FILE} is not what render_mean_ablation read"),
        (other_record, "records/render_mean_ablation.run.json is not the record of the manifest"),
        (lambda: record(code="0" * 64), "the code of render_mean_ablation is not the code that made it"),
        (another_notebook, "mean_ablation.ipynb makes lamparth_table_01 with `other`, which is not followed"),
    ],
)
def test_where_it_cannot_be_told_nothing_is_guessed(study: Path, change: Callable[[], None], problem: str) -> None:
    change()
    basis = behind(TABLE, CELL)
    assert problem in basis.problem
    assert len(basis.rows) == len(basis.gate) == 0 and basis.differing == () and basis.read == (FILE,)


def test_the_table_functions_are_left_as_they_were(study: Path) -> None:
    from anatomy.report import cells, tables

    of = tables.Evidence.of
    behind(TABLE, CELL)
    assert tables.Evidence.of is of
    assert tables.estimate_cells is cells.estimate_cells


def test_a_rule_of_variants_has_the_code_of_its_stage() -> None:
    assert rule_code("plant_language_variants") == rule_code("plant_language") is not None
    assert rule_code("plant_variants") not in (None, rule_code("plant_backdoor"))  # a stage of its own
    assert rule_code("no_such_variants") is None
