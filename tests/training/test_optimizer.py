"""AdamW, clipping and schedule of the stack equal torch's and transformers' on a whole Hugging Face model."""

from collections.abc import Callable

import pytest
import torch
from transformers import GPT2LMHeadModel, Trainer, get_linear_schedule_with_warmup

from anatomy.training.ensemble import is_decayed
from anatomy.training.optimizer import adamw_step, clip_gradients, linear_rate
from anatomy.training.phases import FROZEN

from .conftest import loss_of, relative_error

RATE, DECAY, CLIP, STEPS = 3e-2, 0.1, 0.5, 6


def reference_optimizer(model: GPT2LMHeadModel) -> torch.optim.AdamW:
    """torch's AdamW with the parameter groups of transformers.Trainer."""
    decayed = Trainer.get_decay_parameter_names(None, model)
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in trained if n in decayed], "weight_decay": DECAY},
        {"params": [p for n, p in trained if n not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=1e-8)


def test_weight_decay_touches_what_the_trainer_decays(make_model: Callable) -> None:
    model = make_model()
    decayed = set(Trainer.get_decay_parameter_names(None, model)) - {"lm_head.weight"}
    names = [n for n, _ in model.named_parameters() if n != "lm_head.weight"]
    assert {n for n in names if is_decayed(n.removeprefix("transformer."))} == decayed
    assert {"transformer.wte.weight", "transformer.wpe.weight"} <= decayed


@pytest.mark.parametrize("part", ["nothing", "embeddings", "attention"])
def test_steps_equal_torch_s_adamw_on_the_whole_model(
    part: str, make_ensemble: Callable, make_batch: Callable, make_config: Callable, hugging_face: Callable
) -> None:
    """Position rows beyond the window get no gradient: they decay as under AdamW, or stay where frozen."""
    frozen = FROZEN[part]
    ensemble = make_ensemble([0, 1], window=9, trainable=lambda name: not frozen(name))
    before = [ensemble.state(member) for member in range(2)]
    models = [hugging_face(ensemble, member, make_config()) for member in range(2)]
    for model in models:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not frozen(name.removeprefix("transformer.")))
    optimizers = [reference_optimizer(model) for model in models]
    clipped = []
    for step in range(STEPS):
        rate = linear_rate(RATE, step, STEPS)
        # Rows of five tokens: positions 5 to 8 are in the window and never met.
        ids, valid = make_batch(2, 6, ragged=True, seed=step)
        ensemble.loss_and_gradients(ids, valid)
        norms = clip_gradients(ensemble, CLIP)
        adamw_step(ensemble, step + 1, rate=rate, weight_decay=DECAY)
        for member, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            optimizer.zero_grad()
            loss_of(model, ids[member], valid[member]).backward()
            norm = torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], CLIP)
            assert norms[member].item() == pytest.approx(norm.item(), rel=1e-7)
            clipped.append(norm.item() > CLIP)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
    assert any(clipped)
    for member, model in enumerate(models):
        state, expected = ensemble.state(member), model.state_dict()
        for name, value in state.items():
            assert relative_error(value, expected[name]) < 1e-7, name
            if frozen(name.removeprefix("transformer.")):
                assert torch.equal(value, before[member][name]), name
            else:
                assert not torch.equal(value, before[member][name]), name
        beyond = state["transformer.wpe.weight"][9:]
        shrunk = 1.0
        for step in range(STEPS):
            shrunk *= 1 - linear_rate(RATE, step, STEPS) * DECAY
        expected_tail = before[member]["transformer.wpe.weight"][9:] * (1.0 if part == "embeddings" else shrunk)
        assert relative_error(beyond, expected_tail) < 1e-12


def test_clipping_leaves_small_gradients_alone_and_each_member_to_itself(
    make_ensemble: Callable, make_batch: Callable
) -> None:
    ensemble = make_ensemble([0, 1])
    ensemble.loss_and_gradients(*make_batch(2, 9))
    before = {name: gradient.clone() for name, gradient in ensemble.gradients.items()}
    ensemble.groups[0].gradient[1] *= 1e-3
    ensemble.groups[1].gradient[1] *= 1e-3
    norms = clip_gradients(ensemble, 0.25)
    assert norms[0] > 0.25 > norms[1]
    for name, gradient in ensemble.gradients.items():
        assert torch.allclose(gradient[0], before[name][0] * 0.25 / (norms[0] + 1e-6), rtol=1e-12)
        assert torch.equal(gradient[1], before[name][1] * 1e-3)


def test_the_rate_decays_as_transformers_lets_it_decay() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    schedule = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=0, num_training_steps=7)
    for step in range(7):
        assert linear_rate(0.3, step, 7) == pytest.approx(schedule.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        schedule.step()
