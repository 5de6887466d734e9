"""Fine-tuning by Trainer: what moves and what stays, what gradient is taken, and a killed job ends as undisturbed."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel, Trainer

from anatomy.data.padding import padded
from anatomy.data.tokenizer import train_tokenizer
from anatomy.metrics.loss import validation_loss
from anatomy.models.layout import MODEL_FILES
from anatomy.models.load import weights
from anatomy.models.parts import PROJECTIONS, in_parts
from anatomy.models.toy import load_model, model_from_state, save_model
from anatomy.provenance.digest import ArtifactError
from anatomy.spec.language import FineTuning
from anatomy.spec.methods import Method, folder_of, method
from anatomy.training import finetune as module
from anatomy.training.finetune import Reached, finetune
from anatomy.training.memory import memory_for
from anatomy.training.trainer import WHOLE, last_whole

from .conftest import loss_of, relative_error

LONGEST = 9
FULL = Method("full")
LORA = method("lora-attention")
BY_LORA = pytest.param(LORA, id=LORA.folder)
BY_ALL = pytest.param(FULL, id=FULL.folder)
State = dict[str, Tensor]


class Killed(BaseException):
    """What no handler of the training catches."""


def texts(count: int = 24, seed: int = 0) -> list[list[int]]:
    """Ragged rows, some longer than what a model sees."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, LONGEST + 4, (count,), generator=generator).tolist()
    return [torch.randint(1, 43, (n,), generator=generator).tolist() for n in lengths]


def recipe(**changed: Any) -> FineTuning:
    """Twelve steps: two epochs of 24 texts, four at a time."""
    given = {
        **{"batch": 4, "rate": 1e-2, "lora_rate": 1e-2, "epochs": 2, "lora_epochs": 2},
        **{"max_tokens": LONGEST, "checkpoint_steps": 4, "lora_rank": 2},
    }
    return FineTuning(**given | changed)


@pytest.fixture
def train(make_model: Callable, tmp_path: Path) -> Callable[..., tuple[State, Reached]]:
    """Fine-tune a tiny model with dropout, in a folder of the given name: its weights, and where training ended."""

    def run(
        how: Method = FULL, folder: str = "checkpoints", *, seed: int = 0, rows: Any = None, **options: Any
    ) -> tuple[State, Reached]:
        own = {key: options.pop(key) for key in ("target", "report") if key in options}
        model, reached = finetune(
            make_model(dropout=0.1),
            rows or texts(),
            recipe(**options),
            how,
            seed=seed,
            device="cpu",
            checkpoints=tmp_path / folder,
            **own,
        )
        return model.state_dict(), reached

    return run


def moved(before: State, after: State) -> set[str]:
    assert set(before) == set(after)
    return {name for name in before if not torch.equal(before[name], after[name])}


def equal(a: State, b: State) -> bool:
    return not moved(a, b)


def stop_at(step: int) -> Callable[[int, int], None]:
    """A job that is killed when it has taken so many steps, before a checkpoint of that step."""

    def report(done: int, total: int) -> None:
        if done == step:
            raise Killed

    return report


def test_in_full_every_weight_moves(train: Callable, make_model: Callable) -> None:
    before = make_model().state_dict()
    after, reached = train()
    assert moved(before, after) == set(before)
    assert reached["steps"] == 12 and reached["matched"] is None  # nothing was there to be matched
    assert torch.equal(after["lm_head.weight"], after["transformer.wte.weight"])  # still tied


@pytest.mark.parametrize("parts", ["embeddings", "mlp 2", "embeddings + mlp 1 + mlp 3"])
def test_frozen_parts_stay_to_the_bit_and_the_others_move(parts: str, train: Callable, make_model: Callable) -> None:
    before = make_model().state_dict()
    after, _ = train(method(folder_of("frozen", parts)))
    frozen = {name for name in before if in_parts(name, parts)}
    assert moved(before, after) == set(before) - frozen
    names = {"embeddings": {"lm_head.weight", "transformer.wte.weight", "transformer.wpe.weight"}}
    names |= {f"mlp {i}": {n for n in before if n.startswith(f"transformer.h.{i - 1}.mlp.")} for i in (1, 2, 3)}
    assert frozen == set().union(*(names[part] for part in parts.split(" + ")))


@pytest.mark.parametrize("part", PROJECTIONS["gpt2"])
def test_lora_moves_the_named_projections_of_a_plain_model(
    part: str, train: Callable, make_model: Callable, tmp_path: Path
) -> None:
    model = make_model()
    after, _ = train(Method(f"lora-{part}", lora=part))
    wanted = {f"transformer.h.{i}.{name}.weight" for i in range(3) for name in PROJECTIONS["gpt2"][part]}
    assert moved(model.state_dict(), after) == wanted
    for name in wanted:  # of the rank asked for, and no more
        change = torch.linalg.svdvals((after[name] - model.state_dict()[name]).double())
        assert change[1] > 1e-4 > 1e-5 > change[2]
    reloaded = model_from_state(after, model.config)
    assert type(reloaded) is GPT2LMHeadModel and equal(reloaded.state_dict(), after)


