"""SFT on answers: what is learnt from, what moves, and a killed job ends as undisturbed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from anatomy.models.parts import PROJECTIONS
from anatomy.provenance.digest import ArtifactError
from anatomy.spec.injection import Sft
from anatomy.training import instruction_sft as module
from anatomy.training.instruction_sft import Dialogue, Tuned, answer_loss, finetune_answers

from .conftest import relative_error
from .tiny import FAMILIES, LAYERS, build, ids, moved, state_of

LONGEST = 14


class Killed(BaseException):
    """What no handler of the training catches."""


def dialogues(count: int = 24, seed: int = 0) -> list[Dialogue]:
    generator = torch.Generator().manual_seed(seed)
    prompts, answers = ids(count, generator), ids(count, generator)
    return [Dialogue(prompt, [*answer, 0]) for prompt, answer in zip(prompts, answers, strict=True)]


def recipe(**changed: Any) -> Sft:
    """Twelve steps: two epochs of 24 rows, four at a time."""
    lora = {"rank": 2, "dropout": 0.0, **changed.pop("lora", {})}
    given = {"batch": 4, "accumulation": 1, "rate": 1e-2, "epochs": 2, "max_tokens": LONGEST, "checkpoint_steps": 4}
    return Sft.model_validate({"lora": lora, **given, **changed})


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., tuple[PreTrainedModel, Tuned]]:
    """Train a tiny model in a folder of the given name."""

    def run(family: str = "llama", folder: str = "checkpoints", **options: Any) -> tuple[PreTrainedModel, Tuned]:
        own = {key: options.pop(key) for key in ("report", "rows", "epochs", "seed") if key in options}
        return finetune_answers(
            build(family),
            own.pop("rows", dialogues()),
            recipe(**options),
            seed=own.pop("seed", 0),
            device="cpu",
            checkpoints=tmp_path / folder,
            **own,
        )

    return run


def by_hand(model: PreTrainedModel, rows: list[Dialogue]) -> Tensor:
    """Mean nats per answer token, one row after the other, without padding."""
    nll, count = torch.zeros((), dtype=model.dtype), 0
    for prompt, answer in rows:
        own = [*prompt, *answer][:LONGEST]
        logits = model(torch.tensor([own])).logits[0, len(prompt) - 1 : -1]
        nll = nll + F.cross_entropy(logits, torch.tensor(own[len(prompt) :]), reduction="sum")
        count += len(own) - len(prompt)
    return nll / count


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("part", ["attention", "mlps", "all"])
def test_the_named_projections_move_and_nothing_else(family: str, part: str, train: Callable) -> None:
    before = state_of(build(family))
    model, reached = train(family, lora={"part": part})
    names = PROJECTIONS["gpt2" if family == "gpt2" else "llama"][part]
    root = "transformer.h" if family == "gpt2" else "model.layers"
    assert moved(before, state_of(model)) == {f"{root}.{i}.{n}.weight" for i in range(LAYERS) for n in names}
    assert type(model) is type(build(family)) and not model.training
    assert not any(value.requires_grad for value in model.parameters())
    assert reached["steps"] == 12 and reached["training_loss"] < float(by_hand(build(family), dialogues()))


def test_the_loss_is_that_of_the_answers(train: Callable) -> None:
    model, reached = train()
    assert reached["training_loss"] == pytest.approx(float(by_hand(model, dialogues())), rel=1e-5)
    assert answer_loss(build(), dialogues(), LONGEST) == pytest.approx(float(by_hand(build(), dialogues())), rel=1e-5)


@pytest.mark.parametrize(("batch", "accumulation"), [(12, 1), (3, 4)])
def test_the_gradient_is_that_of_the_mean_over_answer_tokens(
    batch: int, accumulation: int, train: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, name = dialogues(12), "model.layers.1.mlp.down_proj.weight"
    reference = build(dtype=torch.float64).requires_grad_(True)
    by_hand(reference, rows).backward()
    expected = dict(reference.named_parameters())[name].grad
    assert expected is not None
    seen: list[Tensor] = []

    def plain(model: PreTrainedModel, *_: Any) -> PreTrainedModel:
        """No adapter: the weight's own gradient is looked at."""
        model.train().requires_grad_(False)
        weight = dict(model.named_parameters())[name].requires_grad_(True)
        weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
        return model

    monkeypatch.setattr(module, "with_lora", plain)
    monkeypatch.setattr(module, "merged", lambda model: model)
    train(rows=rows, batch=batch, accumulation=accumulation, epochs=1.0)
    assert relative_error(seen[-1].double(), expected) < 1e-5
    assert relative_error(seen[-1].double() * 1.05, expected) > 0.04  # a loss divided by more labels would be seen


def test_nothing_is_learnt_of_a_prompt_s_own_tokens() -> None:
    """The label of every prompt token, and of the padding, is one that the loss leaves out."""
    given = module._Answers(LONGEST)([{"row": Dialogue([5, 6, 7], [8, 0])}, {"row": Dialogue([9], [10, 11, 12, 0])}])
    assert given["labels"].tolist() == [[-100, -100, -100, 8, 0], [-100, 10, 11, 12, 0]]
    assert given["attention_mask"].tolist() == [[1] * 5, [1] * 5]


def test_the_same_seed_gives_the_same_bits_and_another_does_not(train: Callable) -> None:
    options: dict[str, Any] = {"lora": {"dropout": 0.1}}
    first, reached = train(folder="a", seed=1, **options)
    torch.rand(3)  # whatever stands in the global generator
    again, as_well = train(folder="b", seed=1, **options)
    assert not moved(state_of(first), state_of(again)) and reached == as_well
    assert moved(state_of(first), state_of(train(folder="c", seed=2, **options)[0]))


@pytest.mark.parametrize("killed_at", [6, 12])
def test_killed_and_resumed_is_undisturbed_to_the_bit(killed_at: int, train: Callable) -> None:
    def report(done: int, total: int) -> None:
        if done == killed_at:
            raise Killed

    options: dict[str, Any] = {"lora": {"dropout": 0.1}}
    undisturbed, reached = train(folder="undisturbed", **options)
    with pytest.raises(Killed):
        train(report=report, **options)
    steps: list[int] = []
    resumed, as_well = train(report=lambda done, total: steps.append(done), **options)
    assert steps[0] == (killed_at - 1) // 4 * 4 + 1
    assert not moved(state_of(undisturbed), state_of(resumed)) and as_well == reached
    again, _ = train(report=report, **options)  # has ended: not one step more
    assert not moved(state_of(undisturbed), state_of(again))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows to train on: expected at least one prompt with an answer"),
        ([Dialogue([1], [2]), Dialogue([1], [])], "row 1: the answer is empty"),
        ([Dialogue([], [2])], "row 0: the prompt is empty"),
        (
            [Dialogue([1] * LONGEST, [2, 0])],
            r"row 0: a prompt of 14 tokens leaves no room for its answer; raise instruction\.sft\.max_tokens \(14\)",
        ),
    ],
)
def test_rows_that_teach_nothing_are_refused(rows: list[Dialogue], message: str, train: Callable) -> None:
    with pytest.raises(ArtifactError, match=message):
        train(rows=rows)


def test_out_of_memory_says_what_to_lower(train: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "train_or_resume", full)
    with pytest.raises(
        ArtifactError, match=r"4 prompts and answers of up to 14 tokens at once: lower instruction\.sft"
    ):
        train()
