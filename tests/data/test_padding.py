"""Token ids of texts of any length as one tensor."""

import pytest
import torch

from anatomy.data.padding import padded

ROWS = [[5, 6, 7, 8], [9], [1, 2, 3, 4, 5, 6], [], [0, 3]]


@pytest.mark.parametrize("longest", [1, 3, 6, 100])
def test_rows_are_cut_and_padded_on_the_right(longest: int) -> None:
    ids, lengths = padded(ROWS, longest)
    assert ids.dtype == lengths.dtype == torch.long
    assert ids.shape == (5, min(longest, 6))  # as wide as the longest that is left
    for own, length, row in zip(ids.tolist(), lengths.tolist(), ROWS, strict=True):
        kept = row[:longest]
        assert length == len(kept)
        assert own == kept + [0] * (ids.shape[1] - length)


def test_a_zero_of_the_text_counts() -> None:
    """Id 0 pads, and is an id like another: only the lengths tell."""
    ids, lengths = padded([[0, 3, 0], [4]], 10)
    assert ids.tolist() == [[0, 3, 0], [4, 0, 0]] and lengths.tolist() == [3, 1]


def test_the_rows_are_left_as_they_were() -> None:
    rows = [[1, 2, 3], [4]]
    ids, _ = padded(rows, 2)
    ids += 1
    assert rows == [[1, 2, 3], [4]]


def test_tuples_are_rows_too() -> None:
    assert padded([(1, 2), (3,)], 5)[0].tolist() == [[1, 2], [3, 0]]