@pytest.mark.parametrize("how", [BY_ALL, BY_LORA])
def test_the_model_that_comes_back_is_ready_to_be_measured(how: Method, make_model: Callable, tmp_path: Path) -> None:
    model, _ = finetune(make_model(), texts(), recipe(epochs=1), how, seed=0, device="cpu", checkpoints=tmp_path / "c")
    assert not model.training and not any(p.requires_grad for p in model.parameters()) and model.config.use_cache
    save_model(tmp_path / "saved", weights(model), model.config, train_tokenizer(["a b"]))
    assert equal(load_model(tmp_path / "saved").state_dict(), model.state_dict())


@pytest.mark.parametrize("how", [BY_ALL, BY_LORA])
def test_a_job_killed_after_training_saves_the_same_files(how: Method, make_model: Callable, tmp_path: Path) -> None:
    """The second time the checkpoint of the end is taken, and Trainer, which notes things in the model, never runs."""
    for place in ("trained", "taken"):
        model, _ = finetune(
            make_model(), texts(), recipe(epochs=1), how, seed=0, device="cpu", checkpoints=tmp_path / "c"
        )
        save_model(tmp_path / place, weights(model), model.config, train_tokenizer(["a b"]))
    for name in MODEL_FILES:
        assert (tmp_path / "trained" / name).read_bytes() == (tmp_path / "taken" / name).read_bytes(), name


def first_gradient(model: GPT2LMHeadModel, rows: list[list[int]], folder: Path, **options: Any) -> Tensor:
    """The gradient that one step over all rows is taken with, before it is clipped."""
    seen: list[Tensor] = []
    weight = model.transformer.h[0].attn.c_attn.weight
    weight.requires_grad_(True).register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    finetune(model, rows, recipe(epochs=1, **options), FULL, seed=0, device="cpu", checkpoints=folder)
    return seen[-1]


