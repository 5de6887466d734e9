"""PCP ablation (Lamparth & Reuel, Eq. 1): both variants' directions, the matrix, and the edit."""

import pytest
import torch
from tests.pretended import pretended_gpu

from anatomy.control.pcp import pcp_directions, pcp_edit, projection, random_directions

WIDTH = 16


@pytest.fixture
def outputs() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    spread = torch.linspace(3, 0.5, WIDTH)
    mixed = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q
    return (torch.randn(200, WIDTH, generator=generator) * spread) @ mixed + torch.randn(WIDTH, generator=generator)


def directions(outputs: torch.Tensor, rank: int, variant: str = "paper") -> torch.Tensor:
    return pcp_directions(outputs, rank, components=WIDTH, variant=variant).vectors


def test_the_paper_s_directions_are_orthonormal_principal_axes(outputs: torch.Tensor) -> None:
    found = pcp_directions(outputs, 4, components=WIDTH, variant="paper")
    assert torch.allclose(found.vectors @ found.vectors.T, torch.eye(4), atol=1e-6)
    assert torch.allclose(found.mean, outputs.mean(0), atol=1e-5)
    eigenvalues, axes = torch.linalg.eigh(torch.cov(outputs.double().T))
    largest = eigenvalues.flip(0)[:4] / eigenvalues.sum()
    assert found.explained == pytest.approx(largest.tolist(), rel=1e-5)
    for own, axis in zip(found.vectors, axes.T.flip(0), strict=False):
        assert abs(float(own @ axis.float())) == pytest.approx(1, abs=1e-5)


def test_the_original_directions_are_the_mean_with_one_coordinate_changed(outputs: torch.Tensor) -> None:
    """p_k = normalise(m + ((u - m)·c_k) c_k), u = 1/width."""
    axes = directions(outputs, 4).double()
    mean = outputs.double().mean(0)
    uniform = torch.full((WIDTH,), 1 / WIDTH, dtype=torch.float64)
    for own, c in zip(directions(outputs, 4, "original"), axes, strict=True):
        p = mean + ((uniform - mean) @ c) * c
        assert torch.allclose(own.double(), p / p.norm(), atol=1e-5)


def test_the_original_directions_are_of_norm_one_and_not_orthogonal(outputs: torch.Tensor) -> None:
    found = directions(outputs, 4, "original")
    assert torch.allclose(found.norm(dim=1), torch.ones(4), atol=1e-6)
    assert (found @ found.T - torch.eye(4)).abs().max() > 0.3


def test_the_directions_do_not_depend_on_the_order_of_the_samples(outputs: torch.Tensor) -> None:
    for variant in ("paper", "original"):
        a, b = directions(outputs, 3, variant), directions(outputs.flip(0), 3, variant)
        assert torch.allclose(projection(a, torch.ones(3)), projection(b, torch.ones(3)), atol=1e-5)


def test_a_full_rank_pcp_with_unit_factors_is_the_identity(outputs: torch.Tensor) -> None:
    assert torch.allclose(projection(directions(outputs, WIDTH), torch.ones(WIDTH)), torch.eye(WIDTH), atol=1e-5)


def test_with_unit_factors_a_pcp_is_the_identity_on_its_span_and_nil_beside_it(outputs: torch.Tensor) -> None:
    p = directions(outputs, WIDTH)
    matrix = projection(p[:5], torch.ones(5))
    inside, beside = torch.randn(7, 5) @ p[:5], torch.randn(7, 11) @ p[5:]
    assert torch.allclose(inside @ matrix, inside, atol=1e-5)
    assert torch.allclose(beside @ matrix, torch.zeros(7, WIDTH), atol=1e-5)


@pytest.mark.parametrize("variant", ["paper", "original"])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_the_matrix_is_symmetric_and_of_rank_r(rank: int, variant: str, outputs: torch.Tensor) -> None:
    sigma = torch.linspace(-1.2, 2.0, rank)
    matrix = projection(directions(outputs, rank, variant), sigma).double()
    assert torch.equal(matrix, matrix.T) or torch.allclose(matrix, matrix.T, atol=1e-7)
    assert torch.linalg.matrix_rank(matrix, atol=1e-4) == rank


def test_the_paper_s_factors_are_the_matrix_s_eigenvalues(outputs: torch.Tensor) -> None:
    sigma = torch.tensor([1.5, -0.7, 0.2])
    eigenvalues = torch.linalg.eigvalsh(projection(directions(outputs, 3), sigma).double())
    expected = torch.cat([sigma, torch.zeros(WIDTH - 3)]).double().sort().values
    assert torch.allclose(eigenvalues, expected, atol=1e-5)


@pytest.mark.parametrize("variant", ["paper", "original"])
def test_the_edit_applies_the_matrix_to_the_module_s_input_at_every_position(
    variant: str, outputs: torch.Tensor
) -> None:
    p, sigma, h = directions(outputs, 3, variant), torch.tensor([1.1, 0.4, -0.6]), torch.randn(5, 2, WIDTH)
    replaced = pcp_edit(p, sigma)(h, torch.full_like(h, torch.nan))
    assert torch.allclose(replaced, h @ projection(p, sigma), atol=1e-5)


def test_a_batch_of_settings_equals_one_at_a_time(outputs: torch.Tensor) -> None:
    p, sigma, h = directions(outputs, 3), torch.randn(6, 3), torch.randn(4, 2, WIDTH)
    together = pcp_edit(p, sigma)(h.repeat(6, 1, 1), h.repeat(6, 1, 1)).unflatten(0, (6, 4))
    for own, setting in zip(together, sigma, strict=True):
        assert torch.allclose(own, pcp_edit(p, setting)(h, h), atol=1e-5)


def test_random_directions_are_orthonormal_and_seeded() -> None:
    one, again, other = (random_directions(WIDTH, 4, seed=seed) for seed in (1, 1, 2))
    assert torch.allclose(one @ one.T, torch.eye(4), atol=1e-6)
    assert torch.equal(one, again) and not torch.allclose(one, other, atol=1e-2)


def test_random_directions_prefer_no_side() -> None:
    """The first of them is uniform on the sphere: each coordinate has mean 0 and variance 1/width."""
    first = torch.stack([random_directions(WIDTH, 2, seed=seed)[0] for seed in range(800)])
    assert first.mean(0).abs().max() < 5 * (1 / WIDTH / 800) ** 0.5
    assert torch.allclose(first.var(0), torch.tensor(1 / WIDTH), rtol=0.3)


def test_on_a_gpu_directions_and_factors_come_to_the_activations(outputs: torch.Tensor) -> None:
    p, h = directions(outputs, 3), torch.randn(12, 2, WIDTH)
    for sigma in (torch.randn(3), torch.randn(6, 3)):
        expected = pcp_edit(p, sigma)(h, h)
        with pretended_gpu():
            there = h.to("cuda")
            found = pcp_edit(p, sigma)(there, there)
            assert found.device == there.device
        assert torch.equal(found, expected)


def test_in_a_short_type_directions_and_factors_take_the_type_of_the_activations(outputs: torch.Tensor) -> None:
    p, sigma, h = directions(outputs, 3), torch.randn(3), torch.randn(5, 2, WIDTH)
    found = pcp_edit(p, sigma)(h.bfloat16(), h.bfloat16())
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), pcp_edit(p, sigma)(h, h), atol=0.1, rtol=0.1)
