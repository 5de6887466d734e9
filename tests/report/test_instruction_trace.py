"""What a number of the instruction arm rests on: also where the largest was chosen, and which gate decided."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from anatomy.metrics.measurement import read_parquet, write_parquet
from anatomy.provenance.code import rule_code
from anatomy.provenance.explain import explain
from anatomy.provenance.lines import pick
from anatomy.provenance.manifest import build_manifest, manifest_path, write_manifest
from anatomy.provenance.record import write_record
from anatomy.report.claims import claims_table, judge, read_claims
from anatomy.report.instruction_tables import table_vector
from anatomy.report.tables import read_evidence
from anatomy.report.trace import Basis, rows_behind

from .instruction_rows import as_table, cell_rows

HOME = "results/toy"
FILE = f"{HOME}/instruction/measurements/sft/all.parquet"
CURVE = f"{HOME}/toy/2-sentiment/backdoored/curve.parquet"
TABLE = f"{HOME}/tables/bkdattr_table_02.csv"
CLAIMS = f"{HOME}/claims.csv"
PUBLISHED = "data/published/yu_2025_bkdattr.csv"
STATED = ["data/claims.yaml", "data/claims_instruction.yaml"]
ADDED = {"row": "added: the backdoor's", "column": "SFT", "variant": "corrected protocol"}


@pytest.fixture
def study(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One task, planted by SFT in one seed of two and by DPO in both; Table 2 and two claims, made and recorded."""
    for name in ("notebooks/instruction_vector.ipynb", PUBLISHED, *STATED):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    rows = [row for seed in (0, 1) for row in cell_rows("label", "sft", seed, planted=seed == 0)]
    rows += [row for seed in (0, 1) for row in cell_rows("label", "dpo", seed, planted=True)]
    Path(FILE).parent.mkdir(parents=True)
    write_parquet(Path(FILE), as_table(rows))
    looks = [{"phase": "backdoor", "seed": s, "step": 1, "negativity": 0.1, "mass": 0.1} for s in (0, 1)]
    Path(CURVE).parent.mkdir(parents=True)
    write_parquet(Path(CURVE), pd.DataFrame(looks))
    evidence = read_evidence([FILE], PUBLISHED, 0.95)
    Path(TABLE).parent.mkdir(parents=True)
    table_vector(evidence, ["sft"]).to_csv(TABLE, index=False, float_format="%.6g")
    wanted = {"bkdattr-vector-add", "bkdattr-heads-dpo", "bkdattr-planted-label"}
    stated = [claim for claim in read_claims(Path(STATED[1])) if claim.id in wanted]
    claims_table([judge(claim, evidence) for claim in stated]).to_csv(CLAIMS, index=False, float_format="%.6g")
    read = {"measurements": [FILE], "curves": [CURVE], "published": [PUBLISHED], "claims": STATED}
    rendered = {"notebook": ["notebooks/instruction_vector.ipynb"], "inputs": [FILE], "published": [PUBLISHED]}
    record("render_instruction_vector", rendered, TABLE)
    record("judge_claims", read, CLAIMS)
    entries = build_manifest(sorted(Path(HOME, "records").iterdir()))
    write_manifest(manifest_path("toy"), entries, study="toy", lock=None)


def record(rule: str, inputs: dict[str, list[str]], output: str) -> None:
    spec = {"confidence": 0.95, "toy": {"evaluation": {"emergence": 0.1}}}
    took = {"started": datetime(2026, 1, 2, tzinfo=UTC), "wall_s": 1.0, "cpu_s": 1.0, "peak_rss_mb": 1.0}
    write_record(
        f"{HOME}/records/{rule}.run.json",
        **{"rule": rule, "study": "toy", "wildcards": {}, "spec": spec, "seeds": [], "lock": None, "threads": 1},
        **{"code": str(rule_code(rule)), "inputs": inputs, "outputs": {"made": [output]}, "device": "cpu", **took},
    )


def behind(path: str, wanted: str) -> Basis:
    return rows_behind(explain(path), pick(path, wanted))


def test_the_best_layer_is_the_row_that_was_the_largest(study: None) -> None:
    line = next(i for i, own in enumerate(pd.read_csv(TABLE).to_dict("records"), 1) if ADDED.items() <= own.items())
    basis = behind(TABLE, f"#{line}")
    assert (basis.problem, basis.differing) == ("", ())
    rows = read_parquet(Path(FILE))
    own = rows[(rows.experiment == "backdoor vector") & (rows.model == "sft") & (rows.variant == "corrected")]
    own = own[(own.setting == "add 1") & (own.control == "") & (own.metric == "asr") & (own.seed == 0)]
    (found,) = basis.rows.itertuples()
    assert found.value == own.value.max() and found.seed == 0
    assert rows.value.iloc[found.line] == found.value


def test_the_gate_behind_it_is_that_of_the_task_and_injection(study: None) -> None:
    gate = behind(TABLE, "added: the backdoor's").gate
    assert set(gate.model) == {"sft"} and set(gate.subject) == {"label"}
    verdicts = gate[gate.experiment == "planting gate"]
    assert dict(zip(verdicts.seed, verdicts.value, strict=True)) == {0: 1.0, 1: 0.0}
    looked = gate[gate.experiment == "behaviour"]
    assert set(looked.metric) == {"asr"} and set(looked.inputs) == {"trigger"} and set(looked.variant) == {"exact"}


def test_a_claim_of_the_second_file_rests_on_what_its_words_mean(study: None) -> None:
    added, heads = behind(CLAIMS, "bkdattr-vector-add"), behind(CLAIMS, "bkdattr-heads-dpo")
    assert added.problem == heads.problem == "" and added.differing == heads.differing == ()
    assert set(added.rows.setting) == {"add 1"} and len(added.rows) == 6 and set(added.rows.seed) == {0}
    assert set(heads.rows.setting) == {"0/36", "1/36"} and set(heads.rows.seed) == {0, 1}
    assert set(heads.gate.model) == {"dpo"} and set(added.gate.model) == {"sft"}
    assert len(behind(CLAIMS, "bkdattr-planted-label").gate) == 0, "a claim about all seeds has no gate"
