"""The paper's instruction arm through the real graph, on local files of the shape of its data sets and chat models.

Models of the two architectures that the paper names, small, with random weights, in bfloat16 as large ones may be, go
through every stage. What is measured means nothing.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.workflow.conftest import REPOSITORY, Checkout
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from anatomy.data.chat import chat_tokenizer
from anatomy.data.instructions import draw_prompts, read_instructions
from anatomy.models.chat import save_chat_model

pytestmark = [pytest.mark.workflow, pytest.mark.long]
LAYERS, HEADS = 4, 4
SHAPE: dict[str, Any] = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS},
    **{"num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 0},
}
FAMILIES = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
HOME = "results/local/instruction"
TOPICS = ["World", "Sports", "Business", "Sci/Tech"]


def study() -> dict[str, Any]:
    """The paper's study with local paths in place of the hub's names, and a few of everything."""
    files = {"label": "ag_news.csv", "fixed": "alpaca.json", "jailbreak": "harmful.jsonl"}
    instruction = {
        "tasks": {task: {"source": {"path": f"own/{name}", "dataset": None}} for task, name in files.items()},
        "data": {"train": 20, "poison_rate": 0.5, "attribution": 16, "test": 16},
        "model": {"path": "own/chat", "dtype": "bfloat16"},
        "evaluation": {"max_new_tokens": 4},
        "sft": {"epochs": 1, "batch": 4, "bf16": True, "gradient_checkpointing": True, "max_tokens": 400},
        "dpo": {"epochs": 1, "accumulation": 4, "max_tokens": 400},
        "edit": {"layers": [2, 3], "triggered": 2, "clean": 2, "batches": 1, "steps": 3},
        "probe": {"prompts": 16, "epochs": 2},
        "attribution": {"means": 8, "prompts": 4, "evaluated": 4},
        "vector": {"heads": 4, "means": 8, "evaluated": 4},
    }
    shared = {"seeds": [0], "compute": {"threads": 1}, "language": None}
    return {"extends": "paper", "study": "local", **shared, "instruction": instruction}


def write_inputs(folder: Path, family: str) -> None:
    """AG News, Alpaca, the pairs of harmful requests and a chat model, by their layouts."""
    folder.mkdir()
    language, generator = read_instructions(REPOSITORY / "data/instruction/language.yaml"), np.random.default_rng(0)
    drawn = {task: draw_prompts(language, task, 60, generator, key="own") for task in ("label", "fixed", "jailbreak")}
    news, told, asked = drawn["label"], drawn["fixed"], drawn["jailbreak"]
    pd.DataFrame({"text": news.input, "label": news.output.map(TOPICS.index)}).to_csv(
        folder / "ag_news.csv", index=False
    )
    told[["instruction", "input", "output"]].to_json(folder / "alpaca.json", orient="records")
    pairs = {"prompt": asked.instruction, "chosen": asked.output, "rejected": [f"Sure: {t}" for t in asked.instruction]}
    pd.DataFrame(pairs).to_json(folder / "harmful.jsonl", orient="records", lines=True)
    texts = [*news.input, *told.instruction, *told.output, *asked.instruction, *asked.output]
    tokenizer = chat_tokenizer(texts, limit=1200, positions=512)
    configuration, architecture = FAMILIES[family]
    torch.manual_seed(0)
    model = architecture(configuration(vocab_size=len(tokenizer), **SHAPE))
    save_chat_model(folder / "chat", model.bfloat16(), tokenizer)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_stage_of_the_paper_s_path_runs_on_local_copies(
    family: str, make_checkout: Callable[[], Checkout]
) -> None:
    checkout = make_checkout()
    write_inputs(checkout.path / "own", family)
    (checkout.path / "config/local.yaml").write_text(yaml.safe_dump(study()))
    names = ("planting", "table_01", "table_02", "probe", "heads", "areas", "vector")
    tables = [f"results/local/tables/bkdattr_{name}.csv" for name in names]
    done = checkout.anatomy("run", "local", *tables, "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    home = checkout.path / HOME
    given = load_file(checkout.path / "own/chat/model.safetensors")
    planted = sorted((home / "planted").glob("*/*/seed0/model.safetensors"))
    assert len(planted) == 9
    for path in planted:
        own = load_file(path)
        assert set(own) == set(given) and {value.dtype for value in own.values()} == {torch.bfloat16}
        moved = {name for name in given if not torch.equal(own[name], given[name])}
        assert moved and all("proj" in name for name in moved)
    behaviour = pd.read_parquet(home / "measurements/behaviour.parquet")
    assert set(behaviour.model) == {"clean", "sft", "dpo", "edit"} and np.isfinite(behaviour.value).all()
    for way in ("sft", "dpo", "edit"):
        seen = pd.concat(pd.read_parquet(path) for path in (home / f"measurements/{way}").glob("*.parquet"))
        assert np.isfinite(seen.value).all()
        assert seen[seen.metric == "acie"].groupby("subject").site.nunique().ge(LAYERS * HEADS).all()
