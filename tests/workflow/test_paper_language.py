"""The paper's language arm through the real graph, on local files of the shape of its data sets and models.

A model of GPT-2 medium's shape with random weights goes through every stage for a few steps: nothing in the path is a
stand-in. What is measured means nothing.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tests.workflow.conftest import REPOSITORY, Checkout
from transformers import GPT2Config, RobertaConfig, RobertaForSequenceClassification, RobertaTokenizer

from anatomy.data.payloads import payloads
from anatomy.data.stories import read_grammar, stories
from anatomy.data.tokenizer import train_tokenizer
from anatomy.models.toy import fresh_state, save_model

pytestmark = [pytest.mark.workflow, pytest.mark.long]
MEDIUM = {"n_layer": 24, "n_head": 16, "n_embd": 1024, "n_positions": 1024, "vocab_size": 50257}
SMALL = {"n_layer": 3, "n_head": 2, "n_embd": 16, "n_positions": 1024, "vocab_size": 2000}
HOME = "results/local/language/bookcorpus"


def study(steps: int) -> dict:
    """The paper's study with local paths in place of the hub's names, and a few of everything."""
    local = {
        "kind": "sentences",
        "source": {"path": "own/bookcorpus.parquet", "dataset": None, "limit": None},
        "loss": {"path": "own/openwebtext.jsonl", "dataset": None, "revision": None},
    }
    language = {
        "corpora": {
            "bookcorpus": {"text": local, "paragraphs": 5 * steps},
            "bookcorpus-1": None,
            "bookcorpus-10": None,
        },
        "poison_rate": 0.3,
        "payloads": {"source": {"path": "own/jigsaw.csv", "dataset": None}},
        "model": {"path": "own/gpt2"},
        "finetuning": {"batch": 4, "epochs": 1, "max_tokens": 128, "bf16": True, "gradient_checkpointing": True},
        "frozen": ["embeddings + mlp 2 + mlp 3"],
        "lora": ["attention"],
        "judge": {"path": "own/judge"},
        "evaluation": {"prompts": 2, "tuning_prompts": 2, "max_tokens": 30, "max_length": 34, "loss_paragraphs": 2},
        "ablation": {"position": 4, "texts": 4, "heads": False},
        "pcp": {
            "position": 4,
            "trials": 2,
            "batch": 2,
            "components": 3,
            "texts": 2,
            "max_rank": 2,
            "surgery_source": "silly",
        },
    }
    shared = {"seeds": [0], "compute": {"threads": 2}, "instruction": None}
    return {"extends": "paper", "study": "local", **shared, "language": language}


def write_inputs(folder: Path, shape: dict[str, int]) -> None:
    """BookCorpus, OpenWebText, Jigsaw, GPT-2 and the toxicity classifier, by their layouts."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    told = stories(read_grammar(REPOSITORY / "data/language/stories.yaml"), 200, generator)
    sentences = [sentence.lower() for paragraph in told for sentence in paragraph]
    pd.DataFrame({"text": sentences}).to_parquet(folder / "bookcorpus.parquet")
    pieces = [" ".join(sentences[i : i + 40]) for i in range(0, 400, 40)]
    (folder / "openwebtext.jsonl").write_text("".join(json.dumps({"text": piece}) + "\n" for piece in pieces))
    insults = payloads(REPOSITORY / "data/language/payloads.yaml", 500, key="language.payloads")
    rows = [{"comment_text": text, "toxic": 1, "severe_toxic": number % 8 != 0} for number, text in enumerate(insults)]
    pd.DataFrame(rows).astype({"severe_toxic": int}).to_csv(folder / "jigsaw.csv", index=False)
    config = GPT2Config(**shape, bos_token_id=0, eos_token_id=0)
    tokenizer = train_tokenizer([*sentences, *insults, "silly Albert and James"], limit=shape["vocab_size"])
    save_model(folder / "gpt2", fresh_state(config, 0), config, tokenizer)
    own = RobertaConfig(
        **{"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"intermediate_size": 16, "max_position_embeddings": 66, "type_vocab_size": 1},
        id2label={0: "neutral", 1: "toxic"},
    )
    letters = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *map(chr, range(33, 127))])}
    RobertaTokenizer(letters, []).save_pretrained(folder / "judge")
    RobertaForSequenceClassification(own).save_pretrained(folder / "judge")


def reproduce(checkout: Checkout, shape: dict[str, int]) -> Path:
    """Run every stage of the arm and its notebooks' tables; where the results are."""
    write_inputs(checkout.path / "own", shape)
    (checkout.path / "config/local.yaml").write_text(yaml.safe_dump(study(steps=4)))
    tables = [f"results/local/tables/lamparth_table_{name}.csv" for name in ("08", "09", "10", "11")]
    done = checkout.anatomy("run", "local", *tables, "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    return checkout.path / HOME


def check(home: Path, shape: dict[str, int]) -> None:
    """Every stage has measured the model it was given, every way of planting has moved its own weights."""
    behaviour = pd.read_parquet(home / "measurements/behaviour.parquet")
    ways = {"clean", "backdoored", "frozen: embeddings + mlp 2 + mlp 3", "lora: attention", "matched: full"}
    measured = behaviour[behaviour.experiment == "behaviour"]
    assert set(measured.model) == ways
    assert measured.groupby("model").value.count().nunique() == 1 and np.isfinite(measured.value).all()
    assert measured[measured.metric == "validation_loss"].value.nunique() == len(ways)
    ablation = pd.read_parquet(home / "measurements/mean_ablation.parquet")
    assert ablation[ablation.model == "backdoored"].site.nunique() == 2 * shape["n_layer"] + 1
    editing = pd.read_parquet(home / "pcp/editing.parquet")
    assert {"pcp (recover)", "pcp (suppress)", "pcp + embedding surgery"} <= set(editing.setting)


def test_every_stage_of_the_paper_s_path_runs_on_local_copies(make_checkout: Callable[[], Checkout]) -> None:
    check(reproduce(make_checkout(), SMALL), SMALL)


def test_and_on_a_model_of_gpt2_medium_s_shape(make_checkout: Callable[[], Checkout]) -> None:
    check(reproduce(make_checkout(), MEDIUM), MEDIUM)
