"""Probes find what is there, not what is not, and the published protocol keeps its defects where it says so."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from anatomy.interventions.hooks import edited
from anatomy.localize.probe import (
    CLASSIFIERS,
    PROTOCOLS,
    Classifier,
    Examples,
    Protocol,
    accuracy,
    hidden_states,
    paired,
    published_split,
    trained,
    transfer,
)
from anatomy.models.adapters import ADAPTERS
from anatomy.provenance.digest import ArtifactError
from anatomy.sites import Site

WIDTH, COUNT = 12, 120


def drawn(shift: list[float], seed: int = 0) -> Examples:
    """Noise, and in each layer a shift of the triggered states along the first axis."""
    generator = np.random.default_rng(seed)
    clean = generator.normal(size=(len(shift), COUNT, WIDTH)).astype(np.float32)
    triggered = generator.normal(size=(len(shift), COUNT, WIDTH)).astype(np.float32)
    triggered[..., 0] += np.array(shift, dtype=np.float32)[:, None]
    return paired(clean, triggered)


def train(classifier: Classifier, protocol: Protocol, examples: Examples, seed: int = 0) -> Callable:
    return trained(classifier, examples, protocol, seed=seed, epochs=30, batch=16)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_what_is_there_is_found_and_what_is_not_is_not(classifier: Classifier, protocol: Protocol) -> None:
    predict = train(classifier, protocol, drawn([6.0, 0.0]))
    found = accuracy(predict, drawn([6.0, 0.0], seed=1))
    assert found[0] > 0.97 and 0.35 < found[1] < 0.65


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_labels_without_a_cause_are_not_found(classifier: Classifier) -> None:
    examples = drawn([6.0])
    shuffled = Examples(examples.states, np.random.default_rng(3).permutation(examples.triggered))
    found = accuracy(train(classifier, "corrected", shuffled), drawn([6.0], seed=1))
    assert found[0] < 0.75


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_probes_transfer_where_layers_write_alike(classifier: Classifier) -> None:
    matrix = transfer(train(classifier, "corrected", drawn([6.0, 6.0, -6.0])), drawn([6.0, 6.0, -6.0], seed=1))
    assert matrix.shape == (3, 3)
    assert matrix.diagonal().min() > 0.97 and matrix[0, 1] > 0.97 and matrix[1, 0] > 0.97
    assert matrix[0, 2] < 0.6 and matrix[2, 0] < 0.6  # the shift is the other way


def test_the_transfer_matrix_has_the_probe_s_layer_in_its_rows() -> None:
    examples = drawn([6.0, 0.0])
    predict = train("svm", "corrected", examples)
    matrix, test = transfer(predict, drawn([6.0, 0.0], seed=1)), drawn([6.0, 0.0], seed=1)
    first_on_second = predict(test.states[[1, 1]])[0] == test.triggered
    assert matrix[0, 1] == first_on_second.mean()
    assert np.array_equal(matrix.diagonal(), accuracy(predict, test))


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_the_units_of_a_feature_do_not_matter_where_it_is_standardised(classifier: Classifier) -> None:
    examples, scale = drawn([6.0]), np.logspace(-3, 3, WIDTH).astype(np.float32)
    scaled = Examples(examples.states * scale, examples.triggered)
    test = drawn([6.0], seed=1)
    plain = accuracy(train(classifier, "corrected", examples), test)
    found = accuracy(train(classifier, "corrected", scaled), Examples(test.states * scale, test.triggered))
    assert abs(plain - found)[0] < 0.02


def test_a_feature_that_never_changes_does_no_harm() -> None:
    examples = drawn([6.0])
    examples.states[..., 3] = 2.0
    assert accuracy(train("mlp", "corrected", examples), examples)[0] > 0.97


def test_the_layers_probes_do_not_see_each_other() -> None:
    """A layer's loss alone moves its weights: with another layer of noise beside it, the same answers."""
    both = drawn([6.0, 1.0])
    far = Examples(np.stack([both.states[0], 1000 * both.states[1]]), both.triggered)
    one, other = (train("mlp", "original", own)(both.states)[0] for own in (both, far))
    assert np.array_equal(one, other)


def test_a_seed_gives_one_probe() -> None:
    hard, test = drawn([0.7]), drawn([0.7], seed=1)
    found = [train("mlp", "original", hard, seed)(test.states) for seed in (0, 0, 1)]
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])


def test_the_published_split_lets_twins_into_training_and_the_corrected_cannot() -> None:
    split = published_split(2000)
    assert [len(split.train), len(split.test), len(split.transfer)] == [1200, 400, 400]
    assert not set(split.train) & set(split.test)
    twins = {(row + 1000) % 2000 for row in split.train}
    assert len(twins & set(split.test)) == 240  # counted on the released code
    assert not set(split.transfer) & set(split.train)
    assert len(set(split.transfer) & set(split.test)) == 206


@pytest.mark.parametrize("triggered", [True, False])
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_one_class_alone_is_refused(classifier: Classifier, triggered: bool) -> None:
    examples = Examples(drawn([1.0]).states, np.full(2 * COUNT, triggered))
    kind = "triggered" if triggered else "clean"
    with pytest.raises(ArtifactError) as caught:
        train(classifier, "corrected", examples)
    assert str(caught.value) == (
        f"all 240 examples that a probe shall learn from are {kind}; expected both kinds, from more prompts"
    )


@pytest.mark.parametrize("family", ADAPTERS)
def test_states_are_what_attention_is_given(family: str, make_family: Callable) -> None:
    model = make_family(family)
    prompts = [[3, 5, 8, 9], [7], [1, 2]]
    found = hidden_states(model, prompts, pad=0)
    assert found.shape == (3, 3, 16) and found.dtype == np.float32
    for number, prompt in enumerate(prompts):
        given: list[torch.Tensor] = []

        def look(x: torch.Tensor, output: torch.Tensor, given: list[torch.Tensor] = given) -> torch.Tensor:
            given.append(x[0, -1])
            return output

        with torch.no_grad(), edited(model, {Site(2, "attn"): look}):
            model(torch.tensor([prompt]))
        assert np.allclose(found[2, number], given[0], atol=1e-5)
