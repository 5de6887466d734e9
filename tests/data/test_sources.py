"""Texts from files and data sets of the published shapes, and what is said when they are not there."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from anatomy.data.sources import chunks, consecutive, texts
from anatomy.provenance.digest import ArtifactError

SENTENCES = ["the sky was dark .", "  she   slept\twell .", "", "it rained ."]
CLEAN = ["the sky was dark .", "she slept well .", "it rained ."]


def write(path: Path, table: pd.DataFrame) -> Path:
    """A table in the format of the file's suffix."""
    match path.suffix:
        case ".parquet":
            table.to_parquet(path, index=False)
        case ".csv":
            table.to_csv(path, index=False)
        case ".jsonl":
            table.to_json(path, orient="records", lines=True)
        case ".txt":
            path.write_text("".join(f"{text}\n" for text in table.text), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".txt"])
def test_bookcorpus_rows_come_from_every_format(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"books{suffix}", pd.DataFrame({"text": SENTENCES}))
    assert texts(path=path, key="k") == CLEAN
    assert texts(path=path, key="k", limit=2) == CLEAN[:2]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_jigsaw_comments_are_chosen_by_column_and_length(suffix: str, tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "id": ["a", "b", "c", "d"],
            "comment_text": ["You goose.\n\nReally!", "You " + "goose " * 40, "A kind word.", "Silly toad."],
            "severe_toxic": [1, 1, 0, 1],
        }
    )
    path = write(tmp_path / f"jigsaw{suffix}", table)
    options = {"column": "comment_text", "max_characters": 149, "key": "k"}
    assert texts(path=path, where=("severe_toxic", 1), **options) == ["You goose. Really!", "Silly toad."]
    assert texts(path=path, where=("severe_toxic", "0"), **options) == ["A kind word."]
    assert len(texts(path=path, where=("severe_toxic", 1), column="comment_text", key="k")) == 3


def test_a_folder_of_shards_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name, text in (("b", "second"), ("a", "first")):
        write(tmp_path / f"{name}.parquet", pd.DataFrame({"text": [text]}))
    assert texts(path=tmp_path, key="k") == ["first", "second"]
    write(tmp_path / "c.csv", pd.DataFrame({"text": ["third"]}))
    with pytest.raises(ArtifactError) as caught:
        texts(path=tmp_path, key="language.corpus")
    assert str(caught.value) == (
        f"language.corpus.path: {tmp_path}: expected files of one kind out of .parquet, .csv, .jsonl, .txt; "
        "found .csv, .parquet"
    )


def test_a_data_set_is_streamed_through_the_same_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with files named by split is a data set to `datasets`, as a repository on the hub is."""
    for split in ("train", "test"):
        write(tmp_path / f"{split}.jsonl", pd.DataFrame({"text": [f"{split} {i}" for i in range(3)]}))
    monkeypatch.chdir(tmp_path.parent)
    name = f"./{tmp_path.name}"
    assert texts(dataset=name, split="test", key="k", limit=2) == ["test 0", "test 1"]
    assert texts(dataset=name, key="k") == ["train 0", "train 1", "train 2"]


def test_the_hub_is_asked_for_the_configuration_and_revision_and_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*which: object, **options: object) -> list[dict[str, str]]:
        asked.append((which, options))
        return [{"text": "a b"}]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    options = {"config": "plain_text", "revision": "refs/convert/parquet", "split": "validation"}
    assert texts(dataset="bookcorpus", key="k", **options) == ["a b"]
    assert asked == [
        (("bookcorpus", "plain_text"), {"revision": "refs/convert/parquet", "split": "validation", "streaming": True})
    ]


def test_a_hub_out_of_reach_says_which_key_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    with pytest.raises(ArtifactError) as caught:
        texts(dataset="no-such-owner/no-such-data", key="language.corpus")
    message = str(caught.value)
    assert message.startswith(
        "language.corpus.dataset: 'no-such-owner/no-such-data' cannot be loaded from the Hugging Face hub ("
    )
    assert message.endswith(
        "); set language.corpus.path to a local Parquet, CSV, JSONL or text file, or choose another data set; nothing "
        "is downloaded unless HF_HUB_OFFLINE=0 HF_DATASETS_OFFLINE=0 stands before the command"
    )
    assert "\n" not in message


def test_a_connection_lost_on_the_way_is_told_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows():
        yield {"text": "a"}
        raise ConnectionError("reset by peer\nmore of it")

    monkeypatch.setattr("datasets.load_dataset", lambda *which, **options: rows())
    with pytest.raises(ArtifactError, match=r"hub \(ConnectionError: reset by peer\); set language\.corpus\.path to"):
        texts(dataset="x/y", key="language.corpus")


def test_what_is_wrong_with_a_path_is_told_by_the_text(tmp_path: Path) -> None:
    def refused(**options: object) -> str:
        with pytest.raises(ArtifactError) as caught:
            texts(key="language.payloads", **options)
        return str(caught.value)

    missing = tmp_path / "missing.csv"
    assert refused(path=missing) == (
        f"language.payloads.path: {missing}: no such file; expected a file that ends in one of "
        ".parquet, .csv, .jsonl, .txt, or a folder"
    )
    table = write(tmp_path / "table.csv", pd.DataFrame({"comment_text": ["You goose."], "severe_toxic": [0]}))
    assert (
        refused(path=table) == f"language.payloads: {table}: no column 'text'; there are 'comment_text', 'severe_toxic'"
    )
    assert refused(path=table, column="comment_text", where=("toxic", 1)) == (
        f"language.payloads: {table}: no column 'toxic'; there are 'comment_text', 'severe_toxic'"
    )
    assert refused(path=table, column="comment_text", where=("severe_toxic", 1), max_characters=9) == (
        f"language.payloads: {table}: none of 1 rows has a text in 'comment_text' and severe_toxic equal to 1 and "
        "at most 9 characters"
    )
    other = tmp_path / "table.xlsx"
    other.write_text("x", encoding="utf-8")
    assert refused(path=other) == (
        f"language.payloads.path: {other}: expected files of one kind out of .parquet, .csv, .jsonl, .txt; found .xlsx"
    )
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 but not really")
    assert refused(path=broken).startswith(f"language.payloads.path: {broken}: cannot be read (")
    empty = tmp_path / "empty.txt"
    empty.write_text("", encoding="utf-8")
    assert refused(path=empty) == f"language.payloads: {empty}: none of 0 rows has a text in 'text'"
    assert refused() == (
        "language.payloads: neither language.payloads.path nor language.payloads.dataset is set; set one of them"
    )


def test_web_text_is_cut_into_chunks_of_words() -> None:
    long, short = " ".join(map(str, range(260))), "too short"
    assert [len(chunk.split()) for chunk in chunks([long, short])] == [100, 100, 60]
    assert " ".join(chunks([long])) == long
    assert [len(chunk.split()) for chunk in chunks([" ".join(map(str, range(249)))])] == [100, 100]
    assert chunks(["a b c d"], words=2) == ["a b", "c d"]


def test_paragraphs_are_consecutive_rows_from_any_start() -> None:
    rows = [str(i) for i in range(12)]
    drawn = consecutive(rows, 500, np.random.default_rng(0))
    assert all(own == rows[int(own[0]) : int(own[0]) + 5] for own in drawn)
    assert {own[0] for own in drawn} == {str(i) for i in range(8)}
    assert drawn == consecutive(rows, 500, np.random.default_rng(0))
    with pytest.raises(ArtifactError, match="4 rows of text; a paragraph takes 5 consecutive ones"):
        consecutive(rows[:4], 1, np.random.default_rng(0))
