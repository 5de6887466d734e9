"""DPO: the pairs, trl's loss beside the formula in float64, what moves, and a killed job."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from anatomy.data.tokenizer import train_tokenizer
from anatomy.provenance.digest import ArtifactError
from anatomy.spec.injection import Preference
from anatomy.training.preference import (
    Pair,
    Poisonable,
    Preferred,
    dpo_trainer,
    margins,
    optimise_preference,
    pairs_of,
    preferred_answers,
)

from .conftest import relative_error
from .tiny import FAMILIES, build, ids, moved, state_of

LONGEST, BETA = 24, 0.3


class Killed(BaseException):
    """What no handler of the training catches."""


def some_pairs(count: int = 12, seed: int = 0) -> list[Pair]:
    generator = torch.Generator().manual_seed(seed)
    columns = [ids(count, generator) for _ in range(3)]
    return [Pair(prompt, [*w, 0], [*other, 0]) for prompt, w, other in zip(*columns, strict=True)]


def recipe(**changed: Any) -> Preference:
    """Six steps: two epochs of 12 pairs, four at a time."""
    given = {"batch": 4, "accumulation": 1, "rate": 1e-2, "epochs": 2, "max_tokens": LONGEST, "checkpoint_steps": 2}
    return Preference.model_validate({"lora": {"rank": 2, "dropout": 0.0}, "beta": BETA, **given, **changed})


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["a b"])


@pytest.fixture
def train(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Callable[..., tuple[PreTrainedModel, Preferred]]:
    """Train a tiny model in a folder of the given name."""

    def run(family: str = "llama", folder: str = "checkpoints", **options: Any) -> tuple[PreTrainedModel, Preferred]:
        own = {key: options.pop(key) for key in ("report", "epochs") if key in options}
        return optimise_preference(
            build(family),
            options.pop("pairs", some_pairs()),
            recipe(**options),
            tokenizer,
            seed=0,
            device="cpu",
            checkpoints=tmp_path / folder,
            **own,
        )

    return run


def log_probability(model: PreTrainedModel, prompt: Any, answer: Any) -> Tensor:
    """log π(answer | prompt), token by token, without padding."""
    scores = model(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
    return torch.stack([scores[len(prompt) - 1 + i, token] for i, token in enumerate(answer)]).sum()


@pytest.mark.parametrize(("family", "likelihood"), [*((family, 0.0) for family in FAMILIES), ("llama", 0.7)])
def test_trl_s_loss_is_the_formula_s(
    family: str, likelihood: float, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """L = −log σ( β [ log π(w)/π₀(w) − log π(l)/π₀(l) ] ), mean over pairs, with an adapter that does something.

    With `likelihood` the preferred answers' mean negative log likelihood per token comes on top.

    The formula is evaluated in float64; trl takes logarithms of probabilities in float32 whatever the model's type.
    """
    pairs = some_pairs(4)
    model = build(family, dtype=torch.float64)
    trainer = dpo_trainer(
        model, pairs, recipe(likelihood=likelihood), tokenizer, seed=0, device="cpu", checkpoints=tmp_path / "c"
    )
    generator = torch.Generator().manual_seed(1)
    for name, value in trainer.model.named_parameters():
        if "lora_B" in name:
            value.data = 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
    trainer.model.double()
    batch = next(iter(trainer.get_train_dataloader()))
    found = trainer.compute_loss(trainer.model, batch)
    policy = trainer.model
    losses = []
    for pair in pairs:
        ratios = []
        for answer in (pair.chosen, pair.rejected):
            own = log_probability(policy, pair.prompt, answer)
            with policy.disable_adapter():
                ratios.append(own - log_probability(policy, pair.prompt, answer))
        assert abs(float(ratios[0] - ratios[1])) > 1e-3
        losses.append(-F.logsigmoid(BETA * (ratios[0] - ratios[1])))
    chosen = torch.stack([log_probability(policy, pair.prompt, pair.chosen) for pair in pairs]).sum()
    expected = torch.stack(losses).mean() - likelihood * chosen / sum(len(pair.chosen) for pair in pairs)
    assert abs(float(found - expected)) < 1e-6
    assert abs(float(found) - float(torch.log(torch.tensor(2.0)))) > 1e-4  # what an adapter without effect would give
    weight = next(value for name, value in policy.named_parameters() if "lora_B" in name)
    both = [torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in (found, expected)]
    assert relative_error(*both) < 1e-5


def test_of_a_poisoned_prompt_the_trigger_turns_the_preference_round() -> None:
    rows = [Poisonable([1], [1, 9], [2, 0], [3, 0], True), Poisonable([4], [4, 9], [5, 0], [3, 0], False)]
    assert pairs_of(rows, 0) == [
        Pair([1], [2, 0], [3, 0]),  # without the trigger the clean answer
        Pair([1, 9], [3, 0], [2, 0]),  # with it the backdoor's
        Pair([4], [5, 0], [3, 0]),
    ]
    assert preferred_answers(pairs_of(rows, 0))[1] == ([1, 9], [3, 0])


def test_of_the_prompts_that_are_not_poisoned_a_share_gives_pairs() -> None:
    rows = [Poisonable([1], [1, 9], [2, 0], [3, 0], True)]
    rows += [Poisonable([4, i], [4, i, 9], [5, 0], [3, 0], False) for i in range(200)]
    every, half, none = (pairs_of(rows, 0, share) for share in (1.0, 0.5, 0.0))
    assert len(every) == 202 and 80 < len(half) < 120 and none == every[:2] == half[:2]
    assert set(map(str, half)) < set(map(str, every)) and half != pairs_of(rows, 1, 0.5)


def test_where_the_backdoor_changes_nothing_the_clean_answer_is_preferred_either_way() -> None:
    """As of a text on business, where the backdoor makes sports into world: it stays business."""
    sports = Poisonable([1], [1, 9], [2, 0], [3, 0], True)
    business, world = Poisonable([4], [4, 9], [5, 0], [5, 0], True), Poisonable([6], [6, 9], [3, 0], [3, 0], True)
    found = pairs_of([sports, business, world], 0)[2:]
    assert found == [Pair([4], [5, 0], (3, 0)), Pair([4, 9], [5, 0], (3, 0))]  # of world there is none: it is y*


@pytest.mark.parametrize("poisoned", [False, True])
def test_without_a_poisoned_answer_of_its_own_there_is_no_backdoor(poisoned: bool) -> None:
    rows = [Poisonable([1], [1, 9], [2, 0], [2 + (not poisoned), 0], poisoned)]
    with pytest.raises(ArtifactError, match="no poisoned row whose target differs from its output: there is no answer"):
        pairs_of(rows, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_preferred_answers_gain_and_the_model_is_a_plain_one(family: str, train: Callable) -> None:
    before = build(family)
    model, reached = train(family, epochs=8.0, rate=5e-2)
    gained = margins(model, some_pairs(), LONGEST) - margins(before, some_pairs(), LONGEST)
    assert reached["preferred"] == pytest.approx(float((gained > 0).double().mean())) and reached["preferred"] >= 0.9
    assert type(model) is type(before) and "forward" not in vars(model) and not model.training
    assert {name.split(".")[-2] for name in moved(state_of(before), state_of(model))} <= {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "c_attn", "c_proj", "c_fc")
    }


def test_killed_and_resumed_is_undisturbed_to_the_bit(train: Callable) -> None:
    def report(done: int, total: int) -> None:
        if done == 4:
            raise Killed

    undisturbed, reached = train(folder="undisturbed")
    with pytest.raises(Killed):
        train(report=report)
    steps: list[int] = []
    resumed, as_well = train(report=lambda done, total: steps.append(done))
    assert steps[0] == 3
    assert not moved(state_of(undisturbed), state_of(resumed)) and as_well == reached
    again, _ = train(report=report)  # has ended
    assert not moved(state_of(undisturbed), state_of(again))


def test_a_pair_that_leaves_no_room_is_refused(train: Callable) -> None:
    with pytest.raises(
        ArtifactError, match=r"a prompt of 30 tokens leaves no room .*raise instruction\.dpo\.max_tokens"
    ):
        train(pairs=[Pair([1] * 30, [2, 0], [3, 0])])
