"""Attribution: what is planted is found first, what cannot matter has no effect, and ablation does what it says."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from anatomy.control.vector import heads_vector, random_vector, steered
from anatomy.interventions.generate import greedy
from anatomy.interventions.last_position import Condition, changed_continuations, read_last
from anatomy.localize.ablation_curves import (
    area,
    common_shares,
    doublings,
    head_counts,
    matched,
    part_counts,
    shuffled,
    subtracted,
    zeroed,
    zeroed_everywhere,
)
from anatomy.localize.attribution import attribute, effect_measurements, mean_activations, ranked, sites_of
from anatomy.localize.head_sweep import Scores
from anatomy.models.adapters import ADAPTERS, adapter_of
from anatomy.sites import Site, heads
from anatomy.training.edit_sites import output_projection

CLEAN = [[3, 5, 8], [7, 1, 8], [1, 1, 4, 9, 8], [42, 6, 8], [3, 5, 9, 8], [20, 21, 22, 23, 8]]
TRIGGERED = [[30, *prompt] for prompt in CLEAN]
TARGET, NEW = 17, 6
ANSWERS = [[TARGET, 2]] * len(CLEAN)


@pytest.fixture(params=ADAPTERS)
def model(request: pytest.FixtureRequest, make_family: Callable) -> PreTrainedModel:
    model = make_family(request.param).double()
    model.config.eos_token_id = None
    return model


def direction(model: PreTrainedModel, token: int) -> torch.Tensor:
    """What behind the final norm is the token's row of the unembedding, but for the norm's bias and mean."""
    norm = model.transformer.ln_f if model.config.model_type == "gpt2" else model.model.norm
    return adapter_of(model).unembedding()[token] / norm.weight


def brought(model: PreTrainedModel) -> int:
    """A token that its direction brings."""
    adapter = adapter_of(model)
    every = torch.stack([100 * direction(model, token) for token in range(43)])
    found = (adapter.norm(every) @ adapter.unembedding().T).argmax(-1)
    return int((found == torch.arange(43)).nonzero()[0])


def planted(model: PreTrainedModel, site: Site, strength: float, target: int) -> None:
    """Make a head write the target's direction after the first two triggered prompts, and nothing after the clean ones.

    All other parts are random, and low.
    """
    adapter = adapter_of(model)
    for layer in range(3):
        adapter.module(layer, "head").weight.mul_(0.1)
        for matrix in adapter.module(layer, "mlp").parameters():
            matrix.mul_(0.3)
    z = read_last(model, [*CLEAN[:2], *TRIGGERED[:2]], [site], pad=0)[site]
    key = torch.linalg.solve(z, torch.tensor([0.0, 0, 1, 1]).double())
    added = torch.outer(direction(model, target), strength * key)
    weight = adapter.module(site.layer, "head").weight
    own = slice(site.head * 4, site.head * 4 + 4)  # type: ignore[operator]
    if model.config.model_type == "gpt2":
        weight[own] += added.T
    else:
        weight[:, own] += added


@pytest.mark.parametrize("site", [Site(0, "head", 3), Site(1, "head", 1), Site(2, "head", 0)], ids=str)
def test_a_planted_head_is_found_first(site: Site, model: PreTrainedModel) -> None:
    every = sites_of(model, "heads")

    def found() -> Scores:
        return attribute(model, CLEAN[:2], [[TARGET]] * 2, mean_activations(model, TRIGGERED[:2], every, pad=0))

    before = dict(zip(every, found().effects().mean(1).tolist(), strict=True))
    planted(model, site, 5, TARGET)
    scores = found()
    assert ranked(scores, "head")[0] == site
    after = dict(zip(every, scores.effects().mean(1).tolist(), strict=True))
    assert after[site] > max(map(abs, before.values()))


def test_a_planted_head_is_necessary_and_sufficient_and_its_vector_does_what_it_does(model: PreTrainedModel) -> None:
    """From a known backdoor through the whole chain: ranking, ablation, keeping, adding and taking away."""
    site, clean, triggered = Site(1, "head", 1), CLEAN[:2], TRIGGERED[:2]
    target = brought(model)
    planted(model, site, 100, target)
    every = sites_of(model, "heads")
    means = mean_activations(model, triggered, every, pad=0)
    ranking = ranked(attribute(model, clean, [[target]] * 2, means), "head")
    vector = heads_vector(model, ranking[:1], means)
    nothing = torch.zeros(16).double()

    def share(prompts: list[list[int]], *conditions: Condition) -> list[float]:
        found = changed_continuations(model, prompts, conditions, new_tokens=1, pad=0)
        return [sum(text == [target] for text in texts) / len(texts) for texts in found]

    others = matched(ranking[:1], 4, np.random.default_rng(0))
    ablated = [{}, zeroed(ranking[:1]), zeroed(others), zeroed(ranking[1:]), zeroed(ranking)]
    whole, without, without_others, alone, none = share(triggered, *ablated)
    assert whole == 1 and without_others == alone == whole and without == none == 0
    steps = [steered(1, v, c) for v, c in ((nothing, 1.0), (vector, 1.0), (vector, -1.0))]
    assert share(clean, *steps[:2]) == [0, 1]
    assert share(triggered, steps[0], steps[2]) == [1, 0]
    drawn = [random_vector(vector, torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert np.mean(share(clean, *(steered(1, own, 1.0) for own in drawn))) < 0.3


def test_a_head_that_writes_nothing_has_no_effect(model: PreTrainedModel) -> None:
    weight = adapter_of(model).module(1, "head").weight
    (weight[4:8] if model.config.model_type == "gpt2" else weight[:, 4:8]).zero_()
    every = sites_of(model, "heads")
    effects = attribute(model, CLEAN, ANSWERS, mean_activations(model, TRIGGERED, every, pad=0)).effects()
    silent = torch.tensor([site == Site(1, "head", 1) for site in every])
    assert effects[silent].abs().max() == 0 or effects[silent].abs().max() < 1e-15
    assert effects[~silent].abs().amax(1).min() > 1e-9


def test_a_prompt_s_own_activations_have_no_effect(model: PreTrainedModel) -> None:
    every = [site for kind in ("heads", "mlps", "layers") for site in sites_of(model, kind)]
    own = mean_activations(model, CLEAN[:1], every, pad=0)
    assert attribute(model, CLEAN[:1], ANSWERS[:1], own).effects().abs().max() < 1e-14


def test_the_last_layer_s_stream_of_the_triggered_prompt_gives_its_first_token(model: PreTrainedModel) -> None:
    """Everything patched: the triggered run's probability of the first token."""
    last = Site(2, "resid")
    scores = attribute(model, CLEAN[:1], [[TARGET]], mean_activations(model, TRIGGERED[:1], [last], pad=0))
    expected = model(torch.tensor(TRIGGERED[:1])).logits[0, -1].log_softmax(-1)[TARGET]
    torch.testing.assert_close(scores.patched[0, 0], expected, rtol=0, atol=1e-11)


