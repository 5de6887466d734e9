"""Speed of the sweep over heads, for `make bench`: against one forward pass per head, and the FLOPs it should save.

Beside the plain loop stand two libraries' ways: function_vectors' and, where it is installed (the group `lens`),
TransformerLens' activation patching.
"""

import contextlib
import copy
import importlib.util
import io
import itertools
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

from anatomy.data.tokenizer import train_tokenizer
from anatomy.interventions.hooks import edited
from anatomy.localize.head_sweep import swept_scores
from anatomy.localize.sweep_cost import cost_of
from anatomy.models.adapters import adapter_of
from anatomy.models.toy import fresh_state, model_from_state, toy_config
from anatomy.sites import Site, heads
from anatomy.spec.study import Architecture

# Layers and heads of GPT-2 small at half its width; 64 tokens are a prompt of an instruction.
SIZE = Architecture(layers=12, heads=12, width=384, positions=128, dropout=0.0)
VOCABULARY, LENGTHS, PROMPTS = 2000, (32, 64), 4
REPETITIONS = 3  # of several seconds each


def attribution_rows(repetitions: int) -> Iterator[tuple[str, ...]]:
    """The rows of the table, one after the other."""
    config = toy_config(SIZE, VOCABULARY)
    model = model_from_state(fresh_state(config, 0), config)
    yield rate_row(SIZE.width)
    for length, tokens in itertools.product(LENGTHS, (1, 13)):
        yield from sweep_rows(model, length, tokens, min(repetitions, REPETITIONS))


