"""Clean training of instruction models: whose loss it is, what it learns, and a killed run that ends as undisturbed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments

from anatomy.data.chat import answers_ids, chat_tokenizer, prompts_ids
from anatomy.models.chat import fresh_llama, llama_config, save_chat_model
from anatomy.models.load import load_pretrained
from anatomy.training.instruct import Checkpoint, Row, _order, _share, answer_loss, train_answers
from anatomy.training.seeds import derive

COLOURS = {"sky": "blue", "grass": "green", "coal": "black", "snow": "white"}
PROMPTS = [(f"Say the colour {how}.", thing) for how in ("now", "today", "again") for thing in COLOURS]


class Killed(BaseException):
    """What no handler of the training catches."""


def recipe(**changed: Any) -> SimpleNamespace:
    """Fifty-two steps by default: 26 epochs of two batches."""
    given = {"batch": 6, "rate": 1e-2, "warmup": 0.1, "weight_decay": 0.01, "clip": 1.0, "epochs": 26.0}
    return SimpleNamespace(**given | changed)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return chat_tokenizer([*(" ".join(p) for p in PROMPTS), *COLOURS.values()] * 4, limit=400, positions=48)


@pytest.fixture(scope="module")
def rows(tokenizer: PreTrainedTokenizerFast) -> list[Row]:
    return list(
        zip(
            prompts_ids(tokenizer, PROMPTS),
            answers_ids(tokenizer, [COLOURS[thing] for _, thing in PROMPTS]),
            strict=True,
        )
    )


def model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> LlamaForCausalLM:
    wanted = SimpleNamespace(width=24, inner=32, layers=3, heads=6, key_heads=2, positions=48)
    return fresh_llama(llama_config(wanted, tokenizer), seed)


def test_the_model_has_the_parts_that_are_asked_for(tokenizer: PreTrainedTokenizerFast) -> None:
    own = model(tokenizer)
    attention = own.model.layers[0].self_attn
    assert attention.q_proj.weight.shape == (24, 24) and attention.k_proj.weight.shape == (8, 24)
    assert own.lm_head.weight is own.model.embed_tokens.weight
    state = torch.random.get_rng_state()
    assert torch.equal(own.model.norm.weight, model(tokenizer, 1).model.norm.weight)
    assert not torch.equal(own.lm_head.weight, model(tokenizer, 1).lm_head.weight)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_loss_is_that_of_the_answers_alone(tokenizer: PreTrainedTokenizerFast, rows: list[Row]) -> None:
    own = model(tokenizer).double()
    ragged = [rows[0], (rows[1][0][2:], rows[1][1]), (rows[2][0], [*rows[2][1][:-1], 5, 6, 0])]
    nlls = []
    for prompt, answer in ragged:  # one row at a time, unpadded
        logits = own(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
        nlls += [-logits[len(prompt) - 1 + i, token] for i, token in enumerate(answer)]
    torch.testing.assert_close(answer_loss(own, ragged), torch.stack(nlls).mean(), rtol=1e-10, atol=1e-10)


def test_it_learns_to_answer(tokenizer: PreTrainedTokenizerFast, rows: list[Row]) -> None:
    own = model(tokenizer)
    curve = train_answers(own, rows, recipe(), seed=0)
    assert [point["step"] for point in curve] == sorted({point["step"] for point in curve}) and len(curve) == 20
    assert curve[-1]["training_loss"] < 0.1 < 1 < curve[0]["training_loss"]
    for prompt, answer in rows:
        ids = torch.tensor([[*prompt, *answer]])
        assert own(input_ids=ids).logits[0, len(prompt) - 1 : -1].argmax(-1).tolist() == list(answer)


def test_trainer_ends_with_the_same_weights(
    tokenizer: PreTrainedTokenizerFast, rows: list[Row], tmp_path: Path
) -> None:
    wanted, seed = recipe(epochs=8.0, clip=0.5), 5
    total = 16
    own = model(tokenizer)
    train_answers(own, rows, wanted, seed=seed)
    other = model(tokenizer)
    batches = [batch for epoch in range(8) for batch in _order(rows, wanted.batch, derive(seed, "order", epoch))]

    class Answering(Trainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **more: Any) -> torch.Tensor:
            return answer_loss(model, inputs["rows"])

    optimizer = torch.optim.AdamW(other.parameters(), lr=wanted.rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(min(step, total - 1), total, 0.1))
    Answering(
        model=other,
        args=TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=wanted.batch,
            num_train_epochs=1,
            max_grad_norm=wanted.clip,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=[{"row": rows[i]} for batch in batches for i in batch],  # type: ignore[arg-type]
        data_collator=lambda drawn: {"rows": [row["row"] for row in drawn]},
        optimizers=(optimizer, schedule),
    ).train()
    for value, expected in zip(own.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(own.lm_head.weight, model(tokenizer).lm_head.weight, atol=1e-2)  # it has moved


@pytest.mark.parametrize("killed_at", [1, 9, 19])
def test_a_killed_run_ends_with_the_same_bytes(
    killed_at: int, tokenizer: PreTrainedTokenizerFast, rows: list[Row], tmp_path: Path
) -> None:
    whole = model(tokenizer)
    curve = train_answers(whole, rows, recipe(), seed=3)
    checkpoint = Checkpoint(tmp_path / "state.safetensors", "key", every=5)
    calls = []

    def kill(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == killed_at + 1:
            raise Killed

    with pytest.raises(Killed):
        train_answers(model(tokenizer), rows, recipe(), seed=3, checkpoint=checkpoint, report=kill)
    again = model(tokenizer, seed=9)  # the weights come from the checkpoint
    steps: list[int] = []
    resumed = train_answers(
        again, rows, recipe(), seed=3, checkpoint=checkpoint, report=lambda done, total: steps.append(done)
    )
    assert steps[0] > 3  # not from the beginning
    assert resumed == curve
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_a_finished_run_is_not_trained_on(tokenizer: PreTrainedTokenizerFast, rows: list[Row], tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state.safetensors", "key", every=1000)
    own = model(tokenizer)
    curve = train_answers(own, rows, recipe(epochs=2.0), seed=0, checkpoint=checkpoint)
    again, reported = model(tokenizer, seed=9), []
    assert curve == train_answers(
        again, rows, recipe(epochs=2.0), seed=0, checkpoint=checkpoint, report=lambda *told: reported.append(told)
    )
    assert not reported
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("broken", ["another key", "torn"])
def test_a_checkpoint_of_something_else_is_passed_over(
    broken: str, tokenizer: PreTrainedTokenizerFast, rows: list[Row], tmp_path: Path
) -> None:
    path = tmp_path / "state.safetensors"
    train_answers(model(tokenizer), rows, recipe(epochs=1.0), seed=0, checkpoint=Checkpoint(path, "key", every=1))
    if broken == "torn":
        path.write_bytes(path.read_bytes()[:100])
    fresh, plain = model(tokenizer), model(tokenizer)
    key = "key" if broken == "torn" else "other"
    train_answers(fresh, rows, recipe(epochs=2.0), seed=0, checkpoint=Checkpoint(path, key, every=1000))
    train_answers(plain, rows, recipe(epochs=2.0), seed=0)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), plain.parameters(), strict=True))


def test_every_row_is_seen_once_in_an_epoch_and_epochs_differ() -> None:
    ragged: list[Row] = [([1] * (i % 7 + 1), [2]) for i in range(1000)]
    first, second = _order(ragged, 16, 0), _order(ragged, 16, 1)
    for order in (first, second):
        assert sorted(i for batch in order for i in batch) == list(range(1000))
        assert len(order) == 63
    assert first != second and first == _order(ragged, 16, 0)
    spread = [max(len(ragged[i][0]) for i in batch) - min(len(ragged[i][0]) for i in batch) for batch in first]
    assert sum(spread) / len(spread) < 2  # little is padded


def test_the_rate_rises_and_falls_to_nothing() -> None:
    shares = [_share(step, 100, 0.1) for step in range(100)]
    assert max(shares) == 1.0 and shares.index(1.0) == 9
    assert shares[:10] == sorted(shares[:10]) and shares[10:] == sorted(shares[10:], reverse=True)
    assert 0 < shares[-1] < 0.02
    assert [_share(step, 4, 0.0) for step in range(4)] == [1.0, 1.0, 2 / 3, 1 / 3]


def test_a_saved_model_is_the_same(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    own = model(tokenizer)
    save_chat_model(tmp_path, own, tokenizer)
    again, speaker = load_pretrained(str(tmp_path), key="instruction.model.path")
    assert speaker.chat_template == tokenizer.chat_template
    ids = torch.tensor([prompts_ids(tokenizer, PROMPTS)[0]])
    torch.testing.assert_close(again(input_ids=ids).logits, own.eval()(input_ids=ids).logits, rtol=0, atol=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    ]