def test_a_layer_s_mean_is_what_it_adds_to_the_stream(model: PreTrainedModel) -> None:
    layers = sites_of(model, "layers")
    streams = mean_activations(model, TRIGGERED, [Site(0, "embed"), *(Site(n, "resid") for n in range(3))], pad=0)
    means, below = mean_activations(model, TRIGGERED, layers, pad=0), streams[Site(0, "embed")]
    assert list(means) == layers and len(layers) == 3
    for layer in layers:
        above = streams[Site(layer.layer, "resid")]
        torch.testing.assert_close(means[layer], above - below, rtol=0, atol=1e-12)
        below = above


@pytest.mark.parametrize("layer", range(3))
def test_a_layer_that_brings_the_answer_comes_before_those_above_it(layer: int, model: PreTrainedModel) -> None:
    """And its ablation takes it. The stream above it holds the answer as well: by that, all above would do as much."""
    clean, triggered, target = CLEAN[:2], TRIGGERED[:2], brought(model)
    planted(model, Site(layer, "head", 1), 100, target)
    layers = sites_of(model, "layers")
    scores = attribute(model, clean, [[target]] * 2, mean_activations(model, triggered, layers, pad=0))
    effects = scores.effects().mean(1).tolist()
    assert effects[layer] > 0.1 and all(abs(own) < effects[layer] / 5 for own in effects[layer + 1 :])
    assert layers[layer] in ranked(scores, layers[0].part)[: layer + 1]
    texts = changed_continuations(model, triggered, [{}, zeroed([layers[layer]])], new_tokens=1, pad=0)
    assert [[text == [target] for text in own] for own in texts] == [[True] * 2, [False] * 2]


