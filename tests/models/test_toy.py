"""Toy models on disk: what is written is read, and what is damaged is refused by its text."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from anatomy.data.tokenizer import train_tokenizer
from anatomy.models.layout import MODEL_FILES
from anatomy.models.toy import (
    fresh_state,
    load_model,
    load_state,
    load_tokenizer,
    model_from_state,
    save_model,
    stacked_shape,
    toy_config,
)
from anatomy.provenance.digest import ArtifactError
from anatomy.spec.study import Architecture

IDS = torch.tensor([[3, 5, 8, 2, 7]])


@pytest.fixture
def saved(make_config: Callable, make_state: Callable, tmp_path: Path) -> Path:
    config = make_config()
    bpe = train_tokenizer(["happy love", "bad hate"])
    save_model(tmp_path / "seed0", make_state(config, 0), config, bpe)
    return tmp_path / "seed0"


def test_a_saved_model_is_read_back_to_the_bit(saved: Path, make_config: Callable, make_state: Callable) -> None:
    config = make_config()
    state = make_state(config, 0)
    assert all(torch.equal(value, state[name]) for name, value in load_state(saved).items())
    assert torch.equal(load_model(saved)(IDS).logits, model_from_state(state, config)(IDS).logits)


def test_hugging_face_reads_the_folder_by_itself(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == sorted(MODEL_FILES)
    model = AutoModelForCausalLM.from_pretrained(saved)
    assert isinstance(model, GPT2LMHeadModel)
    assert torch.equal(model.eval()(IDS).logits, load_model(saved)(IDS).logits)
    text = "happy love"
    assert AutoTokenizer.from_pretrained(saved)(text)["input_ids"] == load_tokenizer(saved)(text)["input_ids"]


def test_the_same_model_gives_the_same_bytes(
    saved: Path, make_config: Callable, make_state: Callable, tmp_path: Path
) -> None:
    config = make_config()
    save_model(tmp_path / "again", make_state(config, 0), config, load_tokenizer(saved))
    for name in MODEL_FILES:
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_missing_weights_are_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        load_state(tmp_path)
    path = tmp_path / "model.safetensors"
    assert str(caught.value) == f"{path}: missing; the rule that makes it has not run"


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_truncated_weights_are_told(kept: float, saved: Path) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ArtifactError) as caught:
        load_model(saved)
    assert str(caught.value).startswith(f"{path}: not a readable safetensors file (")
    assert str(caught.value).endswith("); it is truncated or damaged, delete it and run again")


def test_weights_without_a_part_do_not_fit(make_config: Callable, make_state: Callable) -> None:
    config = make_config()
    state = make_state(config, 0)
    state["transformer.extra"] = state.pop("transformer.ln_f.bias")
    with pytest.raises(ArtifactError, match="the weights do not fit the configuration") as caught:
        model_from_state(state, config)
    assert "'transformer.ln_f.bias'" in str(caught.value) and "['transformer.extra']" in str(caught.value)


def test_weights_of_another_size_do_not_fit(make_config: Callable, make_state: Callable) -> None:
    with pytest.raises(ArtifactError, match="the weights do not fit the configuration"):
        model_from_state(make_state(make_config(width=32), 0), make_config(width=16))


def test_fresh_weights_are_those_hugging_face_draws(make_config: Callable) -> None:
    config = make_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        expected = GPT2LMHeadModel(config).state_dict()
    state = fresh_state(config, 11)
    assert set(expected) - set(state) == {"lm_head.weight"}
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


def test_fresh_weights_leave_the_global_generator_alone(make_config: Callable) -> None:
    before = torch.get_rng_state()
    fresh_state(make_config(), 11)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_configuration_says_what_the_study_says() -> None:
    config = toy_config(Architecture(layers=3, heads=4, width=64, positions=1024, dropout=0.1), 1904)
    shape = stacked_shape(config, 15)
    assert (shape.vocabulary, shape.width, shape.layers, shape.heads) == (1904, 64, 3, 4)
    assert (shape.inner, shape.n_positions, shape.window, shape.dropout) == (256, 1024, 15, 0.1)
    assert config.activation_function == "gelu_new" and config.tie_word_embeddings
    assert config.resid_pdrop == config.embd_pdrop == config.attn_pdrop == 0.1
    assert stacked_shape(config, 5000).window == 1024


def test_the_saved_configuration_is_gpt2_s(saved: Path) -> None:
    described = json.loads((saved / "config.json").read_text())
    assert (described["model_type"], described["architectures"]) == ("gpt2", ["GPT2LMHeadModel"])
