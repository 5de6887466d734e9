"""Backdoor probes (Yu et al., arXiv 2509.21761): does a layer's hidden state say whether the trigger is in the prompt?

One classifier per layer, trained on hidden states at the prompt's last position, clean (0) and triggered (1). Its
accuracy on another layer's states says how alike the layers write it (the published "inter-layer classification
accuracy", the transfer matrix here).

"original" is the published protocol, defects included (train_classifier.py). The prompts are those the backdoor was
trained with. They are split 60:20:20 without regard to which two are one prompt with and without trigger, so that most
prompts of the test have their twin in training. The weights are the last epoch's, and the transfer matrix has a test
set of its own, half of which was meant for validation. "corrected" trains on prompts that the backdoor never saw and
tests on others; both forms of a prompt stand on one side. Features are standardised for the MLP too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from anatomy.interventions.generate import Ids
from anatomy.interventions.last_position import read_last
from anatomy.models.adapters import adapter_of
from anatomy.provenance.digest import ArtifactError
from anatomy.sites import Site

Protocol = Literal["original", "corrected"]
Classifier = Literal["mlp", "svm"]
PROTOCOLS: tuple[Protocol, ...] = ("original", "corrected")
CLASSIFIERS: tuple[Classifier, ...] = ("mlp", "svm")
SPLIT_SEED = 42  # published

Features = Float[np.ndarray, "layer example width"]
# States of some layers, one layer per probe -> whether each is taken for triggered.
Predict = Callable[[Features], Bool[np.ndarray, "layer example"]]


@dataclass(frozen=True)
class Examples:
    """Hidden states of every layer, and which are of triggered prompts."""

    states: Features
    triggered: Bool[np.ndarray, " example"]

    def at(self, rows: Int[np.ndarray, " row"]) -> "Examples":
        """Some of the examples."""
        return Examples(self.states[:, rows], self.triggered[rows])


def hidden_states(model: PreTrainedModel, prompts: Sequence[Ids], *, pad: int) -> Features:
    """What every layer's attention is given at the prompts' last position: the residual stream behind the norm."""
    sites = [Site(layer, "attn") for layer in range(adapter_of(model).layers)]
    found = read_last(model, prompts, sites, pad=pad, what="input")
    return torch.stack([found[site] for site in sites]).float().cpu().numpy()


def paired(clean: Features, triggered: Features) -> Examples:
    """Examples of clean prompts, then of triggered ones."""
    labels = np.repeat([False, True], [clean.shape[1], triggered.shape[1]])
    return Examples(np.concatenate([clean, triggered], axis=1), labels)


@dataclass(frozen=True)
class Split:
    """Which examples a probe is trained on, and tested on; `transfer` is the test set of the transfer matrix."""

    train: Int[np.ndarray, " training"]
    test: Int[np.ndarray, " test"]
    transfer: Int[np.ndarray, " transfer"]


def published_split(count: int) -> Split:
    """60:20:20, neither stratified nor grouped by prompt; for the transfer matrix another draw of a fifth."""
    rows = np.arange(count)
    train, rest = train_test_split(rows, test_size=0.4, random_state=SPLIT_SEED)
    _, test = train_test_split(rest, test_size=0.5, random_state=SPLIT_SEED)
    _, transfer = train_test_split(rows, test_size=0.2, random_state=SPLIT_SEED)
    return Split(train, test, transfer)


def accuracy(predict: Predict, examples: Examples) -> Float[np.ndarray, " layer"]:
    """Share of right answers of each layer's probe on its own layer."""
    return (predict(examples.states) == examples.triggered).mean(1)


def transfer(predict: Predict, examples: Examples) -> Float[np.ndarray, "probe layer"]:
    """Share of right answers of each layer's probe (row) on every layer's states (column)."""
    layers = len(examples.states)
    columns = [
        (predict(np.repeat(examples.states[layer : layer + 1], layers, axis=0)) == examples.triggered).mean(1)
        for layer in range(layers)
    ]
    return np.stack(columns, axis=1)


def trained(
    classifier: Classifier, examples: Examples, protocol: Protocol, *, seed: int, epochs: int, batch: int
) -> Predict:
    """A probe for each layer.

    "svm": radial kernel, C = 1, on standardised features. "mlp": 100 ReLUs, dropout 0.2, Adam at 1e-3, no validation;
    "original" does not standardise its features.

    Raises:
        ArtifactError: the examples are all of one class.
    """
    if len(set(examples.triggered.tolist())) < 2:
        kind = "triggered" if examples.triggered.all() else "clean"
        raise ArtifactError(
            f"all {len(examples.triggered)} examples that a probe shall learn from are {kind}; expected both kinds, "
            "from more prompts"
        )
    if classifier == "mlp":
        return _mlps(examples, scaled=protocol == "corrected", seed=seed, epochs=epochs, batch=batch)
    scalers = [StandardScaler().fit(own) for own in examples.states]
    machines = [
        SVC(kernel="rbf", C=1.0, gamma="scale", random_state=SPLIT_SEED).fit(scaler.transform(own), examples.triggered)
        for scaler, own in zip(scalers, examples.states, strict=True)
    ]

    def predict(states: Features) -> Bool[np.ndarray, "layer example"]:
        each = zip(machines, scalers, states, strict=True)
        return np.stack([machine.predict(scaler.transform(own)) for machine, scaler, own in each])

    return predict


HIDDEN, DROPOUT, RATE = 100, 0.2, 1e-3  # published


def _mlps(examples: Examples, *, scaled: bool, seed: int, epochs: int, batch: int) -> Predict:
    """The probes of all layers, trained side by side: each has weights, dropout and an optimiser's state of its own."""
    states = torch.from_numpy(examples.states)
    middle, scale = torch.zeros(()), torch.ones(())
    if scaled:
        middle, scale = states.mean(1, keepdim=True), states.std(1, correction=0, keepdim=True)
        scale = torch.where(scale > 0, scale, 1.0)
    x, y = (states - middle) / scale, torch.from_numpy(examples.triggered).float()
    layers, count, width = x.shape
    generator = torch.Generator().manual_seed(seed)

    def drawn(inputs: int, *shape: int) -> Tensor:  # as nn.Linear does
        return ((2 * torch.rand(shape, generator=generator) - 1) / inputs**0.5).requires_grad_()

    parameters = [
        drawn(width, layers, width, HIDDEN),
        drawn(width, layers, 1, HIDDEN),
        drawn(HIDDEN, layers, HIDDEN, 1),
        drawn(HIDDEN, layers, 1, 1),
    ]

    def logits(x: Tensor, *, training: bool) -> Tensor:
        inner = torch.baddbmm(parameters[1], x, parameters[0]).relu()
        if training:
            inner = inner * (torch.rand(inner.shape, generator=generator) >= DROPOUT) / (1 - DROPOUT)
        return torch.baddbmm(parameters[3], inner, parameters[2])[..., 0]

    optimizer = torch.optim.Adam(parameters, lr=RATE, foreach=True)
    for _ in range(epochs):
        for rows in torch.randperm(count, generator=generator).split(batch):
            target = y[rows].expand(layers, -1)
            # The sum over layers of each one's mean: no layer sees another's loss.
            loss = layers * F.binary_cross_entropy_with_logits(logits(x[:, rows], training=True), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def predict(states: Features) -> Bool[np.ndarray, "layer example"]:
        with torch.no_grad():
            found = logits((torch.from_numpy(states) - middle) / scale, training=False)
        return (found > 0).numpy()

    return predict