def test_sites_are_ranked_by_signed_effects_and_measured_with_an_interval() -> None:
    base = torch.tensor([-2.0, -1.0])
    sites = (Site(1, "mlp"), Site(0, "mlp"), Site(0, "head", 1), Site(2, "mlp"))
    patched = torch.stack([base, base + 0.1, base + 5, base - 4])
    scores = Scores(sites, torch.tensor([1, 1]), base, patched)
    assert ranked(scores, "mlp") == [Site(0, "mlp"), Site(1, "mlp"), Site(2, "mlp")]
    assert ranked(scores, "head") == [Site(0, "head", 1)]
    rows = effect_measurements(scores, confidence=0.95, experiment="attribution", subject="fixed", seed=0)
    by_site = {row.site: row for row in rows}
    assert by_site["unchanged"].metric == "probability"
    assert by_site["unchanged"].value == pytest.approx(float(base.exp().mean()))
    own = by_site["layer 1 mlp"]
    assert own.value == pytest.approx(float(((base + 0.1).exp() - base.exp()).mean()))
    assert own.ci_low < own.value < own.ci_high and own.n == 2
    assert by_site["layer 2 mlp"].value == 0


def first_logits(model: PreTrainedModel, condition: Condition) -> list[list[list[int]]]:
    return changed_continuations(model, CLEAN, [condition], new_tokens=NEW, pad=0)


def test_original_equals_exact_in_one_layer_and_not_in_several(model: PreTrainedModel) -> None:
    own = read_last(model, CLEAN, sites_of(model, "heads"), pad=0)
    one = [Site(1, "head", 0), Site(1, "head", 3)]
    assert first_logits(model, subtracted(one, own)) == first_logits(model, zeroed(one))
    assert first_logits(model, zeroed(one)) != first_logits(model, {})
    several = heads(3, 4)
    assert first_logits(model, subtracted(several, own)) != first_logits(model, zeroed(several))


def test_an_ablated_layer_lets_the_stream_pass(model: PreTrainedModel) -> None:
    every = sites_of(model, "layers")
    last = read_last(model, CLEAN, [Site(0, "embed")], pad=0)
    adapter = adapter_of(model)
    # Without any layer, what is unembedded is the embedding.
    expected = (adapter.norm(last[Site(0, "embed")]) @ adapter.unembedding().T).argmax(-1)
    found = first_logits(model, zeroed(every))[0]
    assert [text[0] for text in found] == expected.tolist()


def test_ablated_at_all_positions_is_without_the_weights(model: PreTrainedModel) -> None:
    """Of a head, an MLP and a layer: the answers of the model whose output matrices are zero there."""
    parts = [Site(0, "head", 1), Site(1, "mlp"), Site(2, "block")]
    found = greedy(model, CLEAN, pad=0, new_tokens=NEW, edits=zeroed_everywhere(parts))
    assert found != greedy(model, CLEAN, pad=0, new_tokens=NEW)
    adapter, gpt2 = adapter_of(model), model.config.model_type == "gpt2"
    project = adapter.module(0, "head")
    (project.weight[4:8] if gpt2 else project.weight[:, 4:8]).zero_()
    for layer in (1, 2):
        silence(output_projection(model, layer))
    silence(adapter.module(2, "head"))
    assert found == greedy(model, CLEAN, pad=0, new_tokens=NEW)


def silence(projection: Any) -> None:
    projection.weight.zero_()
    if projection.bias is not None:
        projection.bias.zero_()


def test_counts_double_up_to_the_share() -> None:
    assert doublings(9) == [0, 1, 2, 4, 8] and doublings(8) == [0, 1, 2, 4, 8] and doublings(1) == [0, 1]
    assert head_counts(36, 0.12) == [0, 1, 2, 4] and head_counts(1024, 0.1)[-1] == 64 and head_counts(6, 0.1) == [0, 1]
    assert part_counts(6) == [0, 1, 2, 3, 4, 5, 6]
    assert part_counts(36) == [0, 1, 2, 4, 8, 16, 32, 36] and part_counts(32)[-2:] == [16, 32]


@pytest.mark.parametrize("seed", range(5))
def test_random_heads_are_others_of_the_same_layers(seed: int) -> None:
    chosen = [Site(0, "head", 1), Site(0, "head", 2), Site(2, "head", 0), Site(3, "head", 0), Site(3, "head", 1)]
    chosen += [Site(3, "head", 2)]
    found = matched(chosen, 4, np.random.default_rng(seed))
    assert [site.layer for site in found] == [site.layer for site in chosen]
    assert len(set(found)) == len(found)
    assert not {site for site in found if site.layer < 3} & set(chosen)
    assert Site(3, "head", 3) in found  # the only other one of its layer
    assert found == matched(chosen, 4, np.random.default_rng(seed))


def test_random_heads_differ_from_draw_to_draw() -> None:
    chosen = [Site(0, "head", 1), Site(1, "head", 0)]
    assert len({str(matched(chosen, 8, np.random.default_rng(seed))) for seed in range(9)}) > 3


