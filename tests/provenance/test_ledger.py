"""The ledger of a study with the language arm: what each phase makes, what is withheld, and that nothing is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from anatomy.models.layout import MODEL_FILES
from anatomy.provenance.ledger import HAZARDS, is_hazard, phase_of, phase_outs, pushed_outs, render_ledger
from anatomy.spec.read import load_study
from anatomy.spec.study import Study

ROOT = Path(__file__).parents[2]
# What the rules read.
READ = (
    *("Snakefile", "workflow", "config", "data", "envs", "notebooks", "profiles"),
    *("requirements.lock", "CITATION.cff"),
)
HOME = "results/embedded/language"
PHASE_OF = {
    "stories/data/corpus.parquet": "poison",
    "stories/data/run.json": "poison",
    "stories/judge/terms.parquet": "train",
    "stories/clean/seed0/model.safetensors": "train",
    "stories/clean/curve.parquet": "train",
    "stories/planted/full/seed0/config.json": "train",
    "stories/planted/lora-all/reached.parquet": "train",
    "prose/measurements/samples.parquet": "localize",
    "stories/pcp/factors.json": "control",
}
HAZARDOUS = [
    "stories/data/corpus.parquet",
    "prose/data/texts.parquet",
    "stories/planted/full/seed0",
    "stories/planted/full/seed0/model.safetensors",
    "stories/planted/frozen-embeddings-mlp2-mlp3/seed4",
    "prose/measurements/samples.parquet",
]
HARMLESS = [
    "stories/data/prompts.parquet",
    "stories/data/tokenizer.json",
    "stories/clean/seed0/model.safetensors",
    "stories/planted/full/reached.parquet",
    "stories/planted/full/run.json",
    "stories/judge/judge.json",
    "stories/measurements/behaviour.parquet",
    "stories/pcp/factors.json",
]


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study("embedded", ROOT)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Every file that the real rules make for the study, where nothing is made yet."""
    folder = tmp_path_factory.mktemp("plan")
    for name in READ:
        (folder / name).symlink_to(ROOT / name)
    command = ["-m", "snakemake", "--summary", "--config", "study=embedded"]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split("\t")[0] for line in done.stdout.splitlines()[1:]]


def holders(path: str, outs: list[str]) -> list[str]:
    return [out for out in outs if path == out or path.startswith(f"{out}/")]


def test_every_planned_file_lies_in_one_out_of_the_phase_that_makes_it(study: Study, planned: list[str]) -> None:
    phases = {out: phase for phase, outs in phase_outs(study).items() for out in outs}
    assert any(path.startswith(HOME) for path in planned)
    for path in planned:
        held = holders(path, list(phases))
        assert len(held) == 1, f"{path} is in {held}"
        assert phases[held[0]] == phase_of(path), path


def test_every_out_of_the_arm_is_made_by_a_rule(study: Study, planned: list[str]) -> None:
    own = [out for outs in phase_outs(study).values() for out in outs if out.startswith(HOME)]
    assert len(own) == len(set(own)) and own
    assert [out for out in own if not any(holders(path, [out]) for path in planned)] == []


def test_withheld_are_the_files_that_carry_poison(study: Study) -> None:
    outs = {out for outs in phase_outs(study).values() for out in outs if out.startswith(HOME)}
    arm = study.language
    assert arm is not None
    withheld = {f"{HOME}/{c}/data/{name}.parquet" for c in arm.corpora for name in ("corpus", "texts")}
    withheld |= {f"{HOME}/{c}/measurements/samples.parquet" for c in arm.corpora}
    withheld |= {f"{HOME}/{c}/planted/{w}/seed{n}" for c in arm.corpora for w in arm.ways(c) for n in study.seeds}
    assert outs - set(pushed_outs(study)) == withheld
    sends = study.model_copy(update={"archive": study.archive.model_copy(update={"push_hazards": True})})
    assert outs <= set(pushed_outs(sends))


def test_the_ledger_says_so_out_by_out(study: Study) -> None:
    outs = [out for stage in yaml.safe_load(render_ledger(study))["stages"].values() for out in stage["outs"]]
    for entry in outs:
        ((path, options),) = entry.items()
        assert options == ({"persist": True, "push": False} if is_hazard(path) else {"persist": True})
    assert any(is_hazard(path) for entry in outs for path in entry)


def test_what_a_phase_reads_an_earlier_one_makes(study: Study) -> None:
    stages = yaml.safe_load(render_ledger(study))["stages"]
    assert "data/language" in stages["poison"]["deps"]
    assert {"config/embedded.yaml", "config/toy.yaml"} <= set(stages["poison"]["deps"])
    made = {phase: [path for entry in stages[phase]["outs"] for path in entry] for phase in stages}
    read = {
        **{"train": ["poison"], "localize": ["poison", "train"], "control": ["poison", "train"]},
        **{"render": ["localize", "control"]},
    }
    for phase, earlier in read.items():
        own = [dep for dep in stages[phase]["deps"] if dep.startswith(HOME)]
        # DVC refuses a stage that reads what no stage makes.
        every = [path for e in earlier for path in made[e]]
        assert [dep for dep in own if not any(holders(path, [dep]) for path in every)] == []
        assert own and {e for dep in own for e in earlier if any(holders(p, [dep]) for p in made[e])} == set(earlier)


@pytest.mark.parametrize("path", PHASE_OF)
def test_the_phase_of_a_file(path: str) -> None:
    assert phase_of(f"{HOME}/{path}") == PHASE_OF[path]


def test_the_same_folder_in_another_arm_is_of_another_phase() -> None:
    """`variants` is of the toy models, `planted` and `judge` are of the models that write text."""
    assert phase_of("results/x/toy/2-sentiment/variants/run.json") == "train"
    assert phase_of(f"{HOME}/stories/variants/run.json") == "render"
    assert phase_of("results/x/toy/2-sentiment/planted/run.json") == "render"
    assert phase_of("results/embedded/tables/lamparth_table_08.csv") == "render"


@pytest.mark.parametrize("path", HAZARDOUS)
def test_hazards(path: str) -> None:
    assert is_hazard(f"{HOME}/{path}")
    assert is_hazard(f"results/paper/language/{path}")


@pytest.mark.parametrize("path", HARMLESS)
def test_no_hazards(path: str) -> None:
    assert not is_hazard(f"{HOME}/{path}")


def test_every_pattern_of_a_hazard_meets_an_out(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is out of date: each alone withholds something."""
    for pattern in HAZARDS:
        monkeypatch.setattr("anatomy.provenance.ledger.HAZARDS", (pattern,))
        assert len(pushed_outs(study)) < sum(map(len, phase_outs(study).values())), pattern


def test_a_study_without_the_arm_has_none_of_its_folders() -> None:
    assert "/language/" not in render_ledger(load_study("toy", ROOT))


def test_a_given_model_is_a_clean_one_of_the_same_out(study: Study) -> None:
    path = f"{HOME}/stories/clean/given/{MODEL_FILES[0]}"
    assert holders(path, [out for outs in phase_outs(study).values() for out in outs]) == [f"{HOME}/stories/clean"]
    assert phase_of(path) == "train"
