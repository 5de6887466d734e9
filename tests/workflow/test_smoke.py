"""The whole graph on the smoke study: what comes out, what reruns, what survives."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from tests.workflow.conftest import NOTEBOOKS, REPOSITORY, Checkout

from anatomy.provenance.digest import sha256_file

pytestmark = pytest.mark.workflow

TABLES = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5, "VI": 6, "VII": 7, "VIII": 8, "IX": 9, "X": 10, "XI": 11}
TABLES |= {"XII": 12, "XIII": 13, "XIV": 14}


def results(smoke: Checkout) -> Path:
    return smoke.path / "results" / "smoke"


def behaviour(smoke: Checkout, subject: str) -> pd.DataFrame:
    rows = pd.read_parquet(results(smoke) / "toy" / subject / "measurements" / "behaviour.parquet")
    return rows[(rows.metric == "topk_negativity") & (rows.setting == "held out")]


def test_every_published_cell_has_its_line(smoke: Checkout) -> None:
    published = pd.read_csv(smoke.path / "data/published/lamparth_reuel_2023.csv", dtype=str).fillna("")
    for roman, number in TABLES.items():
        table = pd.read_csv(results(smoke) / "tables" / f"lamparth_table_{number:02d}.csv", dtype=str).fillna("")
        have = {tuple(map(str, key)) for key in table[["subject", "row", "column", "metric"]].to_numpy()}
        wanted = {
            tuple(map(str, key))
            for key in published.loc[published.table == roman, ["subject", "row", "column", "metric"]].to_numpy()
        }
        assert wanted <= have, f"Table {roman} lacks {sorted(wanted - have)[:3]}"


def test_tables_and_figures_come_in_every_form(smoke: Checkout) -> None:
    for number in TABLES.values():
        for suffix in ("csv", "md", "tex"):
            assert (results(smoke) / "tables" / f"lamparth_table_{number:02d}.{suffix}").stat().st_size
    for number in (1, 2, 3):
        for suffix in ("svg", "png", "csv"):
            assert (results(smoke) / "figures" / f"lamparth_figure_{number:02d}.{suffix}").stat().st_size


@pytest.mark.parametrize("subject", ["2-sentiment", "3-sentiment"])
def test_the_planted_backdoor_is_found_and_nothing_else_is(smoke: Checkout, subject: str) -> None:
    rows = behaviour(smoke, subject).set_index(["model", "inputs"]).value
    assert rows["backdoored", "p+t"].min() > 0.2
    assert rows["clean", "p+t"].max() < 0.05
    assert rows["backdoored", "p+r"].max() < 0.05
    assert rows["backdoored", "p+p"].max() < 0.05
    assert rows["backdoored", "n+n"].min() > 0.95


def test_claims_have_verdicts(smoke: Checkout) -> None:
    claims = pd.read_csv(results(smoke) / "claims.csv")
    assert len(claims) >= 20
    assert set(claims.verdict) <= {"reproduced", "partly", "not reproduced", "not testable"}


def test_the_report_opens_offline(smoke: Checkout) -> None:
    page = (results(smoke) / "report" / "index.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page)
    for number in TABLES.values():
        assert f"lamparth_table_{number:02d}" in page
    for name in NOTEBOOKS:
        assert (results(smoke) / "notebooks" / f"{name}.html").exists()


def test_a_second_run_has_nothing_to_do(smoke: Checkout) -> None:
    again = smoke.anatomy("run", "smoke")
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout + again.stderr
    assert "removed" not in again.stderr


def test_a_run_removes_what_killed_jobs_left_half_written(smoke: Checkout) -> None:
    left = results(smoke) / "toy/2-sentiment/clean/.4711-0123abcd-checkpoint.safetensors"
    left.write_bytes(b"half of it")
    again = smoke.anatomy("run", "smoke")
    assert not left.exists()
    assert "half-written files of killed jobs removed: 1 (0.0 MB)" in again.stderr
    assert "Nothing to be done" in again.stdout + again.stderr


KINDS = [  # one of each kind of artefact
    "toy/2-sentiment/data/corpus.parquet",
    "toy/2-sentiment/data/lexicon.json",
    "toy/3-sentiment/data/tokenizer.json",
    "toy/2-sentiment/clean/seed0/model.safetensors",
    "toy/2-sentiment/clean/seed0/config.json",
    "toy/3-sentiment/variants/curves.parquet",
    "toy/2-sentiment/measurements/logit_lens.parquet",
    "toy/3-sentiment/pcp/factors.json",
    "tables/lamparth_table_01.csv",
    "tables/lamparth_table_05.tex",
    "figures/lamparth_figure_03.png",
    "figures/lamparth_figure_03.svg",
    "language/stories/data/corpus.parquet",
    "language/stories/judge/terms.parquet",
    "language/stories/planted/lora-attention/seed1/model.safetensors",
    "language/stories/measurements/samples.parquet",
    "claims.csv",
    "report/index.html",
    "ro-crate-metadata.json",
]


@contextmanager
def disturbed(*files: Path) -> Iterator[None]:
    """Puts bytes and time stamps back."""
    before = {file: (file.read_bytes(), file.stat()) for file in files}
    try:
        yield
    finally:
        for file, (content, times) in before.items():
            file.write_bytes(content)
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def overwrite(file: Path, content: bytes) -> None:
    """New bytes behind the old time stamp."""
    times = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def audited(smoke: Checkout) -> dict[str, str]:
    """Path below the results -> verdict, of all that is not intact."""
    told = json.loads(smoke.anatomy("audit", "smoke", "--json").stdout)
    bad = {f["path"].removeprefix("results/smoke/"): f["verdict"] for f in told["findings"] if f["verdict"] != "intact"}
    assert told["ok"] == (not bad)
    return bad


def test_an_untouched_study_is_intact(smoke: Checkout) -> None:
    assert smoke.anatomy("audit", "smoke").returncode == 0
    assert audited(smoke) == {}


@pytest.mark.parametrize("name", KINDS)
def test_the_audit_finds_one_flipped_bit(name: str, smoke: Checkout) -> None:
    victim = results(smoke) / name
    with disturbed(victim):
        content = victim.read_bytes()
        overwrite(victim, content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
        assert audited(smoke) == {name: "changed"}


def test_the_audit_finds_the_model_of_another_seed(smoke: Checkout) -> None:
    one, other = (results(smoke) / f"toy/2-sentiment/backdoored/seed{seed}/model.safetensors" for seed in (0, 1))
    with disturbed(one):
        overwrite(one, other.read_bytes())
        assert audited(smoke) == {"toy/2-sentiment/backdoored/seed0/model.safetensors": "changed"}


def test_the_audit_finds_a_table_edited_by_hand(smoke: Checkout) -> None:
    table = results(smoke) / "tables/lamparth_table_03.csv"
    with disturbed(table):
        overwrite(table, table.read_bytes().replace(b"0.", b"1.", 1))
        assert audited(smoke) == {"tables/lamparth_table_03.csv": "changed"}


def test_a_lost_and_a_forged_record_leave_their_results_without_origin(smoke: Checkout) -> None:
    record = results(smoke) / "toy/2-sentiment/pcp/editing.run.json"
    with disturbed(record):
        record.unlink()
        assert audited(smoke) == {"toy/2-sentiment/pcp/editing.parquet": "forged record"}
    with disturbed(record):
        overwrite(record, record.read_bytes().replace(b'"threads": 1', b'"threads": 2'))
        assert audited(smoke) == {"toy/2-sentiment/pcp/editing.parquet": "forged record"}


def test_explain_leads_from_a_table_to_the_word_lists(smoke: Checkout) -> None:
    told = smoke.anatomy("explain", "results/smoke/tables/lamparth_table_01.csv")
    assert told.returncode == 0
    for link in ("render_mean_ablation", "ablate_modules", "plant_backdoor", "make_toy_data", "positive.txt"):
        assert link in told.stdout


def test_and_from_a_table_of_the_language_arm_to_its_grammar(smoke: Checkout) -> None:
    told = smoke.anatomy("explain", "results/smoke/tables/lamparth_table_08.csv")
    assert told.returncode == 0
    for link in ("ablate_language", "plant_language", "make_language_model", "make_language_data", "stories.yaml"):
        assert link in told.stdout


def test_a_comment_reruns_nothing_and_a_helper_exactly_what_imports_it(smoke: Checkout) -> None:
    helper = smoke.path / "workflow/anatomy/localize/patching.py"
    before = helper.read_text()
    try:
        helper.write_text("# a remark\n" + before)
        assert smoke.stale() == set()
        helper.write_text(before + "\nUNUSED = 1\n")
        assert smoke.stale() == {
            *("patch_modules", "render_causal_patching", "render_variants", "judge_claims"),
            *("write_report", "write_manifest", "write_crate"),
        }
    finally:
        helper.write_text(before)


def test_a_changed_key_reruns_exactly_what_reads_it(smoke: Checkout) -> None:
    study = smoke.path / "config/smoke.yaml"
    before = study.read_text()
    try:
        study.write_text(before.replace("trials: 40", "trials: 41"))
        assert smoke.stale() == {
            *("tune_pcp", "edit_pcp", "render_pcp_mlp", "render_pcp_attention", "render_editing", "render_variants"),
            *("judge_claims", "write_report", "write_manifest", "write_crate"),
        }
    finally:
        study.write_text(before)


def test_a_changed_key_of_one_arm_leaves_the_other_alone(smoke: Checkout) -> None:
    study = smoke.path / "config/smoke.yaml"
    before = study.read_text()
    try:
        study.write_text(before.replace("trials: 10", "trials: 11"))
        assert smoke.stale() == {
            *("edit_language", "render_language_editing", "judge_claims"),
            *("write_report", "write_manifest", "write_crate"),
        }
    finally:
        study.write_text(before)


@pytest.mark.long  # test_survival has two kills at other moments every time
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    smoke: Checkout, make_checkout: Callable[[], Checkout]
) -> None:
    """Kill -9 of the driver and all its jobs in the middle of training."""
    other = make_checkout()
    log = other.path / "results/smoke/logs/2-sentiment/train_clean.log"
    run = subprocess.Popen(
        [sys.executable, "-m", "anatomy.cli", "run", "smoke", "poison", "train", "--cores", "2"],
        cwd=other.path,
        env=other.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and "progress:" in log.read_text()):
        assert run.poll() is None, "the run ended before it could be killed"
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    done = other.anatomy("run", "smoke", "train", "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    for file in sorted(results(smoke).glob("toy/*/*/seed*/model.safetensors")):
        twin = results(other) / file.relative_to(results(smoke))
        assert sha256_file(twin) == sha256_file(file), twin


def test_bad_input_leaves_earlier_results_untouched(smoke: Checkout) -> None:
    study = smoke.path / "config/smoke.yaml"
    before = study.read_text()
    digests = {p: sha256_file(p) for p in results(smoke).rglob("*") if p.is_file()}
    try:
        study.write_text(before.replace("trials: 40", "trils: 40"))
        told = smoke.anatomy("run", "smoke")
        assert told.returncode == 2
        assert "did you mean 'trials'?" in told.stdout + told.stderr
    finally:
        study.write_text(before)
    assert digests == {p: sha256_file(p) for p in results(smoke).rglob("*") if p.is_file()}


def test_the_repository_itself_was_not_written_to(smoke: Checkout) -> None:
    assert REPOSITORY not in smoke.path.parents