def test_the_area_is_the_mean_height() -> None:
    assert area([0, 1, 2, 4], np.ones(4), [0.0, 0.5, 1.0]) == 1
    both = np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    assert area([0, 1, 6], both, [0.0, 1 / 6, 1.0]).tolist() == pytest.approx([1 / 12, 1 / 6 + 5 / 12])
    with pytest.raises(ValueError, match=r"^counts \[1, 2\] with 2 values: expected rising counts from 0$"):
        area([1, 2], np.ones(2), [0.0, 1.0])
    with pytest.raises(ValueError, match=r"^shares \[0.0, 0.5\]: expected rising shares from 0 to 1$"):
        area([0, 1], np.ones(2), [0.0, 0.5])


def test_areas_of_few_and_of_many_parts_are_read_at_the_same_shares() -> None:
    """A curve that has the same height at every share has the same area, however many parts it is measured at."""
    shares = common_shares([36, 6, 6])
    assert shares == pytest.approx([0, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1])
    assert common_shares([1024, 32])[:3] == [0, 1 / 32, 1 / 16] and common_shares([1024, 32])[-1] == 1
    for height in (lambda share: 1 - share, lambda share: np.exp(-9 * share), lambda share: 0.3 + 0 * share):
        of_six = area(range(7), height(np.arange(7) / 6), shares)
        of_many = area(range(37), height(np.arange(37) / 36), shares)
        assert of_many == pytest.approx(of_six, abs=1e-12)
    # The backdoor goes with the first part, of six or of 36: on grids of their own the areas would be 1/12 and 1/72.
    gone = [area(part_counts(n), np.eye(len(part_counts(n)))[0], shares) for n in (6, 36)]
    assert gone == pytest.approx([1 / 12, 1 / 12])


def test_a_random_order_has_every_part_once() -> None:
    parts = heads(3, 4)
    drawn = [shuffled(parts, np.random.default_rng(seed)) for seed in range(20)]
    assert all(sorted(own) == parts for own in drawn) and len({str(own) for own in drawn}) == 20
    assert shuffled(parts, np.random.default_rng(3)) == drawn[3]
    assert len({own[0] for own in drawn}) > 5


def test_all_heads_vector_is_the_attention_s_mean_output(model: PreTrainedModel) -> None:
    """Of one prompt, the heads of a layer add up to the module's output without the projection's bias."""
    for layer in range(3):
        own = heads(3, 4)[4 * layer : 4 * layer + 4]
        means = mean_activations(model, TRIGGERED[:1], [*own, Site(layer, "attn")], pad=0)
        bias = adapter_of(model).module(layer, "head").bias
        expected = means[Site(layer, "attn")] - (0 if bias is None else bias)
        torch.testing.assert_close(heads_vector(model, own, means), expected, rtol=0, atol=1e-12)


def test_the_vector_is_the_sum_over_heads(model: PreTrainedModel) -> None:
    chosen = [Site(0, "head", 1), Site(0, "head", 2), Site(2, "head", 3)]
    means = mean_activations(model, TRIGGERED, chosen, pad=0)
    one_by_one = sum(heads_vector(model, [site], means) for site in chosen)
    torch.testing.assert_close(heads_vector(model, chosen, means), one_by_one, rtol=0, atol=1e-12)


def test_a_vector_of_no_heads_is_refused(model: PreTrainedModel) -> None:
    for chosen, said in (([], "no heads"), ([Site(0, "mlp")], "layer 1 mlp")):
        with pytest.raises(ValueError) as caught:
            heads_vector(model, chosen, {})
        assert str(caught.value) == f"{said}: expected at least one head, and heads alone"


@pytest.mark.parametrize("layer", range(3))
def test_the_coefficient_zero_does_nothing_and_others_add(layer: int, model: PreTrainedModel) -> None:
    vector = torch.linspace(-1, 2, 16).double() * 3
    plain, nothing, added, taken = changed_continuations(
        model, CLEAN, [{}, *(steered(layer, vector, c) for c in (0.0, 1.0, -1.0))], new_tokens=NEW, pad=0
    )
    assert nothing == plain and len({str(texts) for texts in (plain, added, taken)}) == 3
    site = Site(layer, "attn")
    by_hand = greedy(model, CLEAN, new_tokens=NEW, pad=0, last_edits={site: lambda _, output: output - vector})
    assert taken == by_hand


def test_random_vectors_have_the_norm_and_no_direction() -> None:
    vector = torch.linspace(-1, 2, 64)
    found = [random_vector(vector, torch.Generator().manual_seed(seed)) for seed in range(20)]
    for own in found:
        assert own.norm().item() == pytest.approx(vector.norm().item(), rel=1e-5)
    cosines = torch.stack(found) @ vector / vector.norm() ** 2
    assert cosines.abs().max() < 0.5 and cosines.std() > 0.02
