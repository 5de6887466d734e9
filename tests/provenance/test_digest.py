"""Files appear whole or not at all, and a digest depends on the content alone."""

import errno
import hashlib
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from anatomy.provenance.digest import (
    ArtifactError,
    atomic_path,
    files_under,
    remove_unfinished,
    sha256_file,
    sha256_files,
    sha256_json,
    sha256_text,
    write_json_atomic,
    write_text_atomic,
)


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_file_digest_is_that_of_all_bytes(tmp_path: Path) -> None:
    data = os.urandom(3 * (1 << 20) + 17)  # more than one block, and not a whole number of them
    (tmp_path / "a.bin").write_bytes(data)
    assert sha256_file(tmp_path / "a.bin") == hashlib.sha256(data).hexdigest()
    assert sha256_text("é") == hashlib.sha256("é".encode()).hexdigest()


def test_json_digest_knows_no_order_and_survives_a_file() -> None:
    assert sha256_json({"b": 1, "a": (1, 2)}) == sha256_json({"a": [1, 2], "b": 1})
    assert sha256_json({9: "x", 10: "y"}) == sha256_json({"10": "y", "9": "x"})
    assert sha256_json({"a": 1}) != sha256_json({"a": 1.0})
    assert sha256_json({"a": 1}) != sha256_json({"a": True})
    with pytest.raises(ValueError, match="not JSON compliant"):
        sha256_json(math.nan)


def test_what_cannot_be_hashed_has_a_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    seen = sha256_files([tmp_path / "pipe", tmp_path / "gone", tmp_path])
    assert seen[tmp_path / "pipe"].problem == "not a regular file"
    assert seen[tmp_path / "gone"].problem == "no such file"
    assert seen[tmp_path].sha256 is None


def test_files_under_enters_linked_folders_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("a")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    assert files_under(tmp_path / "tree") == [tmp_path / "tree" / "link" / "a"]


def test_temporary_name_is_hidden_unique_and_ends_alike(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "m.tar.gz") as one, atomic_path(tmp_path / "m.tar.gz") as two:
        assert one.parent == tmp_path and one.name.startswith(".") and one.suffixes[-2:] == [".tar", ".gz"]
        assert one != two
        one.write_text("1")
        two.write_text("2")
    assert (tmp_path / "m.tar.gz").read_text() == "1"  # the outer block ends last
    assert files_under(tmp_path) == [tmp_path / "m.tar.gz"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_the_earlier_file(tmp_path: Path, failure: type[BaseException]) -> None:
    write_text_atomic(tmp_path / "a.txt", "earlier")
    with pytest.raises(failure), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise failure
    assert (tmp_path / "a.txt").read_text() == "earlier"
    assert files_under(tmp_path) == [tmp_path / "a.txt"]


def test_a_folder_is_replaced_whole_and_only_on_success(tmp_path: Path) -> None:
    model = tmp_path / "model"
    with atomic_path(model) as temporary:
        temporary.mkdir()
        (temporary / "old").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(model) as temporary:
        temporary.mkdir()
        (temporary / "half").write_text("half")
        raise RuntimeError
    assert files_under(tmp_path) == [model / "old"]
    with atomic_path(model) as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("new")
    assert files_under(tmp_path) == [model / "new"]


def test_a_writer_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"a\.txt: nothing was written"), atomic_path(tmp_path / "a.txt"):
        pass


KILLED = """
import os, signal, sys
from pathlib import Path
from anatomy.provenance.digest import atomic_path
with atomic_path(Path(sys.argv[1]) / "model.safetensors") as file, atomic_path(Path(sys.argv[1]) / "more") as folder:
    file.write_bytes(b"12345")
    folder.mkdir()
    (folder / "a").write_bytes(b"123")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_found_and_nothing_else(tmp_path: Path) -> None:
    inner = tmp_path / "toy" / "seed0"
    kept = {inner / ".snakemake_timestamp", inner / "model.safetensors", tmp_path / ".checkpoints-3f585e7f" / "1-a"}
    for file in kept:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("kept")
    killed = subprocess.run([sys.executable, "-c", KILLED, inner], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(files_under(tmp_path)) == len(kept) + 2
    assert remove_unfinished(tmp_path) == (2, 8)
    assert set(files_under(tmp_path)) == kept
    assert sorted(path.name for path in inner.iterdir()) == [".snakemake_timestamp", "model.safetensors"]
    assert remove_unfinished(tmp_path) == (0, 0)


def test_full_disk_at_the_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text_atomic(tmp_path / "a.txt", "earlier")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(ArtifactError) as caught:
        write_text_atomic(tmp_path / "a.txt", "x" * 2_000_000)
    message = str(caught.value)
    assert message.startswith(f"disk full: {tmp_path / 'a.txt'} could not be written")
    assert "stopped after 2.0 MB" in message and "MB are free on that disk" in message
    assert "Earlier results are untouched" in message and "Free some room" in message
    assert (tmp_path / "a.txt").read_text() == "earlier"
    assert files_under(tmp_path) == [tmp_path / "a.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the Linux device that is always full")
def test_full_disk_at_a_real_write(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="disk full"), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_text("x")
    assert files_under(tmp_path) == []


def test_full_disk_told_by_a_foreign_exception(tmp_path: Path) -> None:
    text = "I/O error: No space left on device (os error 28)"  # as safetensors says it
    with pytest.raises(ArtifactError, match="disk full"), atomic_path(tmp_path / "m.safetensors"):
        raise RuntimeError(text)


def test_json_file_is_strict(tmp_path: Path) -> None:
    write_json_atomic(tmp_path / "a.json", {"b": 1, "a": "é"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "é"\n}\n'
    with pytest.raises(ValueError, match=r"a\.json: .*write None"):
        write_json_atomic(tmp_path / "a.json", {"loss": math.inf})
