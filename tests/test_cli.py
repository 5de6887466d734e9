"""What a person types: each mistake gets one clear message, the right exit code, and touches nothing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

import anatomy
from anatomy.cli import app
from anatomy.commands import run as run_module
from anatomy.commands.cluster import job_prefix
from anatomy.commands.run import environment, snakemake_command, usable_cores
from anatomy.commands.trust import expected_parameters
from anatomy.provenance.audit import Expected, audit
from anatomy.provenance.manifest import build_manifest, manifest_path, write_manifest
from anatomy.provenance.record import RECORD_SUFFIX, write_record
from anatomy.spec.errors import SpecError
from anatomy.spec.layout import LAYOUT
from anatomy.spec.read import load_study
from anatomy.spec.subtree import subtree

REPOSITORY = Path(__file__).resolve().parents[1]
ANATOMY = [sys.executable, "-m", "anatomy.cli"]
# A child process, too, takes the package under test.
PACKAGE = {**os.environ, "PYTHONPATH": str(Path(anatomy.__file__).parents[1])}
# One job that takes long, and one line about it, so that a test knows when it is at work.
SLEEPER = """
rule sleeper:
    output: "results/small/out.txt"
    log: "results/small/logs/sleeper.log"
    message: "sleeping"
    shell: "echo $$ > {log}; sleep 60; touch {output}"
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what `anatomy run` reads before it starts a job, a study `small`, and earlier results."""
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    shutil.copytree(REPOSITORY / "data" / "lexicon", tmp_path / "data" / "lexicon")
    shutil.copytree(REPOSITORY / "profiles", tmp_path / "profiles")
    (tmp_path / "Snakefile").write_text(SLEEPER)
    (tmp_path / "config" / "small.yaml").write_text("extends: smoke\nstudy: small\n")
    (tmp_path / "results" / "small").mkdir(parents=True)
    (tmp_path / "results" / "small" / "earlier.csv").write_text("kept\n")
    (tmp_path / "results" / "small" / "LAYOUT").write_text(f"{LAYOUT}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(change: Callable[[dict[str, Any]], None]) -> None:
    """Change the study `small`, written out in full."""
    raw = load_study("small").model_dump(mode="json")
    change(raw)
    Path("config/small.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")


def everything(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def anatomy_says(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def start(*words: str, interrupts: signal.Handlers = signal.SIG_DFL) -> subprocess.Popen[str]:
    """`anatomy ...` as a process; `interrupts` is what SIGINT does at its start."""
    return subprocess.Popen(
        [*ANATOMY, *words],
        env=PACKAGE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, interrupts),
    )


# --- bad input: one message, exit code 2, nothing touched ---------------------------------------------------


def misspelt_key(raw: dict[str, Any]) -> None:
    raw["toy"]["triger"] = "love"


def wrong_type(raw: dict[str, Any]) -> None:
    raw["toy"]["language"]["length"] = "fifteen"


def no_seeds(raw: dict[str, Any]) -> None:
    raw["seeds"] = []


def foreign_trigger(raw: dict[str, Any]) -> None:
    raw["toy"]["trigger"] = "table"


def missing_list(raw: dict[str, Any]) -> None:
    raw["toy"]["lexicon"]["negative"]["path"] = "data/lexicon/none.txt"


def word_twice(raw: dict[str, Any]) -> None:
    lists = Path("data/lexicon")
    words = (lists / "negative.txt").read_text().splitlines()
    (lists / "positive.txt").write_text("\n".join(words))


def latin_list(raw: dict[str, Any]) -> None:
    with Path("data/lexicon/negative.txt").open("ab") as file:
        file.write("fâché\n".encode("latin-1"))


def short_list(raw: dict[str, Any]) -> None:
    Path("data/lexicon/negative.txt").write_text("bad\nworse\n")


def list_elsewhere(raw: dict[str, Any]) -> None:
    raw["toy"]["lexicon"]["negative"]["path"] = "../elsewhere.txt"


def linked_list(raw: dict[str, Any]) -> None:
    Path("data/lexicon/linked.txt").symlink_to(REPOSITORY / "data/lexicon/negative.txt")
    raw["toy"]["lexicon"]["negative"]["path"] = "data/lexicon/linked.txt"


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (
            misspelt_key,
            r"small\.yaml: toy\.triger: unknown key; allowed here: .*\(did you mean 'trigger'\?\)",
        ),
        (wrong_type, r"small\.yaml: toy\.language\.length: should be a valid integer, got 'fifteen'"),
        (no_seeds, r"small\.yaml: seeds: empty; at least 1 entry needed"),
        (
            foreign_trigger,
            r"small\.yaml: toy: trigger 'table' is not in lexicon\.specials\.positive \(happy, ",
        ),
        (
            list_elsewhere,
            r"small\.yaml: toy\.lexicon\.negative\.path: \.\./elsewhere\.txt lies outside the project; copy",
        ),
        (linked_list, r"small\.yaml: toy\.lexicon\.negative\.path: .* lies outside the project \(it is a link\)"),
        (missing_list, r"data/lexicon/none\.txt: word list not found; expected a UTF-8 text file"),
        (word_twice, r"toy\.lexicon: '\w+'.* in both \w+ and \w+; a word must carry one sentiment"),
        (latin_list, r"data/lexicon/negative\.txt: not UTF-8 \(byte \d+\); save the word list as UTF-8"),
        (short_list, r"toy\.lexicon\.negative: \d usable words .* \d+ needed; lower toy\.lexicon\.words or"),
    ],
)
@pytest.mark.parametrize("command", ["run", "inspect"])
def test_a_mistake_in_a_study_is_told_once_and_touches_nothing(repository, command, mistake, message):
    edit(mistake)
    before = everything(repository)
    result = anatomy_says(command, "small")
    assert result.exit_code == 2
    assert re.match(f"error: (config/)?{message}", result.stderr), result.stderr
    assert result.stderr.count("error:") == 1 and "Traceback" not in result.output
    assert everything(repository) == before


def test_every_mistake_in_a_study_file_is_named_at_once(repository):
    edit(lambda raw: (misspelt_key(raw), no_seeds(raw)))
    result = anatomy_says("run", "small")
    assert result.exit_code == 2
    assert "toy.triger: unknown key" in result.stderr and "seeds: empty" in result.stderr


def test_an_unknown_study_names_the_known_ones_and_the_nearest(repository):
    result = anatomy_says("run", "smal")
    assert result.exit_code == 2
    assert "config/smal.yaml: no such study; there are embedded," in result.stderr
    assert "did you mean 'small'?" in result.stderr


@pytest.mark.parametrize("cores", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_cores_that_is_none_is_refused(repository, cores):
    result = anatomy_says("run", "small", "--cores", cores)
    assert result.exit_code == 2
    assert f"--cores {cores}: expected a number of at least 1, or all" in result.stderr


def test_a_profile_that_is_none_is_refused(repository, started):
    before = everything(repository)
    result = anatomy_says("run", "small", "--profile", "slrum")
    assert result.exit_code == 2
    assert "error: --profile slrum: no profiles/slrum/profile.yaml; expected one of default, slurm" in result.stderr
    assert everything(repository) == before and started == []


def test_outside_the_repository_it_says_where_to_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in ("run", "cost", "summary", "inspect", "audit", "schema"):
        result = anatomy_says(command)
        assert result.exit_code == 2
        assert "no Snakefile here; go to the folder of the repository first" in result.stderr
    assert list(tmp_path.iterdir()) == []


# --- layout -------------------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that would have been run; none is."""
    commands: list[list[str]] = []

    def drive(command: list[str], *_: object) -> int:
        commands.append(command)
        return 0

    monkeypatch.setattr(run_module, "drive", drive)
    return commands


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        (None, "have no layout number: an older version made them"),
        ("0\n", "have layout 0"),
        ("7\n", "have layout 7"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_results_of_another_layout_are_refused_and_kept(repository, started, layout, said, options):
    file = Path("results/small/LAYOUT")
    file.unlink() if layout is None else file.write_text(layout)
    before = everything(repository)
    result = anatomy_says("run", "small", *options)
    assert result.exit_code == 2
    assert f"error: results/small: these results {said}; this version reads and writes layout" in result.stderr
    assert "mv results/small results/small.old" in result.stderr
    assert everything(repository) == before and started == []


@pytest.mark.parametrize("left", [None, "logs/sleeper.log", "toy/.123-half.parquet"])
def test_a_first_run_writes_the_layout(repository, started, left):
    shutil.rmtree("results/small")
    if left:
        Path("results/small", left).parent.mkdir(parents=True)
        Path("results/small", left).write_text("")
    assert anatomy_says("run", "small").exit_code == 0
    assert Path("results/small/LAYOUT").read_text() == f"{LAYOUT}\n"
    assert len(started) == 1


def test_a_dry_run_writes_nothing(repository, started):
    shutil.rmtree("results")
    before = everything(repository)
    assert anatomy_says("run", "small", "--dry-run").exit_code == 0
    assert everything(repository) == before
    assert "--dry-run" in started[0]


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's commands, pretended: the queue is a file, and scancel empties it."""
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "queue").write_text("")
    for name, script in {
        "sbatch": "exit 1",
        "squeue": f"cat {folder}/queue",
        "scancel": f'echo "$@" > {folder}/cancelled; : > {folder}/queue',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_on_slurm_jobs_of_a_killed_run_are_stopped_before_it_starts(repository, started, slurm):
    (slurm / "queue").write_text(f"17 {job_prefix()}_x\n18 another\n")
    result = anatomy_says("run", "small", "--profile", "slurm")
    assert result.exit_code == 0
    assert "stopped Slurm jobs that an earlier run left in the queue: 17" in result.stderr
    assert (slurm / "cancelled").read_text() == "17\n"
    assert "profiles/slurm" in started[0] and "--cores" not in started[0]


@pytest.mark.parametrize("options", [["--dry-run"], ["--profile", "default"]])
def test_a_run_that_submits_nothing_stops_nothing(repository, started, slurm, options):
    (slurm / "queue").write_text(f"17 {job_prefix()}_x\n")
    assert anatomy_says("run", "small", "--profile", "slurm", *options).exit_code == 0
    assert not (slurm / "cancelled").exists() and len(started) == 1


# --- what is started ----------------------------------------------------------------------------------------


def test_the_command_line(repository):
    command = snakemake_command(
        "small", ["a.csv", "b"], profile="profiles/default", executor="local", cores=3, dry_run=False
    )
    assert command[:5] == [sys.executable, "-m", "snakemake", "a.csv", "b"]
    assert command[command.index("--config") + 1] == 'study="small"'
    assert command[command.index("--cores") + 1] == "3"
    assert {"--nolock", "profiles/default", "anatomy"} <= set(command)


def test_jobs_find_this_python_first_and_are_offline_unless_told_otherwise(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    monkeypatch.setenv("PYTHONHASHSEED", "77")
    env = environment()
    assert env["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert (env["HF_HUB_OFFLINE"], env["HF_DATASETS_OFFLINE"], env["PYTHONHASHSEED"]) == ("0", "1", "0")


def test_gpus_of_this_machine_are_shared_out_by_a_local_run_and_no_other(repository, started, slurm, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    anatomy_says("run", "small")
    anatomy_says("run", "small", "--profile", "slurm")
    local, submitted = (" ".join(call) for call in started)
    assert "--resources gpu=3" in local and "--resources" not in submitted
    assert environment(["4", "5"])["ANATOMY_GPUS"] == "4,5"
    monkeypatch.setenv("ANATOMY_GPUS", "7")  # of a run that this one was started by
    assert environment()["ANATOMY_GPUS"] == ""


def test_jobs_find_this_package_whichever_python_they_run(monkeypatch):
    home = str(Path(anatomy.__file__).parents[1])
    for given, wanted in {"": home, home: home, "/a:/b": f"{home}:/a:/b"}.items():
        monkeypatch.setenv("PYTHONPATH", given)
        assert environment()["PYTHONPATH"] == wanted


def test_no_variable_of_the_shell_changes_the_kernels_of_a_job(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "64")
    env = environment()
    assert "OPENBLAS_CORETYPE" not in env and env["OPENBLAS_NUM_THREADS"] == "1"


def test_all_cores_are_a_number():
    assert usable_cores("all") >= 1
    assert usable_cores("3") == 3
    with pytest.raises(SpecError, match="expected a number"):
        usable_cores("٣")


# --- real runs, of a workflow that only sleeps --------------------------------------------------------------


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def job_process() -> int | None:
    """The shell of the sleeping job, once it is at work."""
    log = Path("results/small/logs/sleeper.log")
    text = log.read_text().strip() if log.exists() else ""
    return int(text) if text else None


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    if sys.platform != "linux":
        return True
    try:  # a zombie, where nobody reaps orphans, is dead enough
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone in between
        return False


@pytest.fixture
def running(repository: Path, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A run whose job is at work, and the job's process."""
    driver = start("run", "small", "--cores", "1", interrupts=getattr(request, "param", signal.SIG_DFL))
    job = None
    try:
        wait_for(lambda: job_process() or driver.poll() is not None)
        job = job_process()
        assert job, driver.communicate()
        yield driver, job
    finally:
        driver.kill()
        driver.communicate()
        if job:
            wait_for(lambda: not is_alive(job))


def test_one_run_at_a_time_and_none_left_behind_by_kill_9(running, repository):
    driver, job = running
    before = everything(repository)
    second = anatomy_says("run", "small")
    assert second.exit_code == 3
    assert second.stderr == (
        f"error: another run is in progress in this folder (process {driver.pid}); wait for it or stop it\n"
    )
    assert everything(repository) == before

    driver.kill()
    driver.wait()
    wait_for(lambda: not is_alive(job), seconds=10)
    Path("results/small/logs/sleeper.log").unlink()
    third = start("run", "small", "--cores", "1")  # nothing has to be unlocked by hand
    try:
        wait_for(lambda: job_process() or third.poll() is not None)
        assert third.poll() is None, third.communicate()
    finally:
        third.kill()
        third.communicate()


# A script that starts a run in the background has it ignore SIGINT; SIGTERM must still stop all of it.
@pytest.mark.parametrize(
    ("running", "number"),
    [(signal.SIG_DFL, signal.SIGINT), (signal.SIG_DFL, signal.SIGTERM), (signal.SIG_IGN, signal.SIGTERM)],
    indirect=["running"],
)
def test_a_request_to_stop_ends_the_jobs_too(running, number):
    driver, job = running
    driver.send_signal(number)
    _, said = driver.communicate(timeout=30)
    assert driver.returncode == 1
    assert "the same command continues from here" in said
    assert not is_alive(job)
    assert not Path("results/small/out.txt").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_kill_9_of_make_ends_the_run(repository):
    command = [*ANATOMY, "run", "small", "--cores", "1", "--with-parent"]
    parent = subprocess.Popen([sys.executable, "-c", f"import subprocess; subprocess.run({command})"], env=PACKAGE)
    try:
        wait_for(lambda: job_process() or parent.poll() is not None)
        job = job_process()
        assert job
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not is_alive(job), seconds=10)


# --- reading results ----------------------------------------------------------------------------------------


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


# --- audit and explain --------------------------------------------------------------------------------------


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


# --- help ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [[], ["run"], ["summary"], ["audit"], ["explain"], ["compare"], ["inspect"], ["schema"]]
)
def test_help_loads_nothing_heavy(words):
    code = (
        "import sys; from anatomy.cli import app\n"
        f"try: app({[*words, '--help']!r})\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'transformers', 'snakemake', 'pandas', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


# --- make ---------------------------------------------------------------------------------------------------


def make(*words: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    """`make ...` with this repository's Makefile in the folder of the test."""
    shutil.copy(REPOSITORY / "Makefile", "Makefile")
    # Tests may themselves run below make, which hands its variables down.
    env = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "STUDY"}}
    return subprocess.run(["make", *words], input=answer, env=env, capture_output=True, text=True, check=False)


def test_make_help_lists_every_command(repository):
    result = make()
    assert result.returncode == 0
    commands = {"help", "reproduce", "test", "lint", "bench", "archive", "restore", "audit", "clean"}
    assert commands <= {line.split()[0] for line in result.stdout.splitlines()[1:]}


def test_make_names_the_python_it_needs(repository):
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, name)
    result = make("venv", "PYTHON=/bin/false")
    assert result.returncode == 2
    assert "no Python of version 3.11 or newer" in result.stderr and "make PYTHON=" in result.stderr
    assert not Path(".venv").exists()


@pytest.mark.parametrize("study", ["", "..", "../small", "small/", "."])
def test_make_clean_takes_only_the_name_of_a_study(repository, study):
    before = everything(repository)
    result = make("clean", f"STUDY={study}", "YES=1")
    assert result.returncode == 2
    assert "is no study's name" in result.stderr
    assert everything(repository) == before | {"Makefile": (REPOSITORY / "Makefile").read_bytes()}


def test_make_clean_asks_first(repository):
    for answer, kept in [("n\n", True), ("", True), ("y\n", False)]:
        result = make("clean", "STUDY=small", answer=answer)
        assert result.returncode == 0
        assert "results/small holds 2 files" in result.stdout
        assert Path("results/small").exists() is kept
    assert Path("results").exists()
