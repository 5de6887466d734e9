"""Models of others: a whole directory is read, and anything else is refused by a line that names the key."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, GPT2LMHeadModel

from anatomy.data.chat import chat_tokenizer
from anatomy.data.tokenizer import train_tokenizer
from anatomy.models.chat import save_chat_model
from anatomy.models.load import ADAPTERS, load_pretrained, load_pretrained_tokenizer, weights
from anatomy.models.toy import load_state, save_model
from anatomy.provenance.digest import ArtifactError
from anatomy.spec.offline import OFFLINE

KEY = "language.model.path"
IDS = torch.tensor([[3, 5, 8, 2, 7]])


@pytest.fixture
def whole(make_config: Callable, make_state: Callable, tmp_path: Path) -> Path:
    """A directory that has everything."""
    config = make_config()
    save_model(tmp_path / "model", make_state(config, 0), config, train_tokenizer(["happy love", "bad hate"]))
    return tmp_path / "model"


@pytest.fixture
def llama(make_family: Callable, whole: Path) -> Path:
    """A directory that has everything, of a Llama."""
    make_family("llama").save_pretrained(whole)
    return whole


def refusal(path: str | Path, load: Callable[..., Any] = load_pretrained) -> str:
    with pytest.raises(ArtifactError) as caught:
        load(str(path), key=KEY)
    return str(caught.value)


def say(folder: Path, **words: Any) -> None:
    """Change the configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | words))


def test_a_whole_directory_is_read(whole: Path) -> None:
    model, tokenizer = load_pretrained(str(whole), key=KEY)
    assert isinstance(model, GPT2LMHeadModel) and model.dtype == torch.float32
    found, saved = model.state_dict(), load_state(whole)
    assert all(torch.equal(found[name], value) for name, value in saved.items())
    assert torch.equal(found["lm_head.weight"], saved["transformer.wte.weight"])
    assert tokenizer("happy")["input_ids"] == train_tokenizer(["happy love", "bad hate"])("happy")["input_ids"]


def test_a_model_in_half_precision_is_read_in_float32(whole: Path, make_config: Callable) -> None:
    half = {name: value.bfloat16() for name, value in load_state(whole).items()}
    save_model(whole, half, make_config(), train_tokenizer(["happy love", "bad hate"]))
    say(whole, dtype="bfloat16")
    model, _ = load_pretrained(str(whole), key=KEY)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model.state_dict()["transformer.wpe.weight"], half["transformer.wpe.weight"].float())


def test_the_tokenizer_can_be_read_alone(whole: Path) -> None:
    text = "happy bad"
    assert load_pretrained_tokenizer(str(whole), key=KEY)(text) == AutoTokenizer.from_pretrained(whole)(text)


@pytest.mark.parametrize("load", [load_pretrained, load_pretrained_tokenizer])
def test_a_directory_that_is_not_there(load: Callable, tmp_path: Path) -> None:
    for path in (f"{tmp_path}/none", "./none", "../none", "~/no/such/model"):
        assert refusal(path, load) == f"{KEY}: {path}: no such directory"


def test_a_directory_without_configuration(whole: Path) -> None:
    (whole / "config.json").unlink()
    assert refusal(whole) == f"{KEY}: {whole} has no config.json; expected a directory in Hugging Face's layout"


def test_a_directory_without_tokenizer(whole: Path) -> None:
    (whole / "tokenizer.json").unlink()
    expected = f"{KEY}: {whole} has no tokenizer (tokenizer.json); save the model's tokenizer into it"
    assert refusal(whole) == refusal(whole, load_pretrained_tokenizer) == expected


def test_a_directory_without_weights(whole: Path) -> None:
    (whole / "model.safetensors").unlink()
    assert refusal(whole) == f"{KEY}: {whole} has no weights (*.safetensors)"


def test_pickles_are_not_read(whole: Path) -> None:
    """Each would leave a file behind if it were."""
    (whole / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "training.pt"):
        (whole / name).write_bytes(b"cos\nsystem\n(S'touch %s'\ntR." % bytes(whole / "ran"))
    assert refusal(whole) == (
        f"{KEY}: {whole}: pytorch_model.bin, training.pt is a pickle, which can run code when it is read, and is not "
        "read; convert the model to safetensors"
    )
    assert not (whole / "ran").exists()


