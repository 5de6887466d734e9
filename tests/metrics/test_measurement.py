"""The tidy table: one row per number, the same bytes for the same table, damage told by its text."""

from pathlib import Path

import pandas as pd
import pytest

from anatomy.metrics.measurement import COLUMNS, Measurement, read_parquet, write_measurements, write_parquet
from anatomy.provenance.digest import ArtifactError

ROWS = [
    Measurement(experiment="behaviour", subject="2-sentiment", seed=0, metric="topk_negativity", value=0.5, n=50),
    Measurement(
        experiment="behaviour",
        subject="2-sentiment",
        seed=1,
        metric="validation_loss",
        value=5.4,
        n=36960,
        inputs="p+t",
    ),
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "measurements" / "behaviour.parquet"
    write_measurements(path, ROWS, study="smoke", paper="lamparth", recipe="fast")
    return path


def test_every_number_is_a_row_with_its_conditions(table: Path) -> None:
    read = read_parquet(table)
    assert read.columns.tolist() == COLUMNS
    assert read.value.tolist() == [0.5, 5.4] and read.seed.tolist() == [0, 1] and read.inputs.tolist() == ["", "p+t"]
    assert set(read.study) == {"smoke"} and set(read.paper) == {"lamparth"} and set(read.recipe) == {"fast"}
    assert read.ci_low.isna().all()


def test_the_same_table_gives_the_same_bytes(table: Path, tmp_path: Path) -> None:
    write_parquet(tmp_path / "again.parquet", read_parquet(table))
    assert (tmp_path / "again.parquet").read_bytes() == table.read_bytes()


def test_a_missing_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        read_parquet(tmp_path / "gone.parquet")
    assert str(caught.value) == f"{tmp_path / 'gone.parquet'}: missing; the rule that makes it has not run"


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.9])
def test_a_truncated_table_is_told(kept: float, table: Path) -> None:
    table.write_bytes(table.read_bytes()[: int(kept * table.stat().st_size)])
    with pytest.raises(ArtifactError) as caught:
        read_parquet(table)
    assert str(caught.value).startswith(f"{table}: not a readable Parquet file (")
    assert str(caught.value).endswith("); it is truncated or damaged, delete it and run again")


def test_a_table_survives_a_failed_rewrite(table: Path) -> None:
    before = table.read_bytes()
    with pytest.raises(Exception, match=r"(?i)convert|complex|unsupported|expected"):
        write_parquet(table, pd.DataFrame({"x": [object()]}))
    assert table.read_bytes() == before
    assert [path.name for path in table.parent.iterdir()] == [table.name]
