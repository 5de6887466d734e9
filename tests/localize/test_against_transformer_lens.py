"""The sweep gives what TransformerLens' own activation patching gives, where that is installed (the group `lens`)."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from anatomy.data.tokenizer import train_tokenizer
from anatomy.localize.head_sweep import swept_scores
from anatomy.models.adapters import ADAPTERS
from anatomy.sites import Site, heads, modules

pytest.importorskip("transformer_lens")

LENGTH, LAYERS, HEADS = 7, 3, 4
# What each part is called there; of heads, the fourth axis is theirs.
NAMES = {"head": "attn.hook_z", "attn": "hook_attn_out", "mlp": "hook_mlp_out", "resid": "hook_resid_post"}
SITES = [*heads(LAYERS, HEADS), *modules(LAYERS), *(Site(layer, "resid") for layer in range(LAYERS))]


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("family", ADAPTERS)
def test_the_sweep_equals_transformer_lens(family: str, tokens: int, make_family: Callable) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    tokenizer = train_tokenizer(["a word"])  # wanted and not used; one with a beginning would be read anew from a hub
    tokenizer.bos_token = None
    model: PreTrainedModel = make_family(family).double()
    bridge: Any = TransformerBridge.boot_transformers(
        {"gpt2": "gpt2", "llama": "meta-llama/Llama-2-7b-hf", "qwen2": "Qwen/Qwen2-7B"}[family],
        hf_model=copy.deepcopy(model),
        tokenizer=tokenizer,
        device="cpu",
        dtype=torch.float64,
    )
    bridge.enable_compatibility_mode(no_processing=True)
    bridge.eval()
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(1, 43, (5, LENGTH), generator=generator)
    answers = torch.randint(1, 43, (5, tokens), generator=generator)
    constants = {
        site: torch.randn(4 if site.part == "head" else 16, generator=generator, dtype=torch.float64) for site in SITES
    }
    ids = torch.cat([prompts, answers[:, :-1]], 1)

    def patched(site: Site | None) -> torch.Tensor:
        def patch(x: torch.Tensor, hook: object) -> torch.Tensor:
            x = x.clone()
            x[(slice(None), LENGTH - 1, *([site.head] if site.head is not None else []))] = constants[site]
            return x

        hooks = [(f"blocks.{site.layer}.{NAMES[site.part]}", patch)] if site else []
        with torch.no_grad():
            logits = bridge.run_with_hooks(ids, fwd_hooks=hooks)[:, LENGTH - 1 :]
        return logits.log_softmax(-1).gather(-1, answers[..., None])[..., 0].sum(1)

    found = swept_scores(model, prompts.tolist(), answers.tolist(), constants)
    # Of a Llama, transformers computes norms and rotary angles in float32, whatever its type; the bridge has its own.
    near = {"rtol": 0, "atol": 1e-9 if family == "gpt2" else 1e-5}
    torch.testing.assert_close(found.base, patched(None), **near)
    theirs = torch.stack([patched(site) for site in SITES])
    torch.testing.assert_close(found.patched, theirs, **near)
    assert (found.patched - found.base).abs().mean(1).min() > 1e-3  # far more than they may differ
    assert torch.equal(found.patched.mean(1).argsort(), theirs.mean(1).argsort())
