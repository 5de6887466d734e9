"""The manifest binds what the records say to what the disk holds, or is not written."""

import json
from pathlib import Path

import pytest

from anatomy.provenance.digest import ArtifactError, sha256_file, sha256_json
from anatomy.provenance.manifest import build_manifest, read_manifest, write_manifest
from anatomy.provenance.record import read_record

from .studies import LOCK, finish_job, gather, write

MANIFEST = Path("results/toy/manifest.jsonl")
CORPUS = "results/toy/corpus/train.jsonl"


def records() -> list[Path]:
    return sorted(Path("results/toy").rglob("*run.json"))


def test_one_line_per_artefact_bound_to_its_job(study: Path) -> None:
    manifest = read_manifest(MANIFEST)
    assert (manifest.study, manifest.lock, manifest.sha256) == ("toy", LOCK, sha256_file(MANIFEST))
    assert [entry["path"] for entry in manifest.entries] == [
        CORPUS,
        "results/toy/measurements/asr.parquet",
        "results/toy/models/clean/config.json",
        "results/toy/models/clean/model.safetensors",
        "results/toy/tables/lamparth_table_01.csv",
    ]
    entry, record = manifest.entries[3], read_record("results/toy/models/clean/run.json")
    assert entry["sha256"] == sha256_file(entry["path"])
    assert entry["record_sha256"] == sha256_file(entry["record"])
    assert entry["spec_sha256"] == sha256_json(record["spec"])
    assert entry["inputs"] == [{"path": CORPUS, "sha256": sha256_file(CORPUS)}]
    assert (entry["rule"], entry["job"], entry["code"]) == ("train_clean", record["job"], record["code"])


def test_rebuilding_gives_the_same_bytes_in_any_order(study: Path) -> None:
    before = MANIFEST.read_bytes()
    write_manifest(MANIFEST, build_manifest(records()[::-1])[::-1], study="toy", lock=LOCK)
    assert MANIFEST.read_bytes() == before


def test_a_file_that_is_not_what_its_record_says(study: Path) -> None:
    old = sha256_file(CORPUS)
    write(CORPUS, "edited")
    with pytest.raises(ArtifactError) as caught:
        build_manifest(records())
    message = str(caught.value)
    assert message.startswith(f"{CORPUS} is not what the rule make_corpus made")
    assert old in message and sha256_file(CORPUS) in message
    assert f"delete {CORPUS} and run the workflow" in message


def test_a_missing_output(study: Path) -> None:
    Path(CORPUS).unlink()
    with pytest.raises(ArtifactError, match=r"is not what the rule make_corpus made: .* now no such file"):
        build_manifest(records())


def test_an_output_that_a_restore_left_out_keeps_its_line(study: Path) -> None:
    before = build_manifest(records())
    Path(CORPUS).unlink()
    assert build_manifest(records(), {CORPUS}) == before
    write(CORPUS, "made again, and not what its record says")
    with pytest.raises(ArtifactError, match=r"is not what the rule make_corpus made"):
        build_manifest(records(), {CORPUS})


def test_two_records_for_one_path(study: Path) -> None:
    finish_job("results/toy/old.run.json", "measure_asr", [], [CORPUS])
    with pytest.raises(ArtifactError) as caught:
        build_manifest(records())
    message = str(caught.value)
    assert f"two run records claim {CORPUS}" in message
    assert "results/toy/old.run.json (rule measure_asr)" in message and "corpus/run.json (rule make_corpus)" in message


def test_a_result_made_from_an_earlier_input(study: Path) -> None:
    write(CORPUS, "another corpus")
    finish_job("results/toy/corpus/run.json", "make_corpus", ["data/lexicon/positive.txt"], [CORPUS])
    with pytest.raises(ArtifactError, match=f"was made from an earlier {CORPUS}.*--forcerun train_clean"):
        gather()


def test_one_manifest_one_study(study: Path) -> None:
    write("results/other/a.csv", "a")
    finish_job("results/other/run.json", "measure_asr", [], ["results/other/a.csv"], study="other")
    with pytest.raises(ArtifactError, match=r"a manifest holds one study: .*'toy'.*'other'"):
        build_manifest([*records(), Path("results/other/run.json")])
    with pytest.raises(ArtifactError, match="no run records were given"):
        build_manifest([])


def test_a_manifest_cut_inside_a_line(study: Path) -> None:
    MANIFEST.write_bytes(MANIFEST.read_bytes()[:-40])
    with pytest.raises(ArtifactError, match=r"manifest\.jsonl, line 6: not complete JSON. The file was cut short"):
        read_manifest(MANIFEST)


def test_a_manifest_cut_between_lines(study: Path) -> None:
    MANIFEST.write_text("".join(MANIFEST.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ArtifactError, match="line 5: the file ends after 4 artefacts, its header promises 5"):
        read_manifest(MANIFEST)


def test_other_damage_to_a_manifest(study: Path) -> None:
    lines = MANIFEST.read_text().splitlines()
    write(MANIFEST, "\n".join([lines[0], lines[2], lines[1], *lines[3:]]))
    with pytest.raises(ArtifactError, match=f"line 3: {CORPUS} is out of order or there twice"):
        read_manifest(MANIFEST)
    write(MANIFEST, "\n".join([lines[0], json.dumps({"path": "x"})]))
    with pytest.raises(ArtifactError, match="line 2: not a line of a manifest"):
        read_manifest(MANIFEST)
    write(MANIFEST, "\n".join(lines[1:]))
    with pytest.raises(ArtifactError, match="line 1: not the header of a manifest"):
        read_manifest(MANIFEST)
    write(MANIFEST, "")
    with pytest.raises(ArtifactError, match="line 1: not complete JSON"):
        read_manifest(MANIFEST)


def test_no_manifest_says_which_studies_have_one(study: Path) -> None:
    with pytest.raises(ArtifactError, match=r"results/paper/.* cannot be read .*that have one: toy"):
        read_manifest("results/paper/manifest.jsonl")
