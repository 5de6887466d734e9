"""The sweep equals a forward pass per site and prompt, in every family; what it patches it patches."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from tests.pretended import pretended_gpu
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from anatomy.localize.head_sweep import Scores, swept_scores
from anatomy.models.adapters import adapter_of
from anatomy.provenance.digest import ArtifactError
from anatomy.sites import Site, heads, modules

LAYERS, HEADS, WIDTH, VOCABULARY, POSITIONS = 3, 4, 16, 43, 40
LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
}
GPT2 = {"vocab_size": VOCABULARY, "n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "n_positions": POSITIONS}
FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
    "gpt2 scaled by layer": lambda: GPT2LMHeadModel(GPT2Config(**GPT2, scale_attn_by_inverse_layer_idx=True)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, num_key_value_heads=HEADS)),
    "llama grouped": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, num_key_value_heads=2, attention_bias=True)),
    "llama one key": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, num_key_value_heads=1, head_dim=6)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**LLAMA, num_key_value_heads=2)),
}
SITES = [*heads(LAYERS, HEADS), *modules(LAYERS), *(Site(layer, "resid") for layer in range(LAYERS))]
PROMPTS = [[3, 5, 8], [7], [1, 1, 4, 9, 30, 12, 11, 2, 40], [42, 6, 2], [3, 5, 8], [20, 21, 22, 23, 24, 25, 26, 27, 28]]
LONG = [9, 17, 2, 2, 41, 30, 5, 8, 13, 21, 34, 0, 1]


def build(family: str) -> PreTrainedModel:
    """Weights so large that every part matters, as the fixture make_state does for GPT-2."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = FAMILIES[family]()
        for value in model.parameters():
            value.data += 0.2 * torch.randn(value.shape)
    return model.requires_grad_(False).eval().double()


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return build(request.param)


def constants_of(model: PreTrainedModel) -> dict[Site, Tensor]:
    generator = torch.Generator().manual_seed(3)
    width = adapter_of(model).head_width
    return {
        site: torch.randn(width if site.part == "head" else WIDTH, generator=generator, dtype=torch.float64)
        for site in SITES
    }


def answers_of(tokens: int) -> list[list[int]]:
    return [[(first + i) % VOCABULARY for first in LONG[:tokens]] for i in range(len(PROMPTS))]


def module_of(model: PreTrainedModel, site: Site) -> nn.Module:
    """Found by its name in the model, without the adapter that is tested."""
    if model.config.model_type == "gpt2":
        blocks, names = model.transformer.h, {"head": "attn.c_proj", "attn": "attn", "mlp": "mlp", "resid": ""}
    else:
        blocks, names = model.model.layers, {"head": "self_attn.o_proj", "attn": "self_attn", "mlp": "mlp", "resid": ""}
    return blocks[site.layer].get_submodule(names[site.part])


def naive(model: PreTrainedModel, prompt: list[int], answer: list[int], site: Site | None, value: Tensor) -> Tensor:
    """One forward pass over prompt and answer, with a hook that replaces the site at the prompt's last token."""
    last = len(prompt) - 1

    def before(_: nn.Module, args: tuple) -> tuple:
        z = args[0].clone()
        z[:, last, site.head * len(value) : (site.head + 1) * len(value)] = value  # type: ignore[union-attr,operator]
        return (z,)

    def after(_: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
        out = (output[0] if isinstance(output, tuple) else output).clone()
        out[:, last] = value
        return (out, *output[1:]) if isinstance(output, tuple) else out

    handles = []
    if site is not None:
        target = module_of(model, site)
        handles = [
            target.register_forward_pre_hook(before) if site.part == "head" else target.register_forward_hook(after)
        ]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer[:-1]])).logits[0, last:]  # the answer's last token is not read
    for handle in handles:
        handle.remove()
    return logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].sum()


