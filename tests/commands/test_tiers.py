"""The tiers: what is made again, in which order, and what the comparison says. Snakemake and DVC are left out."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from anatomy.cli import app
from anatomy.commands import tiers
from anatomy.provenance import archive as archive_module
from anatomy.provenance import restore as restore_module
from anatomy.provenance.audit_report import AuditReport, Finding
from anatomy.provenance.digest import ArtifactError, sha256_text, write_text_atomic
from anatomy.provenance.ledger import phase_outs, pushed_outs
from anatomy.provenance.manifest import Manifest
from anatomy.provenance.restore import restore
from anatomy.spec.read import load_study

ROOT = Path(__file__).parents[2]
TOY = "results/toy/toy/2-sentiment"
MADE = {  # path -> rule
    f"{TOY}/data/corpus.parquet": "make_toy_data",
    f"{TOY}/data/examples.parquet": "make_toy_data",
    f"{TOY}/clean/seed0/model.safetensors": "train_clean",
    f"{TOY}/backdoored/seed0/model.safetensors": "plant_backdoor",
    f"{TOY}/measurements/behaviour.parquet": "measure_behaviour",
    f"{TOY}/pcp/ablation.parquet": "tune_pcp",
    "results/toy/tables/one.csv": "render_one",
    "results/toy/report/index.html": "write_report",
}
HAZARDS = {path: rule for path, rule in MADE.items() if "corpus" in path or "backdoored" in path}
DRAWN = {"render_one", "write_report"}
ARCHIVED = sha256_text("archived")  # the digest of every archived run record


def record(rule: str) -> str:
    return f"results/toy/records/{rule}.run.json"


def manifest(**changed: str) -> Manifest:
    """The study's manifest; `changed` gives the files of a rule another digest."""
    entries = [
        {
            "path": path,
            "rule": rule,
            "sha256": changed.get(rule, "0"),
            "record": record(rule),
            "record_sha256": ARCHIVED,
        }
        for path, rule in MADE.items()
    ]
    return Manifest(Path("manifest.jsonl"), "0" * 64, "toy", None, tuple(entries))  # type: ignore[arg-type]


def audited(*findings: Finding) -> AuditReport:
    return AuditReport("toy", findings, len(MADE), 0, 0.0, "0" * 64, ())


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, list, str]]:
    """Run a tier with a given audit and result; returns the exit code, the runs asked for, and what was printed.

    The rules in `killed_after` write their records, and then the run ends as one that was killed does. `archive` is the
    digest of the archived manifest.
    """
    monkeypatch.chdir(tmp_path)

    def run(
        tier: str,
        report: AuditReport,
        after: Manifest | None = None,
        code: int = 0,
        killed_after: Iterable[str] | None = None,
        archive: str = "m",
    ) -> tuple[int, list, str]:
        runs: list[dict[str, Any]] = []

        def restored(study: str) -> Manifest:
            for rule in set(MADE.values()):
                write_text_atomic(record(rule), "archived")
            runs.append({"restored": study})
            return manifest()

        def run_study(study: str, targets: tuple = (), **asked: Any) -> int:
            runs.append({"targets": list(targets), "only": set(asked["only"]), "again": set(asked.get("again", ()))})
            if killed_after is not None and not targets:
                for rule in killed_after:
                    write_text_atomic(record(rule), "made again")
                raise KeyboardInterrupt
            return code

        monkeypatch.setattr(tiers, "restore", restored)
        monkeypatch.setattr(tiers, "put_back_manifest", lambda study: manifest())
        monkeypatch.setattr(tiers, "locked_digests", lambda: {"results/toy/manifest.jsonl": archive})
        monkeypatch.setattr(tiers, "audit_study", lambda study: report)
        monkeypatch.setattr(tiers, "run_study", run_study)
        monkeypatch.setattr(tiers, "read_manifest", lambda path: after or manifest())
        with Path("out").open("w") as file:
            done = tiers.run_tier("toy", tier, Console(file=file, width=200), profile="default", cores="1")
        return done, [run for run in runs if "restored" not in run], Path("out").read_text()

    return run


def withheld() -> list[Finding]:
    return [Finding(path, "withheld", "", rule) for path, rule in reversed(HAZARDS.items())]


def test_an_audit_runs_nothing_and_its_verdict_is_the_exit_code(staged: Callable) -> None:
    assert staged("audit", audited(*withheld()))[:2] == (0, [])
    assert staged("audit", audited(Finding("x", "changed", "", "render_one")))[:2] == (1, [])


