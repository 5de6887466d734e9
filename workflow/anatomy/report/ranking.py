"""Which of several measurements is the largest, or small: the only place where a value decides what is shown or judged.

`anatomy explain` computes tables again on inputs whose values are replaced; here it puts the true ones back first.
"""

import pandas as pd


def ranked(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The rows with `rank`, from 1: the place of each value among those of its group, the largest first.

    Of equals, the one that comes first. Rows keep their order.
    """
    places = rows.groupby(by, sort=False).value.rank(method="first", ascending=False)
    return rows.assign(rank=places.astype(int))


def largest(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The row of each group with the largest value."""
    own = ranked(rows, by)
    return own[own["rank"] == 1].drop(columns="rank")


def smallest(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The row of each group with the smallest value; of equals, the last."""
    own = ranked(rows, by)
    return own[own["rank"] == own.groupby(by, sort=False)["rank"].transform("max")].drop(columns="rank")


def small_on_average(rows: pd.DataFrame, by: str, most: float) -> list[str]:
    """The groups whose values are at most so large on average."""
    mean = rows.groupby(by, sort=False).value.mean()
    return list(mean.index[mean <= most])
