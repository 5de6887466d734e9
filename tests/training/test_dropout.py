"""Dropout: off it is nowhere, on it keeps 1 - p without bias, from each member's own generator."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from anatomy.training.ensemble import Ensemble
from anatomy.training.optimizer import adamw_step

from .conftest import relative_error


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def masks_of(ensemble: Ensemble, ids: Tensor, seeds: tuple[int, ...]) -> dict[str, Tensor]:
    """Every dropout mask of a pass, by member first."""
    masks = ensemble.hidden(ids, generators(*seeds))[1].masks
    return {"embed": masks.embed.flatten(1)} | {
        f"{layer}.{part}": mask.reshape(len(seeds), -1)
        for layer, own in enumerate(masks.layers)
        for part, mask in own._asdict().items()
    }


def test_without_generators_there_is_no_dropout_and_no_chance(make_ensemble: Callable, make_batch: Callable) -> None:
    ensemble, plain = make_ensemble([0, 1], dropout=0.4), make_ensemble([0, 1], dropout=0.0)
    batch = make_batch(2, 9)
    first, again = ensemble.loss_and_gradients(*batch), ensemble.loss_and_gradients(*batch)
    assert torch.equal(first, again)
    assert torch.equal(first, plain.loss_and_gradients(*batch))


def test_at_rate_zero_generators_change_nothing(make_ensemble: Callable, make_batch: Callable) -> None:
    ensemble, batch = make_ensemble([0]), make_batch(1, 9)
    assert torch.equal(ensemble.loss_and_gradients(*batch), ensemble.loss_and_gradients(*batch, generators(1)))


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_every_mask_keeps_about_one_minus_p_and_is_unbiased(
    p: float, make_ensemble: Callable, make_batch: Callable
) -> None:
    ensemble = make_ensemble([0, 1], dropout=p)
    ids, _ = make_batch(2, 20, batch=32)
    masks = masks_of(ensemble, ids, (1, 2))
    assert len(masks) == 1 + 3 * 3
    for name, mask in masks.items():
        kept = mask != 0
        assert torch.allclose(mask[kept], torch.tensor(1 / (1 - p), dtype=mask.dtype), rtol=1e-12), name
        deviation = (p * (1 - p) / mask.numel()) ** 0.5
        assert abs(kept.double().mean().item() - (1 - p)) < 5 * deviation + 1e-5, name
        assert abs(mask.mean().item() - 1) < (5 * deviation + 1e-5) / (1 - p), name


def test_masks_differ_between_parts_layers_members_and_steps(make_ensemble: Callable, make_batch: Callable) -> None:
    ensemble = make_ensemble([0, 0], dropout=0.5)
    ids, _ = make_batch(2, 20)
    masks = masks_of(ensemble, ids, (1, 2))
    streams = [mask[member] for name, mask in masks.items() if "attention" not in name for member in range(2)]
    streams.append(masks_of(ensemble, ids, (3, 4))["embed"][0])
    for i, one in enumerate(streams):
        for other in streams[i + 1 :]:
            assert 0.3 < (one != other).double().mean() < 0.7
    attention = [masks[f"{layer}.attention"][member] for layer in range(3) for member in range(2)]
    for i, one in enumerate(attention):
        assert all(not torch.equal(one, other) for other in attention[i + 1 :])


def test_the_same_generator_gives_the_same_step(make_ensemble: Callable, make_batch: Callable) -> None:
    ensemble, batch = make_ensemble([0], dropout=0.3), make_batch(1, 9)
    losses = [ensemble.loss_and_gradients(*batch, generators(seed)).item() for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_dropout_is_where_hugging_face_has_it(
    make_ensemble: Callable, make_batch: Callable, make_config: Callable, hugging_face: Callable
) -> None:
    """Over many masks the loss equals that of Hugging Face's model in training mode, to the luck of draws."""
    ensemble = make_ensemble([0], dropout=0.2)
    ids, valid = make_batch(1, 6, batch=1)
    many = ids.expand(1, 4000, 6), valid.expand(1, 4000, 6)
    own = ensemble.loss_and_gradients(*many, generators(1))[0].item()
    model = hugging_face(ensemble, 0, make_config(dropout=0.2)).train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        logits = model(many[0][0]).logits[:, :-1]
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), many[0][0][:, 1:].flatten(), reduction="none")
    per_row = nll.view(4000, 5).mean(1)
    assert abs(own - per_row.mean().item()) < 5 * 2**0.5 * per_row.std().item() / 4000**0.5
    still = ensemble.loss_and_gradients(ids, valid)[0].item()
    assert abs(own - still) > 10 * per_row.std().item() / 4000**0.5  # and there was something to agree on


def trained(ensemble: Ensemble, batches: list[tuple[Tensor, Tensor]], seeds: tuple[int, ...]) -> Ensemble:
    """The ensemble after one step on each batch, with dropout."""
    own = generators(*seeds)
    for step, batch in enumerate(batches):
        ensemble.loss_and_gradients(*batch, own)
        adamw_step(ensemble, step + 1, rate=1e-2, weight_decay=0.1)
    return ensemble


def difference(one: Ensemble, i: int, other: Ensemble, j: int) -> float:
    return max(relative_error(one.parameters[n][i], other.parameters[n][j]) for n in one.parameters)


def test_a_member_does_not_depend_on_its_neighbours(make_ensemble: Callable, make_batch: Callable) -> None:
    batches = [make_batch(3, 9, seed=seed) for seed in range(4)]
    stack = trained(make_ensemble([0, 1, 2], dropout=0.2), batches, (10, 11, 12))
    for member in range(3):
        own = [(ids[member : member + 1], valid[member : member + 1]) for ids, valid in batches]
        alone = trained(make_ensemble([member], dropout=0.2), own, (10 + member,))
        assert difference(stack, member, alone, 0) < 1e-8
    assert difference(stack, 0, stack, 1) > 0.1
