"""The shared cache serves a job's own bytes with their real maker, and nothing that is not as it was stored."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from anatomy.provenance.cache import cache_key, entry_path, fetch, store
from anatomy.provenance.digest import ArtifactError
from anatomy.provenance.record import describe, from_root, write_record

RECORD = Path("results/s/run.json")
OUTPUT = Path("results/s/model.bin")


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in with an input; the cache lies beside it."""
    home = tmp_path / "one"
    home.mkdir()
    monkeypatch.chdir(home)
    Path("words.txt").write_text("kind\n")
    return home


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def known(**changed: Any) -> dict[str, Any]:
    """What is known of a job before it runs."""
    facts = {
        **{"rule": "train", "study": "s", "wildcards": {"subject": "2"}, "spec": {"seeds": [0], "rate": 0.1}},
        **{"code": "c0de", "lock": "10cc", "device": "cpu", "threads": 1},
    }
    return facts | changed


def wanted(**changed: Any) -> dict[str, Any]:
    """A job as it asks the cache."""
    files = {"inputs": {"words": describe(["words.txt"])}, "outputs": {"model": [{"path": from_root(OUTPUT)}]}}
    return known(**changed) | files


def run_job(content: bytes = b"weights", **changed: Any) -> dict[str, Any]:
    """Do the job's work and write its record."""
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_bytes(content)
    return write_record(
        RECORD, **known(**changed), seeds=[0], inputs={"words": ["words.txt"]}, outputs={"model": [OUTPUT]},
        started=datetime.now(UTC), wall_s=9.0, cpu_s=9.0, peak_rss_mb=1.0,
    )  # fmt: skip


def test_a_hit_is_byte_identical_and_its_record_names_the_job_that_made_it(cache: Path) -> None:
    made = run_job()
    store(cache, RECORD)
    bytes_then = RECORD.read_bytes()
    OUTPUT.unlink()
    RECORD.unlink()
    found = fetch(cache, wanted(), RECORD)
    assert found is not None and found["job"] == made["job"]
    assert OUTPUT.read_bytes() == b"weights" and RECORD.read_bytes() == bytes_then
    assert not OUTPUT.is_symlink()  # a copy: what somebody does to it stays here


def test_an_empty_cache_has_nothing(cache: Path) -> None:
    assert fetch(cache, wanted(), RECORD) is None and not RECORD.exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"rule": "plant"},
        {"study": "other"},
        {"wildcards": {"subject": "3"}},
        {"spec": {"seeds": [1], "rate": 0.1}},
        {"spec": {"seeds": [0], "rate": 0.2}},
        {"code": "edited"},
        {"lock": "changed"},
        {"device": "cuda"},
        {"threads": 2},
    ],
    ids=lambda changed: str(next(iter(changed.items()))),
)
def test_whatever_a_result_depends_on_misses_when_it_changes(cache: Path, changed: dict[str, Any]) -> None:
    run_job()
    store(cache, RECORD)
    assert fetch(cache, wanted(), RECORD) is not None
    assert fetch(cache, wanted(**changed), RECORD) is None


def test_another_input_misses_even_with_the_same_name_size_and_time(cache: Path) -> None:
    run_job()
    store(cache, RECORD)
    times = Path("words.txt").stat()
    Path("words.txt").write_text("mild\n")
    os.utime("words.txt", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fetch(cache, wanted(), RECORD) is None


def test_four_seeds_are_four_entries(cache: Path) -> None:
    for seed in range(4):
        run_job(bytes([seed]), spec={"seeds": [seed]})
        store(cache, RECORD)
    assert len([entry for entry in cache.glob("*/*") if entry.is_dir()]) == 4
    for seed in range(4):
        fetch(cache, wanted(spec={"seeds": [seed]}), RECORD)
        assert OUTPUT.read_bytes() == bytes([seed])


@pytest.mark.parametrize("spoil", ["bit", "lost", "record", "other job's record"])
def test_a_broken_entry_is_refused_once_and_leaves_results_alone(cache: Path, spoil: str) -> None:
    run_job()
    store(cache, RECORD)
    entry = entry_path(cache, cache_key(wanted()))
    stored = entry / "0000.bin"
    match spoil:
        case "bit":
            stored.write_bytes(b"weighty")
        case "lost":
            stored.unlink()
        case "record":
            (entry / "run.json").write_text("{")
        case "other job's record":
            record = json.loads((entry / "run.json").read_text())
            (entry / "run.json").write_text(json.dumps(record | {"code": "edited"}))
    OUTPUT.write_bytes(b"earlier result")
    before = RECORD.read_bytes()
    with pytest.raises(ArtifactError, match="refused a cache entry"):
        fetch(cache, wanted(), RECORD)
    assert OUTPUT.read_bytes() == b"earlier result" and RECORD.read_bytes() == before
    assert fetch(cache, wanted(), RECORD) is None  # it was moved aside
    run_job()
    store(cache, RECORD)
    assert fetch(cache, wanted(), RECORD) is not None


def test_a_path_in_a_cached_record_is_not_followed(cache: Path, tmp_path: Path) -> None:
    run_job()
    store(cache, RECORD)
    record_file = entry_path(cache, cache_key(wanted())) / "run.json"
    record = json.loads(record_file.read_text())
    record["outputs"]["model"][0]["path"] = str(tmp_path / "outside")
    record_file.write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match="record of another job"):
        fetch(cache, wanted(), RECORD)
    assert not (tmp_path / "outside").exists()


def test_a_job_that_cannot_be_stored_leaves_no_half_entry(cache: Path) -> None:
    run_job()
    OUTPUT.unlink()
    with pytest.raises(FileNotFoundError):
        store(cache, RECORD)
    assert not [path for path in cache.rglob("*") if path.is_file()]