def sweep_rows(model: GPT2LMHeadModel, length: int, tokens: int, repetitions: int) -> Iterator[tuple[str, ...]]:
    """All heads of a model, an answer of `tokens` scored tokens behind every prompt, unpadded.

    The plain way computes logits at the scored positions only, too. Its time is that of one head per layer, times the
    heads of a layer: all its passes cost the same.
    """
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(VOCABULARY, (PROMPTS, length), generator=generator)
    answers = torch.randint(VOCABULARY, (PROMPTS, tokens), generator=generator)
    sites = heads(SIZE.layers, SIZE.heads)
    constants = {site: torch.randn(SIZE.width // SIZE.heads, generator=generator) for site in sites}
    sample = [Site(layer, "head", layer % SIZE.heads) for layer in range(SIZE.layers)]

    def loop(size: int, one: OneHead) -> Tensor:
        return torch.stack(
            [
                torch.cat(
                    [
                        one(model, some, own, site, constants[site])
                        for some, own in zip(prompts.split(size), answers.split(size), strict=True)
                    ]
                )
                for site in sample
            ]
        )

    def sweep() -> Tensor:
        scores = swept_scores(model, prompts.tolist(), answers.tolist(), constants)
        return scores.patched[[scores.sites.index(site) for site in sample]]

    ways: dict[str, Callable[[], Tensor]] = {
        f"a pass per head and {PROMPTS} prompts": lambda: loop(PROMPTS, one_head),
        "a pass per head and prompt": lambda: loop(1, one_head),
        "function_vectors' way: a pass per head and prompt": lambda: loop(1, one_head_of_function_vectors),
    }
    if importlib.util.find_spec("transformer_lens"):
        ways["TransformerLens' activation patching"] = lens(model, prompts, answers, constants, sample)
    seconds, found = _in_turns([*ways.values(), sweep], repetitions)
    cost, fastest = cost_of(model), seconds[-1]
    slow, fast = cost.loop(length, tokens) - cost.forward(length, tokens), cost.sweep(length, tokens)
    for name, own, scores in zip(ways, seconds, found, strict=False):
        took = own * SIZE.heads
        ratio, same = took / fastest, f"same to {(scores - found[-1]).abs().max().item():.0e}"
        if name.startswith("a pass"):
            flops = f"{PROMPTS * slow / 1e9:.0f} and {PROMPTS * fast / 1e9:.1f} GFLOP, {slow / fast:.1f}x"
            same = f"{flops}: {ratio * fast / slow:.0%} of it reached; {same}"
        yield (
            f"sweep of {len(sites)} heads, width {SIZE.width}, {PROMPTS} prompts of {length} tokens, {tokens} scored",
            f"{took:.2f} s ({name}, 1 head of {SIZE.heads} timed)",
            f"{fastest:.2f} s ({PROMPTS * fast / fastest / 1e9:.0f} GFLOP/s)",
            f"{ratio:.1f}x",
            same,
        )


# (model, prompts, answers, site, value) -> the answers' log-probabilities
OneHead = Callable[[GPT2LMHeadModel, Tensor, Tensor, Site, Tensor], Tensor]


def one_head(model: GPT2LMHeadModel, prompts: Tensor, answers: Tensor, site: Site, value: Tensor) -> Tensor:
    """The answers' log-probabilities with one head patched at the prompts' last position, in one pass."""

    def patch(_: Tensor, z: Tensor) -> Tensor:
        z = z.clone()
        z[:, prompts.shape[1] - 1] = value
        return z

    tokens = answers.shape[1]
    with torch.no_grad(), edited(model, {site: patch}):
        logits = model(torch.cat([prompts, answers[:, :-1]], 1), logits_to_keep=tokens, use_cache=False).logits
    return scored(logits, answers)


def scored(logits: Tensor, answers: Tensor) -> Tensor:
    """The answers' log-probabilities, from the logits that they are read off."""
    return logits.log_softmax(-1).gather(-1, answers[..., None])[..., 0].sum(1)


def one_head_of_function_vectors(
    model: GPT2LMHeadModel, prompts: Tensor, answers: Tensor, site: Site, value: Tensor
) -> Tensor:
    """As function_vectors patches (compute_indirect_effect.py, intervention_utils.py).

    The output projection's result is computed once more, from its changed input, and logits at every position.
    """
    own = slice(site.head * len(value), (site.head + 1) * len(value))  # type: ignore[operator]

    def project_again(module: nn.Module, args: tuple, _: Tensor) -> Tensor:
        z = args[0].clone()
        z[:, prompts.shape[1] - 1, own] = value
        return module.forward(z)

    handle = adapter_of(model).module(site.layer, "head").register_forward_hook(project_again)
    try:
        with torch.no_grad():
            logits = model(torch.cat([prompts, answers[:, :-1]], 1), use_cache=False).logits
    finally:
        handle.remove()
    return scored(logits[:, prompts.shape[1] - 1 :], answers)


def lens(
    model: GPT2LMHeadModel, prompts: Tensor, answers: Tensor, constants: dict[Site, Tensor], sample: list[Site]
) -> Callable[[], Tensor]:
    """TransformerLens' generic_activation_patch on a bridge over a copy of the model, all prompts in one pass."""
    import pandas as pd
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.patching import generic_activation_patch, layer_pos_head_vector_patch_setter

    # The bridge wants a name and a tokenizer, and uses neither; one with a beginning would be read anew from a hub.
    tokenizer = train_tokenizer(["a word"])
    tokenizer.bos_token = None
    bridge = TransformerBridge.boot_transformers(
        "gpt2", hf_model=copy.deepcopy(model), tokenizer=tokenizer, device="cpu", dtype=model.dtype
    )
    bridge.enable_compatibility_mode(no_processing=True)
    bridge.eval()
    ids = torch.cat([prompts, answers[:, :-1]], 1)
    heads_of, width = model.config.n_head, model.config.n_embd // model.config.n_head
    cache = {
        f"blocks.{layer}.attn.hook_z": torch.stack(
            [constants[Site(layer, "head", head)] for head in range(heads_of)]
        ).expand(*ids.shape, heads_of, width)
        for layer in range(model.config.n_layer)
    }
    index = pd.DataFrame([(site.layer, prompts.shape[1] - 1, site.head) for site in sample])
    index.columns = pd.Index(["layer", "pos", "head_index"])

    def patch() -> Tensor:
        with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            found = generic_activation_patch(
                bridge,
                ids,
                cache,
                lambda logits: scored(logits[:, prompts.shape[1] - 1 :], answers),
                layer_pos_head_vector_patch_setter,
                "z",
                index_df=index,
                reduce="none",
            )
        return found.values

    return patch


def rate_row(width: int) -> tuple[str, ...]:
    """The machine's rate at the MLP's product, with as many rows as the plain way has positions in a pass."""
    rows = PROMPTS * LENGTHS[-1]
    a, b, out = torch.randn(rows, width), torch.randn(width, 4 * width), torch.empty(rows, 4 * width)
    took = []
    for _ in range(50):
        begin = time.perf_counter()
        torch.mm(a, b, out=out)
        took.append(time.perf_counter() - begin)
    rate = 2 * rows * width * 4 * width / min(took) / 1e9
    shape = f"matrix product {rows} x {width} x {4 * width}"
    return shape, f"{min(took) * 1e3:.2f} ms (torch)", "", "", f"{rate:.0f} GFLOP/s, the bound for the head sweep"


def _in_turns(ways: list[Callable[[], Tensor]], repetitions: int) -> tuple[list[float], list[Tensor]]:
    """Median seconds and the result of each way; in turns, so that a noisy neighbour hits all."""
    seconds: list[list[float]] = [[] for _ in ways]
    found: list[Tensor] = [torch.empty(0)] * len(ways)
    for _ in range(repetitions):
        for i, way in enumerate(ways):
            begin = time.perf_counter()
            found[i] = way()
            seconds[i].append(time.perf_counter() - begin)
    return [statistics.median(own) for own in seconds], found