def test_render_forces_the_last_phase_and_lets_nothing_else_run(staged: Callable) -> None:
    code, runs, said = staged("render", audited(*withheld()), manifest(write_report="1"))
    assert code == 0 and runs == [{"targets": [], "only": DRAWN | set(tiers.LAST), "again": DRAWN}]
    assert "render: 1 of 1 files made again equal the archived ones, byte for byte" in said


def test_measure_makes_first_what_stays_at_home_and_compares_it_too(staged: Callable) -> None:
    code, runs, said = staged("measure", audited(*withheld()), manifest(plant_backdoor="1", tune_pcp="1"))
    again = DRAWN | {"measure_behaviour", "tune_pcp"}
    corpus, weights = HAZARDS
    assert runs == [
        {"targets": [corpus], "only": {"make_toy_data"}, "again": set()},
        {"targets": [weights], "only": {"plant_backdoor"}, "again": set()},
        {"targets": [], "only": again | set(tiers.LAST), "again": again},
    ]
    assert code == 1 and "measure: 4 of 6 files made again equal the archived ones" in said
    assert {line.partition("differs: ")[2] for line in said.splitlines() if "differs" in line} == {
        weights,
        f"{TOY}/pcp/ablation.parquet",
    }
    assert "stay at home); they are made again first: make_toy_data" in said


def test_measure_with_pushed_hazards_trains_nothing(staged: Callable) -> None:
    _, runs, said = staged("measure", audited())
    assert len(runs) == 1 and "at home" not in said


@pytest.mark.parametrize(
    ("finding", "stops"),
    [
        (Finding("results/toy/tables/one.csv", "made by other code", "", "render_one"), False),
        (Finding("notebooks/one.ipynb", "changed input", "", "render_one"), False),
        (Finding(f"{TOY}/pcp/ablation.parquet", "made by other code", "", "tune_pcp"), True),
        (Finding("data/words.txt", "changed input", "", "make_toy_data, render_one"), True),
        (Finding("results/toy/tables/one.csv", "changed", "", "render_one"), True),
        (Finding("results/toy/x", "unrecorded", "", ""), True),
    ],
)
def test_what_would_rest_on_unsound_files_is_not_made(finding: Finding, stops: bool, staged: Callable) -> None:
    code, runs, said = staged("render", audited(finding))
    assert bool(runs) != stops and code == stops
    assert ("nothing was made again" in said) == stops


def half_made(*rules: str) -> list[Finding]:
    """What the audit says of files that were made again, held against the archived manifest."""
    return [Finding(path, "forged record", "", rule) for path, rule in MADE.items() if rule in rules]


def test_a_tier_that_was_killed_goes_on_and_compares(staged: Callable) -> None:
    with pytest.raises(KeyboardInterrupt):
        staged("measure", audited(*withheld()), killed_after=["measure_behaviour", "render_one"])
    half = half_made("make_toy_data", "plant_backdoor", "measure_behaviour", "render_one")
    code, runs, said = staged("measure", audited(*half), manifest(tune_pcp="1", plant_backdoor="1"))
    corpus, weights = HAZARDS
    assert [run["targets"] for run in runs] == [[corpus], [weights], []]  # asked for again; what is there stays
    assert runs[-1]["again"] == {"tune_pcp", "write_report"}  # the others stay as they were made again
    assert runs[-1]["only"] == DRAWN | {"measure_behaviour", "tune_pcp"} | set(tiers.LAST)
    assert code == 1 and "measure: 4 of 6 files made again equal the archived ones" in said
    assert "going on from where it was cut short" in said and "forged" not in said
    code, runs, said = staged("measure", audited(*withheld()))  # finished: the next one begins anew
    assert code == 0 and "going on" not in said and len(runs[-1]["again"]) == 4


@pytest.mark.parametrize(
    ("finding", "stops"),
    [
        (Finding(f"{TOY}/measurements/behaviour.parquet", "changed", "", "measure_behaviour"), True),
        (Finding("results/toy/tables/one.csv", "missing", "", "render_one"), False),
        (Finding("data/words.txt", "changed input", "", "make_toy_data"), True),
    ],
)
def test_a_tier_that_goes_on_rests_on_nothing_unsound(finding: Finding, stops: bool, staged: Callable) -> None:
    for _ in range(2):  # it may be killed more than once
        with pytest.raises(KeyboardInterrupt):
            staged("render", audited(), killed_after=[])
    code, runs, said = staged("render", audited(finding))
    assert bool(runs) != stops and code == stops
    assert ("nothing was made again" in said) == stops