def loop(
    model: PreTrainedModel, prompts: list[list[int]], answers: list[list[int]], constants: dict[Site, Tensor]
) -> tuple[Tensor, Tensor]:
    """Scores without a patch [prompt], and with each [site, prompt], one pass after the other."""
    pairs = list(zip(prompts, answers, strict=True))
    base = [naive(model, *pair, None, torch.zeros(0)) for pair in pairs]
    patched = [[naive(model, *pair, site, value) for pair in pairs] for site, value in constants.items()]
    return torch.tensor(base), torch.tensor(patched)


def assert_equal(found: Scores, expected: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(found.base, expected[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(found.patched, expected[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("tokens", [1, 2, 13])
def test_the_sweep_equals_the_loop(tokens: int, model: PreTrainedModel) -> None:
    constants, answers = constants_of(model), answers_of(tokens)
    found = swept_scores(model, PROMPTS, answers, constants)
    assert_equal(found, loop(model, PROMPTS, answers, constants))
    assert found.sites == tuple(constants)
    assert found.tokens.tolist() == [tokens] * len(PROMPTS)
    # A patch that did nothing would pass as a site without effect.
    assert (found.patched - found.base).abs().min() > 1e-6
    assert len(set(found.patched.flatten().tolist())) == found.patched.numel()


@pytest.mark.parametrize("tokens", [1, 2, 13])
def test_a_block_is_its_attention_and_its_mlp_patched_together(tokens: int, model: PreTrainedModel) -> None:
    """One pass per layer with both outputs replaced; how they share the sum is nothing the layers above could see."""
    answers, constants = answers_of(tokens), constants_of(model)
    blocks = [Site(layer, "block") for layer in range(LAYERS)]
    sums = {site: constants[Site(site.layer, "attn")] + constants[Site(site.layer, "mlp")] for site in blocks}
    found = swept_scores(model, PROMPTS, answers, sums)
    for i, site in enumerate(blocks):
        parts = {part: constants[Site(site.layer, part)] for part in ("attn", "mlp")}
        for j, (prompt, answer) in enumerate(zip(PROMPTS, answers, strict=True)):
            last = len(prompt) - 1

            def after(value: Tensor, last: int, _: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
                out = (output[0] if isinstance(output, tuple) else output).clone()
                out[:, last] = value
                return (out, *output[1:]) if isinstance(output, tuple) else out

            handles = [
                module_of(model, Site(site.layer, part)).register_forward_hook(partial(after, value, last))
                for part, value in parts.items()
            ]
            expected = naive(model, prompt, answer, None, torch.zeros(0))
            for handle in handles:
                handle.remove()
            torch.testing.assert_close(found.patched[i, j], expected, rtol=0, atol=1e-10)
    assert (found.patched - found.base).abs().min() > 1e-6


@pytest.mark.parametrize("family", ["gpt2", "llama grouped"])
def test_answers_of_many_lengths_keep_their_order(family: str) -> None:
    model = build(family)
    constants = dict(reversed(constants_of(model).items()))
    answers = [LONG[:tokens] for tokens in (2, 13, 1, 2, 3, 13)]
    found = swept_scores(model, PROMPTS, answers, constants)
    assert_equal(found, loop(model, PROMPTS, answers, constants))
    assert found.tokens.tolist() == [2, 13, 1, 2, 3, 13]


@pytest.mark.parametrize("rows", [1, 5, 26, 100, 700])
@pytest.mark.parametrize("family", ["gpt2", "llama grouped"])
def test_the_batch_size_changes_nothing(family: str, rows: int) -> None:
    model = build(family)
    constants, answers = constants_of(model), answers_of(2)
    sizes: list[int] = []
    norm = model.transformer.ln_f if family == "gpt2" else model.model.norm
    handle = norm.register_forward_hook(lambda _, args, output: sizes.append(args[0][..., 0].numel()))
    found = swept_scores(model, PROMPTS, answers, constants, rows=rows)
    handle.remove()
    assert_equal(found, loop(model, PROMPTS, answers, constants))
    assert max(sizes) * 2 <= max(rows, 2)  # two positions, scored one after the other


@pytest.mark.parametrize("site", SITES, ids=str)
def test_a_single_site_equals_the_loop(site: Site) -> None:
    model = build("llama grouped")
    one = {site: constants_of(model)[site]}
    assert_equal(swept_scores(model, PROMPTS, answers_of(2), one), loop(model, PROMPTS, answers_of(2), one))


def test_eager_attention_of_gpt2_is_the_same() -> None:
    model = build("gpt2")
    constants = constants_of(model)
    model.set_attn_implementation("eager")
    assert_equal(swept_scores(model, PROMPTS, answers_of(2), constants), loop(model, PROMPTS, answers_of(2), constants))


def own_values(model: PreTrainedModel, prompt: list[int]) -> dict[Site, Tensor]:
    """What every site is at the prompt's last position."""
    seen: dict[Site, Tensor] = {}

    def before(site: Site, width: int, _: nn.Module, args: tuple) -> None:
        seen[site] = args[0][0, -1].unflatten(0, (-1, width))[site.head]

    def after(site: Site, _: nn.Module, args: tuple, output: Tensor | tuple) -> None:
        seen[site] = (output[0] if isinstance(output, tuple) else output)[0, -1]

    handles = []
    for site in SITES:
        target = module_of(model, site)
        if site.part == "head":
            handles.append(target.register_forward_pre_hook(partial(before, site, adapter_of(model).head_width)))
        else:
            handles.append(target.register_forward_hook(partial(after, site)))
    model(torch.tensor([prompt]))
    for handle in handles:
        handle.remove()
    return seen


def test_a_prompt_s_own_values_change_nothing_and_others_do(model: PreTrainedModel) -> None:
    own = own_values(model, PROMPTS[2])
    found = swept_scores(model, [PROMPTS[2]], [LONG], own)
    assert (found.patched - found.base).abs().max() < 1e-12
    assert found.effects().abs().max() < 1e-12
    # Not the same to all coordinates, nor in proportion: norms do not see that.
    other = {site: value + torch.linspace(0, 1e-3, len(value)).double() for site, value in own.items()}
    moved = swept_scores(model, [PROMPTS[2]], [LONG], other)
    assert (moved.patched - moved.base).abs().min() > 1e-8


def test_effects_are_the_differences_of_length_normalised_probabilities(model: PreTrainedModel) -> None:
    constants, answers = constants_of(model), [LONG[:tokens] for tokens in (2, 13, 1, 2, 3, 13)]
    found = swept_scores(model, PROMPTS, answers, constants)
    m = torch.tensor([2, 13, 1, 2, 3, 13]).double()
    expected = found.patched.exp() ** (1 / m) - found.base.exp() ** (1 / m)
    torch.testing.assert_close(found.effects(), expected, rtol=0, atol=1e-14)


def test_in_float32_the_order_of_the_sites_is_the_same(model: PreTrainedModel) -> None:
    constants, answers = constants_of(model), answers_of(2)
    exact = loop(model, PROMPTS, answers, constants)[1].mean(1)
    gaps = exact.sort().values.diff()
    assert gaps.min() > 1e-4  # else an order would be rounding
    found = swept_scores(model.float(), PROMPTS, answers, constants)
    assert found.patched.dtype == torch.float32
    assert torch.equal(found.patched.mean(1).argsort(), exact.argsort())


def test_scores_of_a_bfloat16_model_are_in_float32(model: PreTrainedModel) -> None:
    constants, answers = constants_of(model), answers_of(2)
    model = model.bfloat16()
    found = swept_scores(model, PROMPTS, answers, constants)
    assert found.base.dtype == found.patched.dtype == found.effects().dtype == torch.float32
    # Not float32 numbers that were bfloat16 before.
    assert (found.patched != found.patched.bfloat16()).float().mean() > 0.9
    exact = loop(model.double(), PROMPTS, answers, constants)[1]  # with the same, rounded weights
    error = (found.patched - exact).abs()
    assert error.mean() < 0.02 * exact.std()
    assert error.mean() > 0  # the model did run in bfloat16


def test_the_model_is_left_as_it_was(model: PreTrainedModel) -> None:
    before = model(torch.tensor([PROMPTS[2]])).logits
    constants = constants_of(model)
    kept = {site: value.clone() for site, value in constants.items()}
    swept_scores(model, PROMPTS, answers_of(2), constants)
    assert torch.equal(model(torch.tensor([PROMPTS[2]])).logits, before)
    assert all(torch.equal(constants[site], value) for site, value in kept.items())


def test_an_architecture_without_an_adapter_is_refused() -> None:
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        num_hidden_layers=1,
        ffn_dim=8,
        num_attention_heads=1,
        word_embed_proj_dim=8,
    )
    with pytest.raises(ArtifactError) as raised:
        swept_scores(OPTForCausalLM(config).eval(), [[1]], [[2]], {})
    assert str(raised.value) == (
        "a model of the architecture 'opt' has no adapter here; those that have one: gpt2, llama, qwen2"
    )


def test_a_sliding_window_is_refused() -> None:
    config = Qwen2Config(**LLAMA, use_sliding_window=True, sliding_window=4, max_window_layers=1)
    with pytest.raises(ArtifactError, match=r"^the model attends to a sliding window; expected attention to all"):
        swept_scores(Qwen2ForCausalLM(config).eval(), [[1]], [[2]], {})


HEAD, MODULE = torch.zeros(WIDTH // HEADS).double(), torch.zeros(WIDTH).double()


@pytest.mark.parametrize(
    ("prompts", "answers", "constants", "message"),
    [
        ([[1]], [], {}, "1 prompts and 0 answers; expected one answer per prompt"),
        ([[]], [[1]], {}, "a prompt of 0 tokens and an answer of 1: expected at least 1 each, and 40 in all without"),
        ([[1]], [[]], {}, "a prompt of 1 tokens and an answer of 0: expected at least 1 each"),
        ([[1] * 39], [[1] * 3], {}, "a prompt of 39 tokens and an answer of 3: expected at least 1 each, and 40 in"),
        ([[1]], [[1]], {Site(0, "embed"): MODULE}, "layer 1 embed: expected a head, attn, mlp, block or resid of"),
        ([[1]], [[1]], {Site(3, "mlp"): MODULE}, "layer 4 mlp: expected a head, attn, mlp, block or resid of layers 1"),
        ([[1]], [[1]], {Site(0, "head", 4): HEAD}, "layer 1 att4: the model has heads 0 to 3"),
        ([[1]], [[1]], {Site(0, "head", 1): MODULE}, r"layer 1 att1: a constant of shape (16,); expected (4,)"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    prompts: list[list[int]], answers: list[list[int]], constants: dict[Site, Tensor], message: str
) -> None:
    with pytest.raises(ValueError) as raised:
        swept_scores(build("llama grouped"), prompts, answers, constants)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("tokens", [1, 3])
def test_the_longest_input_is_scored(tokens: int) -> None:
    model, one = build("gpt2"), {SITES[0]: HEAD + 1}
    prompts, answers = [[1] * (POSITIONS + 1 - tokens)], [[2] * tokens]
    assert_equal(swept_scores(model, prompts, answers, one), loop(model, prompts, answers, one))


def test_a_model_in_training_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^the model is in training mode, where dropout is on; expected model.eval"):
        swept_scores(build("gpt2").train(), [[1]], [[2]], {})


def test_on_a_gpu_the_scores_are_there_and_the_same(model: PreTrainedModel) -> None:
    """The constants come from the CPU."""
    answers = [[5, 2], [7]] * 3
    expected = swept_scores(model, PROMPTS, answers, constants_of(model))
    with pretended_gpu():
        model.to("cuda")
        found = swept_scores(model, PROMPTS, answers, constants_of(model))
        assert found.effects().device == found.tokens.device == model.device
    torch.testing.assert_close(found.patched, expected.patched, rtol=0, atol=1e-11)
    torch.testing.assert_close(found.base, expected.base, rtol=0, atol=1e-11)
