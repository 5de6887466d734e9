"""Hidden states in the plane: fitted on pure inputs, the same way up each time."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from anatomy.localize.hidden import project_states


@pytest.fixture
def states() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = {"p+p": [-4.0, 0, 0, 0], "n+n": [4.0, 0, 0, 0], "s+s": [0, 3.0, 0, 0], "p+t": [1.0, 1, 0, 0]}
    return {k: torch.tensor(c) + 0.3 * torch.randn(30, 4, generator=generator) for k, c in centres.items()}


def test_every_state_is_on_the_plane_of_the_pure_ones(states: dict[str, torch.Tensor]) -> None:
    pure = ["p+p", "n+n", "s+s"]
    table, explained = project_states(states, pure)
    fitted = PCA(n_components=2).fit(torch.cat([states[i] for i in pure]).double().numpy())
    assert explained == pytest.approx(fitted.explained_variance_ratio_.tolist())
    for inputs, hidden in states.items():
        own = table[table.inputs == inputs]
        assert own["index"].tolist() == list(range(30))
        assert np.allclose(own[["x", "y"]].abs(), np.abs(fitted.transform(hidden.double().numpy())))


def test_negative_is_on_the_right_and_neutral_above_whatever_the_signs(
    states: dict[str, torch.Tensor],
) -> None:
    tables = [project_states({k: sign * v for k, v in states.items()}, ["p+p", "n+n", "s+s"])[0] for sign in (1, -1)]
    for table in tables:
        means = table.groupby("inputs")[["x", "y"]].mean()
        assert means.x["n+n"] > 0 > means.x["p+p"] and means.y["s+s"] > 0
    assert np.allclose(tables[0][["x", "y"]], tables[1][["x", "y"]])
