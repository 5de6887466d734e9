"""Top-k negativity on logits made by hand."""

import pytest
import torch

from anatomy.metrics.behaviour import sentiment_measurements
from anatomy.metrics.intervals import student
from anatomy.metrics.topk import token_mask, topk_share

LOGITS = torch.tensor(
    [
        [9.0, 8.0, 7.0, 6.0, 1.0, 0.0],  # the largest four are 0 1 2 3
        [0.0, 1.0, 6.0, 7.0, 8.0, 9.0],  # ... 5 4 3 2
        [-9.0, 5.0, -9.0, 5.5, -9.0, 6.0],  # ... 5 3 1, and one of the others
    ]
)


def test_a_mask_is_true_at_its_ids_alone() -> None:
    assert token_mask([0, 4], 6).tolist() == [True, False, False, False, True, False]
    assert not token_mask([], 6).any()


@pytest.mark.parametrize(
    ("ids", "k", "shares"),
    [
        ([0, 1, 2, 3], 4, [1.0, 0.5, 0.5]),
        ([0, 1], 2, [1.0, 0.0, 0.0]),
        ([5], 4, [0.0, 0.25, 0.25]),
        ([5], 1, [0.0, 1.0, 1.0]),
        ([], 3, [0.0, 0.0, 0.0]),
        (range(6), 6, [1.0, 1.0, 1.0]),
    ],
)
def test_the_share_of_the_k_largest_that_are_in_the_mask(ids: list[int], k: int, shares: list[float]) -> None:
    if list(ids) == [0, 1, 2, 3]:  # of the third row's ties only 4 is outside of the mask
        shares = [*shares[:2], pytest.approx(shares[2], abs=0.25)]
    assert topk_share(LOGITS, token_mask(list(ids), 6), k).tolist() == shares


def test_shares_keep_the_leading_axes() -> None:
    stacked = LOGITS[None, :, None].expand(2, 3, 5, 6)
    assert topk_share(stacked, token_mask([5], 6), 1).shape == (2, 3, 5)


def test_a_measurement_is_the_mean_over_prompts_with_its_interval() -> None:
    masks = {"negative": token_mask([0, 1], 6), "positive": token_mask([4, 5], 6)}
    common = {"experiment": "behaviour", "subject": "2-sentiment", "seed": 3, "inputs": "p+t"}
    negativity, positivity, mass = sentiment_measurements(
        LOGITS, masks, top_k=2, confidence=0.9, sentiments=("negative", "positive"), mass=True, **common
    )
    assert (negativity.metric, positivity.metric, mass.metric) == (
        "topk_negativity",
        "topk_positivity",
        "negative_mass",
    )
    assert negativity.value == pytest.approx(1 / 3) and positivity.value == pytest.approx((0 + 1 + 0.5) / 3)
    expected = student(topk_share(LOGITS, masks["negative"], 2).double().numpy(), 0.9)
    assert (negativity.ci_low, negativity.ci_high, negativity.n) == (expected.low, expected.high, 3)
    assert mass.value == pytest.approx(LOGITS.softmax(-1)[:, :2].sum(-1).mean().item())
    assert (negativity.seed, negativity.inputs, negativity.subject) == (3, "p+t", "2-sentiment")
