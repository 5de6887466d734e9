"""The chain behind a cell reaches the files no job made, and says what no longer agrees."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from anatomy.commands.trust import is_sound
from anatomy.provenance.audit_ledger import restored_mark
from anatomy.provenance.digest import ArtifactError, sha256_file, write_json_atomic
from anatomy.provenance.explain import Chain, explain, flatten, print_chain
from anatomy.provenance.graph import chain_svg

from .studies import finish_job, gather, write

HOME = "results/toy"
LEXICON = "data/lexicon/positive.txt"
TABLE = f"{HOME}/tables/lamparth_table_01.csv"
WEIGHTS = f"{HOME}/models/clean/model.safetensors"


def shown(chain: Chain, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_chain(chain, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_chain_reaches_raw_inputs(study: Path) -> None:
    chain = explain(TABLE)
    assert set(chain.seen) == {
        TABLE,
        f"{HOME}/measurements/asr.parquet",
        WEIGHTS,
        f"{HOME}/models/clean/config.json",
        f"{HOME}/corpus/train.jsonl",
        LEXICON,
    }
    assert set(chain.seen) - set(chain.jobs) == {LEXICON}
    assert chain.seen[LEXICON].sha256 == sha256_file(LEXICON)
    job = chain.jobs[WEIGHTS]
    assert (job.name, job.seeds, job.device, job.threads, job.wall_s) == (
        *("train_clean[seed=0]", {"torch": 7}, "cpu", 2, 1.25),
    )
    assert job.modules == 5 and job.record_intact  # anatomy, data, training, stages, the stage itself
    assert chain.jobs[TABLE].modules is None


def test_it_does_not_look_beyond_the_file_asked_for(study: Path) -> None:
    assert set(explain(f"{HOME}/corpus/train.jsonl").seen) == {f"{HOME}/corpus/train.jsonl", LEXICON}


@pytest.mark.parametrize("spelling", [TABLE, f"./{TABLE}", f"results/../{TABLE}"])
def test_spellings_of_a_path(study: Path, spelling: str) -> None:
    assert explain(spelling).target == explain(study / spelling).target == TABLE


def test_the_printed_chain(study: Path) -> None:
    text = shown(explain(TABLE, study="toy"))
    assert text.startswith(f"{TABLE}  {sha256_file(TABLE)[:12]}  as recorded")
    assert "made by render_lamparth, record results/toy/tables/lamparth_table_01.run.json" in text
    assert "size.layers=2, size.heads=[4, 4], note=" in text and "x…" in text
    assert "(5 modules), commit none" in text and "device cpu, threads 2, 1.2 s" in text
    assert "as recorded, raw input (no rule made it)" in text
    assert text.count("made by train_clean[seed=0], record") == 1  # two files of one job: written out once
    assert f"made by train_clean[seed=0]: see above at {HOME}/models/clean/config.json (same job)" in text


def test_a_changed_link_is_marked(study: Path) -> None:
    was = sha256_file(LEXICON)
    write(LEXICON, "bad\n")
    Path(WEIGHTS).unlink()
    write(f"{HOME}/corpus/run.json", Path(f"{HOME}/corpus/run.json").read_text() + "\n")
    text = shown(explain(TABLE))
    assert f"{LEXICON}  {was[:12]}  CHANGED, now {sha256_file(LEXICON)[:12]}" in text
    assert f"{WEIGHTS}  " in text and "NOT THERE: no such file" in text
    assert "record results/toy/corpus/run.json (NOT the record of the manifest)" in text


def test_what_a_restore_left_out_is_withheld_and_not_missing(study: Path) -> None:
    Path(WEIGHTS).unlink()
    assert not is_sound(explain(TABLE))
    mark = restored_mark("toy")
    mark.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(mark, {"study": "toy", "restored": "today", "withheld": [WEIGHTS]})
    chain = explain(TABLE)
    assert is_sound(chain) and "withheld: it stayed where it was made" in shown(chain)
    assert "withheld" in chain_svg(chain) and "NOT THERE" not in chain_svg(chain)
    write(WEIGHTS, "other bytes")  # there, and not as recorded: that is no withholding
    assert not is_sound(explain(TABLE))


def test_a_job_that_read_a_record(study: Path) -> None:
    write(f"{HOME}/cost.csv", "x")
    finish_job(f"{HOME}/cost.run.json", "measure_asr", [f"{HOME}/corpus/run.json"], [f"{HOME}/cost.csv"])
    gather()
    chain = explain(f"{HOME}/cost.csv")
    assert chain.jobs[f"{HOME}/corpus/run.json"].rule == "make_corpus"
    assert LEXICON in chain.seen


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{HOME}/tables/lamparth_table_1.csv", f"The nearest name there is {TABLE}"),
        (
            f"{HOME}/corpus/run.json",
            f"It is a run record; ask for what it records: {HOME}/corpus/train.jsonl",
        ),
        (LEXICON, "it is a raw input, read by make_corpus, measure_asr"),
        (
            f"{HOME}/models",
            f"It is a folder of folders; ask for a file or folder in it: {HOME}/models/clean/config.json",
        ),
    ],
)
def test_a_path_in_no_manifest(study: Path, path: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=r"is in no manifest. Studies looked at: toy") as caught:
        explain(path)
    assert message in str(caught.value)


def test_no_study_at_all(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"Studies looked at: none \(no study has run to its end\)"):
        explain("results/toy/x.csv", root=tmp_path)


def test_a_model_folder_is_explained_file_by_file(study: Path) -> None:
    folder = f"{HOME}/models/clean"
    chain = explain(f"{folder}/")
    assert chain.target == folder and set(chain.files) == {WEIGHTS, f"{folder}/config.json"}
    assert chain.files[WEIGHTS] == sha256_file(WEIGHTS)
    text = shown(chain)
    assert text.startswith(f"{folder}\n") and text.count("made by train_clean[seed=0], record") == 1
    assert f"{LEXICON}  {sha256_file(LEXICON)[:12]}  as recorded, raw input" in text


def test_parameters_are_flattened_to_their_leaves() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1, {"e": 2}]}) == [
        ("a.b", "1"),
        ("a.c", "{}"),
        ("d", '[1, {"e": 2}]'),
    ]
    assert flatten({}) == [] and flatten([0, 1], "seeds") == [("seeds", "[0, 1]")]