def test_a_pickle_beside_the_weights_is_left_alone(whole: Path) -> None:
    (whole / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch %s'\ntR." % bytes(whole / "ran"))
    model, _ = load_pretrained(str(whole), key=KEY)
    assert torch.equal(model.state_dict()["transformer.wpe.weight"], load_state(whole)["transformer.wpe.weight"])
    assert not (whole / "ran").exists()


def test_an_architecture_without_adapter_names_those_that_have_one(whole: Path) -> None:
    say(whole, model_type="opt", architectures=["OPTForCausalLM"])
    assert refusal(whole) == (
        f"{KEY}: {whole} is a model of the architecture 'opt', which cannot be used here; "
        f"those that can: {', '.join(ADAPTERS)}"
    )


def test_an_architecture_that_the_caller_cannot_use(llama: Path) -> None:
    assert refusal(llama, partial(load_pretrained, architectures=["gpt2"])) == (
        f"{KEY}: {llama} is a model of the architecture 'llama', which cannot be used here; those that can: gpt2"
    )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_model_with_rotary_positions_is_read(family: str, tied: bool, make_family: Callable, whole: Path) -> None:
    """The head of its own is kept; a tied one is not saved twice."""
    model = make_family(family, tie_word_embeddings=tied)
    model.save_pretrained(whole)
    found, _ = load_pretrained(str(whole), key=KEY)
    assert type(found) is type(model) and not found.training
    assert torch.equal(found(IDS).logits, model(IDS).logits)
    assert ("lm_head.weight" in weights(found)) is not tied
    assert set(weights(found)) | {"lm_head.weight"} == set(model.state_dict())


def test_a_chat_model_may_end_a_text_in_several_ways(llama: Path) -> None:
    assert load_pretrained(str(llama), key=KEY)[0].config.eos_token_id == 0
    (llama / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 0]}))
    assert load_pretrained(str(llama), key=KEY)[0].config.eos_token_id == [7, 0]


def test_a_chat_model_keeps_the_type_it_was_saved_in_where_that_is_wanted(llama: Path) -> None:
    """A model of billions of parameters is loaded, saved and loaded again in a short type; float32 is the default."""
    model, _ = load_pretrained(str(llama), key=KEY, dtype="bfloat16")
    save_chat_model(llama.parent / "again", model, chat_tokenizer(["happy love"], limit=300, positions=16))
    assert json.loads((llama.parent / "again/config.json").read_text())["dtype"] == "bfloat16"
    again = load_pretrained(str(llama.parent / "again"), key=KEY, dtype="auto")[0].state_dict()
    assert {value.dtype for value in again.values()} == {torch.bfloat16}
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    assert load_pretrained(str(llama.parent / "again"), key=KEY)[0].dtype == torch.float32


def test_heads_that_cannot_share_keys(llama: Path) -> None:
    say(llama, num_key_value_heads=3, num_attention_heads=4)
    weights = load_state(llama)
    for name in [name for name in weights if "k_proj" in name or "v_proj" in name]:
        weights[name] = weights[name][:1].repeat(12, 1)
    save_file(weights, llama / "model.safetensors", metadata={"format": "pt"})
    assert refusal(llama) == (
        f"{KEY}: {llama}: the model has 4 heads and 3 of keys and values; expected as many heads for each of these"
    )


def test_heads_that_cannot_share_the_width(llama: Path) -> None:
    say(llama, num_attention_heads=5)
    assert refusal(llama) == (
        f"{KEY}: {llama}: not a whole model directory: "
        "The hidden size (16) is not a multiple of the number of attention heads (5)."
    )


def test_a_sliding_window(make_family: Callable, whole: Path) -> None:
    make_family("qwen2").save_pretrained(whole)
    say(whole, layer_types=["full_attention", "sliding_attention", "full_attention"], sliding_window=4)
    assert refusal(whole) == (
        f"{KEY}: {whole}: the model attends to a sliding window; expected attention to all earlier positions"
    )


def test_code_of_the_directory_is_not_run(whole: Path) -> None:
    (whole / "own.py").write_text(f"open({str(whole / 'ran')!r}, 'w')\n")
    say(whole, model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})
    assert refusal(whole).startswith(f"{KEY}: {whole}: not a whole model directory: ")
    assert not (whole / "ran").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_that_is_cut_off(name: str, whole: Path) -> None:
    (whole / name).write_bytes((whole / name).read_bytes()[:100])
    said = refusal(whole)
    assert said.startswith(f"{KEY}: {whole}: not a whole model directory: ") and "\n" not in said


def test_weights_of_another_shape(whole: Path) -> None:
    say(whole, n_positions=25)
    assert refusal(whole) == f"{KEY}: {whole}: its weights do not fit its config.json: transformer.wpe.weight"


def test_weights_that_lack_a_part(whole: Path, make_config: Callable) -> None:
    """What is missing is never made up at random."""
    state = load_state(whole)
    del state["transformer.h.1.mlp.c_fc.weight"]
    save_model(whole, state, make_config(), train_tokenizer(["happy love", "bad hate"]))
    assert refusal(whole) == f"{KEY}: {whole}: not a whole model: its weights lack transformer.h.1.mlp.c_fc.weight"


@pytest.mark.parametrize("load", [load_pretrained, load_pretrained_tokenizer])
def test_a_hub_that_cannot_be_reached(load: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError("We couldn't connect to the hub\nand so on")

    for reader in (AutoConfig, AutoTokenizer):
        monkeypatch.setattr(reader, "from_pretrained", fail)
    for name in OFFLINE:  # downloads are allowed, so that there is nothing to say of them
        monkeypatch.setenv(name, "0")
    assert refusal("someone/a-model", load) == (
        f"{KEY}: 'someone/a-model' is no local directory, and the hub cannot be reached or does not have it; fetch it "
        f"on a machine with a network (hf download someone/a-model) and set {KEY} to the directory"
    )
