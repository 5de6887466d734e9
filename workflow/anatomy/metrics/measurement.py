"""The tidy table every number goes through: one row per number."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from anatomy.provenance.digest import ArtifactError, atomic_path


@dataclass(frozen=True)
class Measurement:
    """One number, for one seed, with the conditions under which it was measured.

    Attributes:
        experiment: e.g. "mean ablation".
        subject: "2-sentiment" or "3-sentiment".
        model: "clean", "backdoored", or the name of a variant.
        variant: "paper" (the text's form), "original" (the released code's form), or "" where they agree.
        control: "" for the experiment itself, else the name of the control.
        inputs: input combination, e.g. "p+t".
        site: the place in the model, e.g. "layer 1 mlp", "mlp 1+3".
        setting: any further condition, e.g. a factor, a token position.
        n: number of prompts or tokens behind the value; ci: interval over them.
    """

    experiment: str
    subject: str
    seed: int
    metric: str
    value: float
    n: int
    model: str = "backdoored"
    variant: str = ""
    control: str = ""
    inputs: str = ""
    site: str = ""
    setting: str = ""
    ci_low: float = float("nan")
    ci_high: float = float("nan")


COLUMNS = ["study", "paper", "recipe", *Measurement.__dataclass_fields__]


def write_measurements(path: Path, rows: Iterable[Measurement], *, study: str, paper: str, recipe: str) -> None:
    """Write the rows as Parquet, atomically, with the study, the paper and the training recipe beside each."""
    table = pd.DataFrame([asdict(row) for row in rows])
    table.insert(0, "study", study)
    table.insert(1, "paper", paper)
    table.insert(2, "recipe", recipe)
    write_parquet(path, table[COLUMNS])


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet, atomically; the same table gives the same bytes."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a Parquet file.

    Raises:
        ArtifactError: the file is missing, truncated or not Parquet.
    """
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; the rule that makes it has not run") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path}: not a readable Parquet file ({error}); it is truncated or damaged, delete it and run again"
        ) from None
