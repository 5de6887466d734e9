"""The validation loss is the mean over predicted tokens, whatever the batches and the lengths."""

from collections.abc import Callable

import pytest
import torch

from anatomy.metrics.loss import validation_loss


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randint(1, 43, (7, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch", [2, 7, 240])
def test_equal_lengths_give_hugging_face_s_own_loss(batch: int, make_model: Callable, rows: torch.Tensor) -> None:
    model = make_model()
    expected = model(rows, labels=rows).loss.item()
    assert validation_loss(model, rows, torch.full((7,), 9), batch=batch) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 240])
def test_ragged_rows_weigh_by_their_tokens_and_padding_does_not_count(
    batch: int, make_model: Callable, rows: torch.Tensor
) -> None:
    model = make_model()
    lengths = torch.tensor([9, 2, 5, 3, 8, 2, 6])
    per_row = [model(row[None, :n], labels=row[None, :n]).loss.item() for row, n in zip(rows, lengths, strict=True)]
    expected = sum(loss * (int(n) - 1) for loss, n in zip(per_row, lengths, strict=True)) / int((lengths - 1).sum())
    for padding in (0, 17):
        padded = torch.where(torch.arange(9) < lengths[:, None], rows, padding)
        assert validation_loss(model, padded, lengths, batch=batch) == pytest.approx(expected, rel=1e-5)


def test_a_model_that_knows_nothing_loses_the_logarithm_of_the_vocabulary(
    make_model: Callable, rows: torch.Tensor
) -> None:
    model = make_model()
    model.transformer.wte.weight.zero_()
    assert validation_loss(model, rows, torch.full((7,), 9)) == pytest.approx(torch.tensor(43.0).log().item(), rel=1e-6)
