"""Who meets a hub that gave nothing is told how to allow downloads, and only then."""

import pytest

from anatomy.spec.offline import OFFLINE, how_to_download


def test_it_is_told_only_where_downloads_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)
    assert how_to_download() == ""
    for name in OFFLINE:
        monkeypatch.setenv(name, "0")
    assert how_to_download() == ""
    for word in ("1", "on", "True", "YES"):
        monkeypatch.setenv("HF_DATASETS_OFFLINE", word)
        assert how_to_download() == (
            "; nothing is downloaded unless HF_HUB_OFFLINE=0 HF_DATASETS_OFFLINE=0 stands before the command"
        )