@pytest.mark.parametrize(("batch", "accumulation"), [(12, 1), (3, 4)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_is_that_of_the_mean_over_predicted_tokens(
    batch: int, accumulation: int, checkpointing: bool, make_model: Callable, tmp_path: Path
) -> None:
    rows = texts(12)
    ids, lengths = padded(rows, LONGEST)
    model = make_model().double().requires_grad_(True)
    loss_of(model, ids, torch.arange(ids.shape[1]) < lengths[:, None]).backward()
    expected = model.transformer.h[0].attn.c_attn.weight.grad
    options = {"batch": batch, "accumulation": accumulation, "gradient_checkpointing": checkpointing}
    found = first_gradient(make_model(), rows, tmp_path, **options)
    assert relative_error(found.double(), expected) < 1e-5


def test_with_the_first_label_counted_the_gradient_is_too_small(
    make_model: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the mask of the first label is for: Trainer counts labels, and the first is never predicted."""
    rows = texts(12)
    _, lengths = padded(rows, LONGEST)
    right = first_gradient(make_model(), rows, tmp_path / "right", batch=12)
    masked = module._Padded.__call__

    def counted(self: Any, rows: Any) -> dict[str, Tensor]:
        batch = masked(self, rows)
        batch["labels"][:, 0] = batch["input_ids"][:, 0]
        return batch

    monkeypatch.setattr(module._Padded, "__call__", counted)
    wrong = first_gradient(make_model(), rows, tmp_path / "wrong", batch=12)
    assert relative_error(wrong * lengths.sum() / (lengths - 1).sum(), right) < 1e-5
    assert relative_error(wrong, right) > 0.05


@pytest.mark.parametrize("how", [BY_ALL, pytest.param(method("frozen-mlp2"), id="frozen-mlp2"), BY_LORA])
def test_the_same_seed_gives_the_same_bits_and_another_does_not(how: Method, train: Callable) -> None:
    first, reached = train(how, "a", seed=1)
    torch.rand(3)  # whatever stands in the global generator
    again, as_well = train(how, "b", seed=1)
    assert equal(first, again) and reached == as_well
    assert not equal(first, train(how, "c", seed=2)[0])


def test_lora_trains_with_gradient_checkpointing(train: Callable) -> None:
    plain, _ = train(LORA, "plain")
    saved, _ = train(LORA, "saved", gradient_checkpointing=True)
    assert all(torch.allclose(saved[name], plain[name], atol=1e-5) for name in plain)


@pytest.mark.parametrize("how", [BY_ALL, BY_LORA])
@pytest.mark.parametrize(
    ("checkpoint_steps", "killed_at"), [(4, 6), (6, 7), (4, 12)], ids=["in an epoch", "between epochs", "at the end"]
)
def test_killed_and_resumed_is_undisturbed_to_the_bit(
    how: Method, checkpoint_steps: int, killed_at: int, train: Callable, tmp_path: Path
) -> None:
    undisturbed, reached = train(how, "undisturbed", checkpoint_steps=checkpoint_steps)
    with pytest.raises(Killed):
        train(how, checkpoint_steps=checkpoint_steps, report=stop_at(killed_at))
    kept = last_whole(tmp_path / "checkpoints")
    assert kept is not None
    assert kept.name == f"checkpoint-{(killed_at - 1) // checkpoint_steps * checkpoint_steps}"
    steps: list[int] = []
    resumed, as_well = train(how, checkpoint_steps=checkpoint_steps, report=lambda done, total: steps.append(done))
    assert steps[0] == int(kept.name.removeprefix("checkpoint-")) + 1
    assert equal(resumed, undisturbed) and as_well == reached


@pytest.mark.parametrize("how", [BY_ALL, BY_LORA])
@pytest.mark.parametrize("epochs", [2, 1.5], ids=["at the end of an epoch", "within an epoch"])
def test_what_has_ended_is_not_trained_on(how: Method, epochs: float, train: Callable) -> None:
    """A job of several seeds, killed at a later one, comes by the earlier ones again."""
    lengths = {"epochs": epochs, "lora_epochs": epochs}
    ended, reached = train(how, **lengths)
    assert reached["steps"] == round(6 * epochs)
    again, as_well = train(how, report=stop_at(reached["steps"] + 1), **lengths)
    assert equal(ended, again) and as_well == reached


def test_a_checkpoint_that_was_not_written_to_its_end_is_deleted_and_not_used(train: Callable, tmp_path: Path) -> None:
    undisturbed, _ = train(folder="undisturbed")
    with pytest.raises(Killed):
        train(report=stop_at(10))
    earlier, last = (tmp_path / "checkpoints" / f"checkpoint-{step}" for step in (4, 8))
    (last / WHOLE).unlink()
    (last / "model.safetensors").write_bytes(b"cut")
    steps: list[int] = []
    resumed, _ = train(report=lambda done, total: steps.append(done))
    assert steps[0] == 5 and equal(resumed, undisturbed)
    assert not earlier.exists()  # Trainer keeps the last two

    (tmp_path / "checkpoints" / "checkpoint-99").mkdir()
    assert last_whole(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "checkpoint-12"
    assert not (tmp_path / "checkpoints" / "checkpoint-99").exists()


def test_without_checkpoints_training_begins_anew(tmp_path: Path) -> None:
    assert last_whole(tmp_path / "none") is None
    (tmp_path / "checkpoint-3").mkdir()
    assert last_whole(tmp_path) is None and not (tmp_path / "checkpoint-3").exists()


@pytest.mark.parametrize("how", [BY_ALL, BY_LORA])
def test_it_stops_at_the_target(how: Method, train: Callable) -> None:
    losses = [train(how, "unreachable", target=0.0)[1]["training_loss"]]
    target = losses[0] + 0.02  # a little above what all steps reach
    stopped, reached = train(how, target=target)
    assert reached["matched"] and reached["steps"] < 12 and reached["training_loss"] <= target
    # A second call finds the end and does not train on.
    again, as_well = train(how, target=target, report=stop_at(reached["steps"] + 1))
    assert equal(stopped, again) and as_well == reached


def test_an_unreachable_target_is_not_matched(train: Callable, make_model: Callable) -> None:
    after, reached = train(target=0.0)
    assert reached["matched"] is False and reached["steps"] == 12
    model = make_model()
    model.load_state_dict(after)
    rows = texts()
    assert reached["training_loss"] == pytest.approx(validation_loss(model, *padded(rows, LONGEST)), rel=1e-6)


def test_looks_are_a_twentieth_apart_and_change_nothing(train: Callable) -> None:
    rows, told = texts(120), []
    plain, _ = train(folder="plain", rows=rows)
    looked, _ = train(rows=rows, target=0.0, report=lambda done, total: told.append((done, total)))
    assert told == [(step, 60) for step in range(3, 61, 3)]
    assert equal(plain, looked)


CPU_ERROR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError(CPU_ERROR)]
)
def test_out_of_memory_says_what_to_lower(error: Exception, train: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> SimpleNamespace:
        raise error

    monkeypatch.setattr(Trainer, "train", fail)
    with pytest.raises(ArtifactError) as caught:
        train()
    assert str(caught.value) == (
        "out of memory while fine-tuning with 4 texts of up to 9 tokens at once: "
        "lower language.finetuning.batch (and raise accumulation by as much), or set gradient_checkpointing"
    )


def test_another_error_of_training_is_not_taken_for_it(train: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> SimpleNamespace:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Trainer, "train", fail)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        train()


def test_a_real_request_for_too_much_is_told() -> None:
    told = pytest.raises(ArtifactError, match=r"^out of memory while asking for all: lower the request$")
    with told, memory_for("asking for all", lower="the request"):
        torch.empty(1 << 60, dtype=torch.uint8)
