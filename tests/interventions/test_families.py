"""Generation and edits serve every architecture with an adapter: GPT-2, Llama and Qwen2 with grouped queries."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM, PreTrainedModel

from anatomy.interventions.generate import greedy
from anatomy.interventions.hooks import (
    at_last,
    edited,
    next_token_logits,
    record,
    replace_with,
    zero,
)
from anatomy.metrics.loss import validation_loss
from anatomy.models.adapters import ADAPTERS
from anatomy.provenance.digest import ArtifactError
from anatomy.sites import Site, heads, modules

LAYERS, HEADS, WIDTH, MAX_LENGTH = 3, 4, 16, 20
PROMPTS = [[3, 5, 8], [7], [1, 1, 4, 9, 30, 12, 11, 2, 40], [42, 6], [3, 5, 9], [20, 21, 22, 23, 24], [7, 7, 7, 7]]
IDS = torch.tensor([[3, 5, 8], [1, 1, 4], [42, 6, 6], [20, 21, 22]])
OTHER = torch.tensor([[9, 2, 2], [17, 30, 0], [5, 5, 13], [1, 3, 2]])
EVERY_SITE = [
    Site(0, "embed"),
    *modules(LAYERS),
    *heads(LAYERS, HEADS),
    *(Site(layer, "resid") for layer in range(LAYERS)),
]
EDITED = [Site(0, "mlp"), Site(1, "head", 2), Site(1, "attn"), Site(2, "resid")]


@pytest.fixture(params=ADAPTERS)
def model(request: pytest.FixtureRequest, make_family: Callable) -> PreTrainedModel:
    return end_at(make_family(request.param).double(), None)


def end_at(model: PreTrainedModel, eos: int | list[int] | None) -> PreTrainedModel:
    model.config.eos_token_id = model.generation_config.eos_token_id = eos
    return model


def one_by_one(model: PreTrainedModel, max_length: int = MAX_LENGTH) -> list[list[int]]:
    """transformers' own generation, cut before the end of the text."""
    found = []
    eos = model.generation_config.eos_token_id
    ends = eos if isinstance(eos, list) else [eos]
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_length=max_length, do_sample=False, pad_token_id=0
        )
        written = out[0, len(prompt) :].tolist()
        found.append(written[: next((i for i, token in enumerate(written) if token in ends), len(written))])
    return found


def constant(site: Site) -> Tensor:
    generator = torch.Generator().manual_seed(EDITED.index(site))
    return torch.randn(WIDTH // HEADS if site.part == "head" else WIDTH, generator=generator, dtype=torch.float64)


def all_edits() -> dict[Site, Callable[[Tensor, Tensor], Tensor]]:
    return {site: replace_with(constant(site)) for site in EDITED[:-1]}


@pytest.mark.parametrize("rows", [2, 256])
def test_the_text_is_that_of_one_by_one_generation(rows: int, model: PreTrainedModel) -> None:
    found = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0, rows=rows)
    assert found == one_by_one(model)
    assert len({tuple(text[:4]) for text in found}) > 3  # not one text for all
    assert greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=42, rows=rows) == found


def test_the_text_under_edits_is_that_of_one_by_one_generation(model: PreTrainedModel) -> None:
    found = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0, edits=all_edits())
    with edited(model, all_edits()):
        assert found == one_by_one(model)
    plain = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0)
    for site, edit in all_edits().items():
        assert greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0, edits={site: edit}) != plain


def test_the_text_ends_at_any_of_the_ends(model: PreTrainedModel) -> None:
    free = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0)
    ends = list(dict.fromkeys([free[0][0], free[2][2]]))
    end_at(model, ends)
    found = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0)
    assert found == one_by_one(model)
    assert found[0] == [] and not {*ends} & {token for text in found for token in text}


def test_no_more_tokens_are_written_than_asked_for(model: PreTrainedModel) -> None:
    whole = greedy(model, PROMPTS, pad=0)
    assert [len(p) + len(text) for p, text in zip(PROMPTS, whole, strict=True)] == [24] * len(PROMPTS)
    assert greedy(model, PROMPTS, pad=0, new_tokens=3) == [text[:3] for text in whole]
    longest = [(len(p) + 3 > 10 and 10 - len(p)) or 3 for p in PROMPTS]
    cut = greedy(model, PROMPTS, pad=0, new_tokens=3, max_length=10)
    assert cut == [text[:most] for text, most in zip(whole, longest, strict=True)]


def once(site: Site, prompt: list[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """Replaces the site at the prompt's last position in the pass that reads the prompt, found by its length."""

    def edit(_: Tensor, output: Tensor) -> Tensor:
        output = output.clone()
        if output.shape[1] == len(prompt):
            output[:, -1] = constant(site)
        return output

    return edit


@pytest.mark.parametrize("site", EDITED, ids=str)
def test_last_edits_touch_the_prompt_s_last_position_alone(site: Site, model: PreTrainedModel) -> None:
    found = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0, last_edits={site: replace_with(constant(site))})
    plain = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0)
    everywhere = greedy(model, PROMPTS, max_length=MAX_LENGTH, pad=0, edits={site: replace_with(constant(site))})
    assert found != plain and found != everywhere
    for number, prompt in enumerate(PROMPTS):
        if len(prompt) == 1:  # a pass over one token is also what follows
            continue
        with edited(model, {site: once(site, prompt)}):
            assert found[number] == one_by_one(model)[number]