@pytest.mark.parametrize("again", [{"tier": "measure"}, {"tier": "render", "archive": "another"}])
def test_another_tier_or_archive_begins_anew(again: dict[str, str], staged: Callable) -> None:
    with pytest.raises(KeyboardInterrupt):
        staged("render", audited(), killed_after=["render_one"])
    said = staged(report=audited(), **again)[2]
    assert "going on" not in said and "byte for byte" in said


def test_restored_attestations_are_judged_and_then_taken_out(staged: Callable) -> None:
    folder = Path("results/toy/attestations")
    write_text_atomic(folder / "train.intoto.json", "{}")
    assert staged("audit", audited())[0] == 0 and folder.exists()
    code, _, said = staged("render", audited())
    assert code == 0 and not folder.exists()
    assert "archive/toy.attestations.tar.gz has them" in said


def test_a_failed_run_ends_the_tier(staged: Callable) -> None:
    code, runs, said = staged("measure", audited(*withheld()), code=7)
    assert (code, len(runs)) == (7, 1) and "byte for byte" not in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tier", "everything"], "--tier everything: expected one of audit, render, measure, full"),
        (["--tier", "render", "-n"], "--tier render restores a whole study before it runs; give it no targets"),
        (["poison", "--tier", "measure"], "--tier measure restores a whole study before it runs"),
    ],
)
def test_a_tier_that_cannot_be(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    told = CliRunner().invoke(app, ["run", "smoke", *words])
    assert told.exit_code == 2 and message in told.output


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The repository with the ledger of `embedded`, no archive, and a DVC that knows no remote."""
    for name in ("config", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    for module in (archive_module, restore_module):
        monkeypatch.setattr(module, "dvc", lambda *words: "")
    return tmp_path


def write_lock(root: Path, outs: list[str]) -> None:
    stages = {"all": {"outs": [{"path": out, "md5": "0" * 32} for out in outs]}}
    (root / "dvc.lock").write_text(json.dumps({"stages": stages}))


def test_without_an_archive_it_says_who_makes_one(ledger: Path) -> None:
    outs = [out for phase in phase_outs(load_study("embedded")).values() for out in phase]
    with pytest.raises(ArtifactError, match=r"no archive of the study embedded: dvc.lock does not hold .*corpus.parq"):
        restore("embedded")
    write_lock(ledger, outs[:-1])  # of another layout
    with pytest.raises(ArtifactError, match=r"dvc.lock does not hold results/embedded/LAYOUT. `anatomy archive embed"):
        restore("embedded")
    write_lock(ledger, outs)
    with pytest.raises(ArtifactError, match=r"embedded.snakemake-metadata.tar.gz.dvc is not there"):
        restore("embedded")
    pointer = Path(f"{archive_module.archive_path('embedded')}.dvc")
    pointer.parent.mkdir()
    pointer.touch()
    with pytest.raises(ArtifactError, match=r"no DVC remote is set.*dvc remote add -d NAME URL"):
        restore("embedded")


def test_the_archive_holds_everything_but_corpora_and_backdoored_models() -> None:
    study = load_study("embedded", ROOT)
    outs = {out for phase in phase_outs(study).values() for out in phase}
    home = f"results/{study.study}/toy"
    kept = {f"{home}/{s}/data/corpus.parquet" for s in study.toy.language.subjects}
    kept |= {f"{home}/{s}/backdoored/seed{n}" for s in study.toy.language.subjects for n in study.seeds}
    texts = f"results/{study.study}/language"
    kept |= {f"{texts}/{c}/data/{file}.parquet" for c in study.language.corpora for file in ("corpus", "texts")}
    kept |= {f"{texts}/{c}/measurements/samples.parquet" for c in study.language.corpora}
    kept |= {
        f"{texts}/{c}/planted/{way}/seed{n}"
        for c in study.language.corpora
        for way in study.language.ways(c)
        for n in study.seeds
    }
    told = f"results/{study.study}/instruction"
    kept |= {f"{told}/data/examples.parquet", f"{told}/measurements/samples.parquet"}
    kept |= {
        f"{told}/planted/{way}/{task}/seed{n}"
        for way in study.instruction.injections
        for task in study.instruction.tasks
        for n in study.seeds
    }
    assert outs - set(pushed_outs(study)) == kept
    sends = study.model_copy(update={"archive": study.archive.model_copy(update={"push_hazards": True})})
    assert set(pushed_outs(sends)) == outs
