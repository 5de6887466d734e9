"""The stacked trainer and transformers.Trainer, given the same weights and order of data, are one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import GPT2LMHeadModel, Trainer, TrainingArguments

from anatomy.models.toy import fresh_state, stacked_shape
from anatomy.training import toy
from anatomy.training.ensemble import Ensemble
from anatomy.training.toy import Schedule, epoch_order, train

SEED, BATCH, ROWS, EPOCHS, LENGTH, CLIP = 3, 4, 40, 4, 9, 1.6
SCHEDULE = Schedule(batch=BATCH, rate=3e-3, weight_decay=0.1, clip=CLIP, epochs=float(EPOCHS))


class InOrder(Trainer):
    """A Trainer that takes its rows as they come."""

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def padded(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence([row["ids"] for row in rows], batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence([row["ids"] for row in rows], batch_first=True, padding_value=-100)
    return {"input_ids": ids, "labels": labels}


@pytest.fixture
def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(4, LENGTH + 1, (1, ROWS), generator=generator)
    ids = torch.randint(1, 43, (1, ROWS, LENGTH), generator=generator)
    return ids * (torch.arange(LENGTH) < lengths[..., None]), lengths


def test_loss_curve_and_weights_equal_those_of_transformers_trainer(
    rows: tuple[Tensor, Tensor], make_config: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(width=32)
    state = fresh_state(config, 5)
    ids, lengths = rows

    norms: list[float] = []
    real_clip = toy.clip_gradients
    monkeypatch.setattr(toy, "clip_gradients", lambda e, limit: norms.append(real_clip(e, limit).item()))
    ensemble = Ensemble([state], stacked_shape(config, LENGTH))
    curve = train(
        ensemble,
        ids,
        lengths,
        SCHEDULE,
        seeds=[SEED],
        phase="clean",
        probe=lambda e: {},
        probes_per_epoch=ROWS // BATCH,
    )
    own = [point["training_loss"][0] for point in curve[1:]]

    model = GPT2LMHeadModel(config)
    model.load_state_dict(state, strict=False)
    losses: list[float] = []

    def plain_mean(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        """The Trainer of transformers 5 would divide by the number of labels before the shift."""
        loss = F.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        losses.append(loss.item())
        return loss

    order = torch.cat([epoch_order(ROWS, SEED, "clean", epoch) for epoch in range(EPOCHS)])
    InOrder(
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path), num_train_epochs=1, per_device_train_batch_size=BATCH,
            learning_rate=3e-3, weight_decay=0.1, max_grad_norm=CLIP, lr_scheduler_type="linear",
            warmup_steps=0, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True,
            remove_unused_columns=False,
        ),
        train_dataset=[{"ids": ids[0, i, : lengths[0, i]]} for i in order],
        data_collator=padded,
        compute_loss_func=plain_mean,
    ).train()  # fmt: skip

    assert len(own) == len(losses) == 40
    assert own == pytest.approx(losses, abs=1e-4)
    assert min(own[-5:]) < own[0] - 0.2  # something was learnt
    assert 0 < sum(norm > CLIP for norm in norms) < 40  # clipping was at work, and not always
    trained = model.state_dict()
    for name, value in ensemble.state(0).items():
        if name.endswith(
            "c_attn.bias"
        ):  # a key's bias cancels in the softmax: its gradient is rounding, which Adam blows up
            keep = [*range(32), *range(64, 96)]
            value, expected = value[keep], trained[name][keep]
        else:
            expected = trained[name]
        assert float((value - expected).abs().max()) < 1e-4, name