def test_last_edits_come_after_edits(model: PreTrainedModel) -> None:
    site, value = EDITED[0], constant(EDITED[0])
    both = greedy(model, PROMPTS, pad=0, edits={site: zero}, last_edits={site: lambda _, output: output + value})
    other = greedy(model, PROMPTS, pad=0, edits={site: zero}, last_edits={site: replace_with(value)})
    assert both == other != greedy(model, PROMPTS, pad=0, edits={site: zero})


def test_an_edit_at_the_last_position_is_given_that_position(model: PreTrainedModel) -> None:
    given: list[torch.Size] = []

    def look(x: Tensor, output: Tensor) -> Tensor:
        given.extend([x.shape, output.shape])
        return output

    full = next_token_logits(model, IDS)
    assert torch.equal(next_token_logits(model, IDS, {Site(1, "mlp"): at_last(look)}), full)
    assert given == [torch.Size([4, 1, WIDTH])] * 2


@pytest.mark.parametrize("site", EVERY_SITE, ids=str)
def test_an_edit_moves_the_logits(site: Site, model: PreTrainedModel) -> None:
    full = next_token_logits(model, IDS)
    other = record(model, OTHER, [site])[site]
    for edit in (zero, replace_with(other), at_last(zero)):
        moved = (next_token_logits(model, IDS, {site: edit}) - full).abs().amax(1)
        assert (moved > 1e-3).all()


def test_patching_nothing_changes_nothing(model: PreTrainedModel) -> None:
    own, full = record(model, IDS, EVERY_SITE), next_token_logits(model, IDS)
    assert torch.equal(next_token_logits(model, IDS, {s: replace_with(own[s]) for s in EVERY_SITE}), full)


def test_patching_everything_gives_the_other_run(model: PreTrainedModel) -> None:
    sites = [Site(0, "embed"), *modules(LAYERS)]
    other = record(model, OTHER, sites)
    patched = next_token_logits(model, IDS, {site: replace_with(other[site]) for site in sites})
    assert torch.equal(patched, next_token_logits(model, OTHER))


def test_heads_are_slices_of_the_output_projection_s_input(model: PreTrainedModel) -> None:
    for layer in range(LAYERS):
        block = (model.transformer.h if model.config.model_type == "gpt2" else model.model.layers)[layer]
        attention = block.attn if model.config.model_type == "gpt2" else block.self_attn
        projection = attention.c_proj if model.config.model_type == "gpt2" else attention.o_proj
        own = [Site(layer, "head", head) for head in range(HEADS)]
        seen = record(model, IDS, [*own, Site(layer, "attn")])
        z = torch.cat([seen[site] for site in own], dim=-1)
        assert z.shape == (*IDS.shape, WIDTH)
        torch.testing.assert_close(projection(z), seen[Site(layer, "attn")], rtol=0, atol=1e-12)
        for head, site in enumerate(own):
            kept = z.clone()
            kept[..., head * 4 : head * 4 + 4] = 0
            with edited(model, {site: zero}):
                without = record(model, IDS, [Site(layer, "attn")])[Site(layer, "attn")]
            torch.testing.assert_close(without, projection(kept), rtol=0, atol=1e-12)


@pytest.mark.parametrize("site", [Site(0, "head", HEADS), Site(LAYERS, "mlp")], ids=str)
def test_a_site_that_is_not_there_is_refused(site: Site, model: PreTrainedModel) -> None:
    with pytest.raises(IndexError):
        next_token_logits(model, IDS, {site: zero})


def test_the_loss_is_that_of_transformers(model: PreTrainedModel) -> None:
    rows = torch.randint(1, 43, (5, 9), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([9, 2, 5, 3, 8])
    own = [model(row[None, :n], labels=row[None, :n]).loss.item() for row, n in zip(rows, lengths, strict=True)]
    expected = sum(loss * (int(n) - 1) for loss, n in zip(own, lengths, strict=True)) / int((lengths - 1).sum())
    assert validation_loss(model, rows, lengths) == pytest.approx(expected, rel=1e-6)


def test_an_architecture_without_an_adapter_is_refused() -> None:
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "ffn_dim": 8, "num_attention_heads": 1}
    model = OPTForCausalLM(OPTConfig(**sizes, word_embed_proj_dim=8)).eval()
    expected = "a model of the architecture 'opt' has no adapter here; those that have one: gpt2, llama, qwen2"
    for work in (lambda: greedy(model, [[1]], pad=0), lambda: record(model, IDS, [Site(0, "mlp")])):
        with pytest.raises(ArtifactError) as caught:
            work()
        assert str(caught.value) == expected
