"""What the algebra says both ways cost is what is counted while they run."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from anatomy.localize.head_sweep import swept_scores
from anatomy.localize.sweep_cost import cost_of
from anatomy.models.adapters import adapter_of
from anatomy.sites import heads

LENGTH, PROMPTS = 9, 3


def attention_flops(query: tuple, key: tuple, value: tuple, *args: Any, **options: Any) -> int:
    """The counter has no formula of its own for the attention kernel of CPUs; the heads are the queries'."""
    batch, head, queries, width = query
    return 4 * batch * head * queries * key[2] * width


def counted(work: Callable[[], object]) -> int:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={kernel: attention_flops}) as counter, torch.no_grad():
        work()
    return counter.get_total_flops()


@pytest.fixture(params=["gpt2", "llama grouped"])
def model(request: pytest.FixtureRequest, make_model: Callable) -> PreTrainedModel:
    if request.param == "gpt2":
        return make_model(layers=3, heads=4, width=16)
    config = LlamaConfig(
        vocab_size=43,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("tokens", [1, 5])
def test_a_pass_costs_what_is_counted(tokens: int, model: PreTrainedModel) -> None:
    ids = torch.ones(PROMPTS, LENGTH + tokens - 1, dtype=torch.long)
    one = counted(lambda: model(ids, logits_to_keep=tokens, use_cache=False))
    cost = cost_of(model)
    assert one == PROMPTS * cost.forward(LENGTH, tokens)
    assert cost.loop(LENGTH, tokens) == 13 * cost.forward(LENGTH, tokens)


@pytest.mark.parametrize("rows", [1, 30, 1000])
@pytest.mark.parametrize("tokens", [1, 5])
def test_the_sweep_costs_what_is_counted(tokens: int, rows: int, model: PreTrainedModel) -> None:
    adapter = adapter_of(model)
    constants = {site: torch.zeros(adapter.head_width) for site in heads(adapter.layers, adapter.heads)}
    prompts, answers = [[1] * LENGTH] * PROMPTS, [[2] * tokens] * PROMPTS
    found = counted(lambda: swept_scores(model, prompts, answers, constants, rows=rows))
    assert found == PROMPTS * cost_of(model).sweep(LENGTH, tokens)


def test_the_ratio_grows_with_the_prompt_and_falls_with_the_answer(make_config: Callable) -> None:
    with torch.device("meta"):
        cost = cost_of(GPT2LMHeadModel(make_config(layers=24, heads=16, width=1024, positions=1024, vocabulary=50257)))
    ratios = {
        (length, tokens): cost.loop(length, tokens) / cost.sweep(length, tokens)
        for length in (32, 64, 128)
        for tokens in (1, 13)
    }
    assert ratios[32, 1] < ratios[64, 1] < ratios[128, 1]
    assert ratios[32, 13] < ratios[64, 13] < ratios[128, 13]
    assert all(ratios[length, 13] < ratios[length, 1] / 4 for length in (32, 64, 128))
