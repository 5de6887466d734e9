"""Speeds of the language arm, for `make bench`: generation and the sweep of Table VIII against the plain ways."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import GPT2LMHeadModel

from anatomy.interventions.generate import greedy
from anatomy.interventions.hooks import replace_with
from anatomy.localize.module_sweep import share_saved, swept_continuations
from anatomy.models.toy import fresh_state, model_from_state, toy_config
from anatomy.sites import heads, modules
from anatomy.spec.study import Architecture

Texts = Callable[[], list[list[int]]]

# A model of the embedded study's kind; random weights write nonsense at the same speed.
SIZE = Architecture(layers=6, heads=6, width=192, positions=64, dropout=0.0)
VOCABULARY, MAX_LENGTH = 2000, 35  # as released: 35 tokens with the prompt
PROMPTS, SWEPT = 200, 64


def language_rows(repetitions: int) -> Iterator[tuple[str, ...]]:
    """The rows of the table, one after the other."""
    config = toy_config(SIZE, VOCABULARY)
    model = model_from_state(fresh_state(config, 0), config)
    # No text ends early: both ways write all tokens.
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(4, 14, (PROMPTS,), generator=generator).tolist()  # as released: fewer than 14
    prompts = [torch.randint(VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    yield success_row(model, prompts, repetitions)
    yield sweep_row(model, prompts[:SWEPT], repetitions)


def success_row(model: GPT2LMHeadModel, prompts: list[list[int]], repetitions: int) -> tuple[str, ...]:
    """What ASR is measured on: one continuation per prompt, all at once against transformers' generate in turn.

    The released code generates each of them eleven times over, all alike; here the slow way does it once.
    """

    def one_by_one() -> list[list[int]]:
        found = []
        for prompt in prompts:
            ids = torch.tensor([prompt])
            out: Any = model.generate(  # type: ignore[misc]  # a model is not what its own annotation asks for
                ids, attention_mask=torch.ones_like(ids), max_length=MAX_LENGTH, do_sample=False, pad_token_id=0
            )
            found.append(out[0, len(prompt) :].tolist())
        return found

    slow, fast, same = _compare(one_by_one, lambda: greedy(model, prompts, max_length=MAX_LENGTH, pad=0), repetitions)
    return (
        f"ASR generation, {len(prompts)} prompts to {MAX_LENGTH} tokens",
        f"{slow:.2f} s (generate, prompt after prompt)",
        f"{fast:.2f} s",
        f"{slow / fast:.1f}x",
        f"{same} texts the same; without the 11 repeats of the released code",
    )


def sweep_row(model: GPT2LMHeadModel, prompts: list[list[int]], repetitions: int) -> tuple[str, ...]:
    """Table VIII with every head: the sweep against one batched generation per site."""
    layers, per_layer, width = model.config.n_layer, model.config.n_head, model.config.n_embd
    sites = [*modules(layers), *heads(layers, per_layer)]
    generator = torch.Generator().manual_seed(1)
    constants = {
        site: torch.randn(width // per_layer if site.part == "head" else width, generator=generator) for site in sites
    }

    def plain() -> list[list[int]]:
        return [
            text
            for site, value in constants.items()
            for text in greedy(model, prompts, max_length=MAX_LENGTH, pad=0, edits={site: replace_with(value)})
        ]

    def swept() -> list[list[int]]:
        return [
            text
            for texts in swept_continuations(model, prompts, constants, max_length=MAX_LENGTH, pad=0).values()
            for text in texts
        ]

    slow, fast, same = _compare(plain, swept, repetitions)
    length = round(statistics.mean(map(len, prompts)))
    saved = share_saved(sites, layers, prompt=length, written=MAX_LENGTH - length)
    return (
        f"ablation sweep, {len(sites)} sites, {len(prompts)} prompts",
        f"{slow:.2f} s (a batched generation per site)",
        f"{fast:.2f} s",
        f"{slow / fast:.1f}x",
        f"{same} texts the same; {saved:.0%} of the block evaluations left out",
    )


def _compare(slow: Texts, fast: Texts, repetitions: int) -> tuple[float, float, str]:
    """Median seconds of both ways, taken in turns so that a noisy neighbour hits both; how many texts are the same."""
    seconds: list[list[float]] = [[], []]
    found: list[list[list[int]]] = [[], []]
    for _ in range(repetitions):
        for way, work in enumerate((slow, fast)):
            begin = time.perf_counter()
            found[way] = work()
            seconds[way].append(time.perf_counter() - begin)
    same = sum(a == b for a, b in zip(*found, strict=True))
    return statistics.median(seconds[0]), statistics.median(seconds[1]), f"{same} of {len(found[0])}"
