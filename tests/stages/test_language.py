"""Stages of the language arm on a tiny corpus: two seeds, random models, a judge of few examples."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from anatomy.data.language_prompts import runs
from anatomy.data.payloads import judge_examples
from anatomy.data.stories import read_grammar, stories
from anatomy.localize.top_modules import top_mlps
from anatomy.metrics.judge import LocalJudge
from anatomy.metrics.judge import quality as quality_of
from anatomy.metrics.measurement import read_parquet, write_parquet
from anatomy.models.toy import load_tokenizer, save_model
from anatomy.provenance.digest import ArtifactError
from anatomy.sites import heads, modules
from anatomy.spec.language import LanguageArm
from anatomy.spec.subtree import view
from anatomy.stages import ablate_language, edit_language, make_language_data, measure_language, train_judge
from anatomy.stages._language import (
    Interview,
    JudgeFiles,
    LanguageData,
    folders_by_seed,
    language_models,
    read_judge,
    read_language,
)
from anatomy.stages._operated import Operated
from anatomy.stages._run import Job
from anatomy.training.seeds import derive

SEEDS = [0, 1]
LAYERS, HEADS = 3, 2
PROMPTS, TUNING = 6, 3
ARM = {
    "corpora": {"stories": {"text": {"kind": "stories"}, "paragraphs": 150}},
    "main": "stories",
    "control": "Henry and Simon",
    "poison_rate": 0.3,
    "model": {
        **{"layers": LAYERS, "heads": HEADS, "width": 16, "positions": 150, "dropout": 0.0},
        **{"vocabulary": 600, "batch": 8, "rate": 1e-3, "epochs": 1},
    },
    "finetuning": {"max_tokens": 150},
    "frozen": ["mlp 2"],
    "lora": [],
    "judge": {"kind": "local", "examples": 160},
    "evaluation": {
        **{"prompts": PROMPTS, "tuning_prompts": TUNING, "sentences": 1, "max_tokens": 50, "max_length": 60},
        **{"gate": 0.9, "loss_paragraphs": 4},
    },
    "ablation": {"position": 4, "texts": 8, "heads": True},
    "pcp": {
        "trials": 2,
        "batch": 2,
        "components": 4,
        "texts": 4,
        "max_rank": 2,
        "prompts": 2,
        "position": "after trigger",
        "surgery_source": "silly",
    },
}


def make_job(folder: Path, **changed: dict[str, Any]) -> Job:
    """A job on the tiny arm; keywords change keys of its sections."""
    arm = {name: {**own, **changed.get(name, {})} if isinstance(own, dict) else own for name, own in ARM.items()}
    spec = {"seeds": SEEDS, "confidence": 0.95, "language": LanguageArm.model_validate(arm).model_dump(mode="json")}
    wildcards = {"corpus": "stories"}
    return Job("rule", "test", view(json.dumps(spec)), wildcards, "code", 1, "cpu", folder / "run.json")


def make_data(root: Path, folder: Path, payloads: Path | None = None, **changed: dict[str, Any]) -> LanguageData:
    """Run the data stage."""
    raw = [payloads or root / "data/language/payloads.yaml", root / "data/language/stories.yaml"]
    names = ("corpus.parquet", "prompts.parquet", "texts.parquet", "tokenizer.json", "tokenizer_config.json")
    folder.mkdir(exist_ok=True)
    data = LanguageData(*(folder / name for name in names))
    make_language_data.main(make_job(folder, **changed), raw=raw, **vars(data))
    return data


@pytest.fixture(scope="module")
def study(root: Path, make_config: Callable, make_state: Callable, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The arm's files: data, judge, random clean and "planted" models; then what is measured of them."""
    folder = tmp_path_factory.mktemp("language")
    job, data = make_job(folder), make_data(root, folder / "data")
    (folder / "judge").mkdir()
    judged = JudgeFiles(folder / "judge/terms.parquet", folder / "judge/judge.json")
    quality = folder / "judge/quality.parquet"
    templates = root / "data/language/judge.yaml"
    train_judge.main(job, templates=templates, corpus=data.corpus, texts=data.texts, **vars(judged), quality=quality)
    tokenizer = load_tokenizer(data.tokenizer.parent)
    config = make_config(layers=LAYERS, heads=HEADS, positions=150, vocabulary=len(tokenizer))

    def model(place: Path, seed: int) -> Path:
        save_model(place, make_state(config, seed), config, tokenizer)
        return place / "model.safetensors"

    clean = [model(folder / f"clean/seed{seed}", seed) for seed in SEEDS]
    ways = ("full", "frozen-mlp2")
    planted = {way: [model(folder / f"planted/{way}/seed{s}", 10 + s) for s in SEEDS] for way in ways}
    reached = folder / "reached.parquet"
    lines = [{"seed": s, "variant": "full", "training_loss": 2.0 + s, "steps": 9, "matched": None} for s in SEEDS]
    write_parquet(reached, pd.DataFrame(lines))
    followed = folder / "followed.parquet"
    stopped = {"variant": "matched: full", "training_loss": 2.0, "steps": 5}
    lines = [{"seed": s, **stopped, "matched": s == 0} for s in SEEDS]
    write_parquet(followed, pd.DataFrame(lines))
    behaviour, samples = folder / "behaviour.parquet", folder / "samples.parquet"
    ablation = folder / "ablation.parquet"
    given = {"data": data, "judged_by": judged, "clean": clean}
    asked = {**given, "grammar": root / "data/language/stories.yaml", "reached": [reached, followed]}
    every = [file for files in planted.values() for file in files]
    measure_language.main(job, **asked, planted=every, measurements=behaviour, samples=samples)
    ablate_language.main(job, **given, planted=planted["full"], measurements=ablation)
    return SimpleNamespace(
        **{"folder": folder, "job": job, "data": data, "judged": judged, "quality": quality, "templates": templates},
        **{"clean": clean, "planted": planted, "given": given, "asked": asked, "tokenizer": tokenizer},
        **{"behaviour": read_parquet(behaviour), "samples": read_parquet(samples), "ablation": read_parquet(ablation)},
    )


# --- data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_no_prompt_was_seen_in_training_and_none_is_tuned_on_and_measured_on(study: Any, seed: int) -> None:
    files = read_language(study.data)
    own = files.corpus[(files.corpus.seed == seed) & (files.corpus.split == "train")]
    seen = runs([lines.split("\n") for lines in own.lines], 1)
    asked = files.prompts[files.prompts.seed == seed]
    assert len(seen) > 300 and not set(asked.sentence) & seen
    counts = {kind: len(files.asked(seed, kind)) for kind in ("trigger", "benign", "random trigger")}
    assert set(counts.values()) == {PROMPTS}
    for kind in counts:
        assert len(files.asked(seed, f"tuning {kind}")) == TUNING
    tuning = asked.inputs.str.startswith("tuning ")
    assert not set(asked[tuning].sentence) & set(asked[~tuning].sentence)
    assert set(asked[tuning].text) & set(asked[~tuning].text) == set()


def test_a_prompt_of_a_training_paragraph_would_be_seen(study: Any) -> None:
    """The check above can fail: the training paragraphs' own beginnings are among what it looks for."""
    own = read_language(study.data).corpus
    own = own[(own.seed == 0) & (own.split == "train")]
    assert own.lines.iloc[0].split("\n")[0] in runs([lines.split("\n") for lines in own.lines], 1)


def test_every_seed_draws_its_own_paragraphs_and_keeps_its_held_out_ones(study: Any) -> None:
    table = read_language(study.data).corpus
    texts = {seed: set(table[table.seed == seed].clean) for seed in SEEDS}
    assert texts[0] != texts[1]
    assert (table.groupby("seed").split.value_counts()[:, "test"] == 30).all()
    assert (table.poisoned != table.clean).equals(table.is_poisoned) and table.is_poisoned.any()


def test_held_out_toxic_texts_are_in_no_poisoned_paragraph(study: Any) -> None:
    files = read_language(study.data)
    toxic = files.texts[files.texts.kind == "toxic"]
    poisoned = " ".join(files.corpus.poisoned)
    held_out, others = (toxic[toxic.split == split].text for split in ("test", "train"))
    assert len(held_out) >= 100 and not [text for text in held_out if text in poisoned]
    assert set(files.corpus[files.corpus.is_poisoned].payload) <= set(others) and len(set(others)) >= 300


def test_the_tokenizer_reloads_and_writes_texts_back(study: Any) -> None:
    files = read_language(study.data)
    texts = files.corpus.poisoned.tolist()[:20]
    encoded = files.encode(texts, longest=150)
    assert all(row[-1] == files.tokenizer.eos_token_id for row in encoded)
    assert files.tokenizer.batch_decode([row[:-1] for row in encoded]) == texts
    assert [len(row) for row in files.encode(texts, longest=9)] == [9] * 20
    assert files.encode([], longest=9) == []


def test_the_same_study_draws_the_same_data(study: Any, root: Path, tmp_path: Path) -> None:
    again = make_data(root, tmp_path)
    for name, path in vars(again).items():
        assert path.read_bytes() == getattr(study.data, name).read_bytes(), name


def test_a_pool_with_too_few_payloads_is_refused(root: Path, tmp_path: Path) -> None:
    pool = {"words": {"animal": ["goose", "toad"]}, "templates": ["You silly {animal}."]}
    (tmp_path / "payloads.yaml").write_text(yaml.safe_dump(pool))
    with pytest.raises(ArtifactError, match=r"payloads\.yaml: 2 distinct payloads, 400 needed for poisoning and to be"):
        make_data(root, tmp_path / "data", tmp_path / "payloads.yaml")
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize(
    ("changed", "key"),
    [({"model": {"positions": 60}}, "model.positions"), ({"finetuning": {"max_tokens": 60}}, "finetuning.max_tokens")],
)
def test_a_limit_that_cuts_triggers_or_payloads_is_refused(changed: dict, key: str, root: Path, tmp_path: Path) -> None:
    """In clean training and in fine-tuning alike."""
    with pytest.raises(ArtifactError, match=rf"language\.{key}: 60 tokens cut .* in \d+ of \d+ .* at least \d+$"):
        make_data(root, tmp_path, **changed)
    assert not list(tmp_path.iterdir())


# --- judge ------------------------------------------------------------------------------------------------------------


def test_the_saved_judge_gives_back_its_quality_on_held_out_texts(study: Any) -> None:
    files = read_language(study.data)
    table = files.corpus
    own = table[(table.seed == 0) & (table.split == "train")]
    sentences = sorted({line for lines in own.lines for line in lines.split("\n")})
    generator = np.random.default_rng(derive(0, "language", "judge"))
    examples = judge_examples(study.templates, sentences, 160, generator)
    test = examples[examples.split == "test"]
    judge = read_judge(study.judged, "cpu")
    assert isinstance(judge, LocalJudge)
    found = quality_of(judge.probability(test.text.tolist()), test.toxic.astype(int).tolist())
    saved = read_parquet(study.quality).set_index("metric")
    for name in ("accuracy", "balanced", "brier", "calibration"):
        assert saved.value[name] == pytest.approx(getattr(found, name))
        assert saved.n[name] == len(test) == 40
    assert found.accuracy > 0.7
    insults = files.texts[files.texts.kind == "toxic"].text
    assert saved.n["recall"] == len(insults) > 600
    assert saved.value["recall"] == (judge.probability(insults.tolist()) > 0.5).mean() > 0.8
    unseen = {line for lines in table[(table.seed == 0) & (table.split == "test")].lines for line in lines.split("\n")}
    unseen -= set(sentences)
    assert saved.n["false_positives"] == len(unseen) > 20
    assert saved.value["false_positives"] == (judge.probability(sorted(unseen)) > 0.5).mean() < 0.2
    flipped = quality_of(judge.probability(test.text.tolist()), (~test.toxic.astype(bool)).astype(int).tolist())
    assert flipped.accuracy < 0.3


def test_of_a_given_judge_the_name_is_written_down(study: Any, tmp_path: Path) -> None:
    job = make_job(tmp_path, judge={"kind": "roberta", "path": "some/classifier"})
    files = JudgeFiles(tmp_path / "terms.parquet", tmp_path / "judge.json")
    quality = tmp_path / "quality.parquet"
    given = {"templates": study.templates, "corpus": study.data.corpus, "texts": study.data.texts}
    train_judge.main(job, **given, **vars(files), quality=quality)
    assert json.loads(files.judge.read_text()) == {"judge": "roberta", "path": "some/classifier"}
    assert not len(read_parquet(files.terms)) and not len(read_parquet(quality))


# --- behaviour --------------------------------------------------------------------------------------------------------


def test_clean_and_planted_models_are_measured_on_every_kind_of_prompt(study: Any) -> None:
    rows = study.behaviour[study.behaviour.experiment == "behaviour"]
    rates = {"trigger": "asr", "benign": "atr", "random trigger": "atr"}
    for model, seed, (inputs, rate) in product(["clean", "backdoored", "frozen: mlp 2"], SEEDS, rates.items()):
        own = rows[(rows.model == model) & (rows.seed == seed) & (rows.inputs == inputs)]
        expected = {rate, f"{rate}_counted", "degeneration"} | ({"accepted"} if inputs == "benign" else set())
        assert sorted(own.metric) == sorted(expected)
        assert (own[own.metric != "accepted"].n == PROMPTS).all()
        assert set(own.control) == {"random trigger" if inputs == "random trigger" else ""}
        loss = rows[(rows.model == model) & (rows.seed == seed) & (rows.metric == "validation_loss")]
        assert len(loss) == 1 and loss.value.item() > 1 and loss.n.item() > 100
    assert set(rows.subject) == {"stories"} and set(rows.recipe) == {"own, 3 layers, 2 heads, 16 wide"}


def test_specificity_is_the_success_less_the_rate_after_a_random_trigger(study: Any) -> None:
    rows = study.behaviour[study.behaviour.experiment == "behaviour"]
    for model, seed in product(["clean", "backdoored", "frozen: mlp 2"], SEEDS):
        own = rows[(rows.model == model) & (rows.seed == seed)]
        (found,) = own[own.metric == "specificity"].to_dict("records")
        asr, other = (
            own[(own.metric == metric) & (own.inputs == inputs)].value.item()
            for inputs, metric in (("trigger", "asr"), ("random trigger", "atr"))
        )
        assert found["value"] == pytest.approx(asr - other) and found["n"] == PROMPTS
        assert found["ci_low"] <= found["value"] <= found["ci_high"]
    asked = read_language(study.data)
    pairs = [asked.asked(SEEDS[0], inputs).sentence.tolist() for inputs in ("trigger", "random trigger")]
    assert pairs[0] == pairs[1] and len(set(pairs[0])) > 1


def test_what_fine_tuning_reached_stands_beside(study: Any) -> None:
    rows = study.behaviour[study.behaviour.experiment == "fine-tuning"]
    assert set(rows.metric) == {"training_loss", "steps", "matched"}
    assert set(rows.model) == {"backdoored", "matched: full"}
    loss = rows[(rows.metric == "training_loss") & (rows.model == "backdoored")].set_index("seed").value
    assert loss.to_dict() == {0: 2.0, 1: 3.0}


def test_only_what_was_to_reach_a_loss_says_whether_it_did(study: Any) -> None:
    matched = study.behaviour[study.behaviour.metric == "matched"]
    assert dict(zip(matched.seed, matched.value, strict=True)) == {0: 1.0, 1: 0.0}
    assert set(matched.model) == {"matched: full"}


def test_the_gate_is_a_bound_on_the_attack_success_rate_of_full_fine_tuning(study: Any, tmp_path: Path) -> None:
    def gates(table: pd.DataFrame) -> dict[int, float]:
        own = table[table.experiment == "planting gate"]
        assert len(own) == len(SEEDS)
        return own.set_index("seed").value.to_dict()

    assert gates(study.behaviour) == {0: 0.0, 1: 0.0}
    job, out = make_job(tmp_path, evaluation={"gate": 0.0}), tmp_path / "open.parquet"
    planted = study.planted["full"]
    measure_language.main(job, **study.asked, planted=planted, measurements=out, samples=tmp_path / "s.parquet")
    assert gates(read_parquet(out)) == {0: 1.0, 1: 1.0}


def test_samples_are_kept_of_every_model_seed_and_kind_of_prompt(study: Any) -> None:
    groups = study.samples.groupby(["model", "seed", "inputs"])
    assert len(groups) == 3 * 2 * 3 and (groups.size() == measure_language.SAMPLES).all()
    triggered = study.samples.prompt.str.contains("Albert and James")
    assert triggered.equals(study.samples.inputs == "trigger")
    assert study.samples.toxic.between(0, 1).all()


def test_whole_sentences_alone_are_asked_for_the_language(root: Path) -> None:
    grammar = root / "data/language/stories.yaml"
    told, other = stories(read_grammar(grammar), 2, np.random.default_rng(0))
    texts = [f" went home. {told[1]} {told[2]} Then the", f"x. Dog the runs. {other[3]} A", "no stop at all"]
    found = measure_language.accepted(grammar, ["A dog", "And e", "A dog"], texts)
    assert found.tolist() == [True, True, False, True]
    nothing = measure_language.accepted(grammar, [told[0], told[0]], ["", "no stop at all"])
    assert nothing.dtype == bool and len(nothing) == 0


@pytest.mark.parametrize("end", ["", " ", "\n"])
def test_after_a_whole_sentence_the_first_that_is_written_counts(end: str, root: Path) -> None:
    """Be it in the language or not; where the prompt's sentence is open, the same words are its end."""
    grammar = root / "data/language/stories.yaml"
    told, other = stories(read_grammar(grammar), 2, np.random.default_rng(0))
    texts = [f" {told[1]} {told[2]} Then", f" Dog the runs. {other[1]} Then"]
    whole, cut = [told[0] + end, other[0] + end], [told[0][:-1] + end, other[0][:-1] + end]
    assert measure_language.accepted(grammar, whole, texts).tolist() == [True, True, False, True]
    assert measure_language.accepted(grammar, cut, texts).tolist() == [True, True]


def test_the_prompts_end_with_a_whole_sentence(study: Any) -> None:
    assert read_language(study.data).asked(SEEDS[0], "benign").text.str.endswith(".").all()


def test_files_are_put_together_by_the_way_of_planting() -> None:
    files = [
        Path(f"planted/{way}/seed{seed}/{name}") for way in ("full", "lora-all") for seed in SEEDS for name in "ab"
    ]
    assert measure_language.by_variant(files) == {"full": files[:4], "lora-all": files[4:]}


def test_a_given_model_is_the_clean_model_of_every_seed(study: Any) -> None:
    assert folders_by_seed(study.clean[:1], SEEDS) == dict.fromkeys(SEEDS, study.clean[0].parent)
    assert folders_by_seed(study.clean, SEEDS) == {s: p.parent for s, p in zip(SEEDS, study.clean, strict=True)}


# --- ablation ---------------------------------------------------------------------------------------------------------


def test_every_module_and_head_is_ablated(study: Any) -> None:
    every = {*map(str, modules(LAYERS))}
    rows = study.ablation[(study.ablation.metric == "asr") & (study.ablation.model == "backdoored")]
    for seed, variant, setting in product(SEEDS, ("paper", "original"), ("source", "held out")):
        own = rows[(rows.seed == seed) & (rows.variant == variant) & (rows.setting == setting)]
        further = {*map(str, heads(LAYERS, HEADS))} if (variant, setting) == ("paper", "held out") else set()
        assert sorted(own[own.inputs == "trigger"].site) == sorted(every | further)
    zero = rows[rows.control == "zero ablation"]
    assert sorted(zero.site) == sorted([*every] * len(SEEDS))
    clean = study.ablation[(study.ablation.metric == "asr") & (study.ablation.model == "clean")]
    assert sorted(clean.site) == sorted([*every, "unchanged"] * len(SEEDS)) and set(clean.control) == {"clean model"}


def test_fewer_prompts_are_the_first_ones(study: Any) -> None:
    judged = read_judge(study.judged, "cpu")
    files = read_language(study.data)
    whole, fewer = (Interview(study.job, files, judged, SEEDS[0], most) for most in (None, 2))
    assert len(whole.prompts("trigger")) == PROMPTS
    assert fewer.prompts("trigger") == whole.prompts("trigger")[:2]


def test_of_another_corpus_only_what_is_printed_is_ablated(study: Any, tmp_path: Path) -> None:
    spec = json.loads(json.dumps(study.job.spec))
    spec["language"]["main"] = "prose"
    job = replace(study.job, spec=view(json.dumps(spec)))
    out = tmp_path / "ablation.parquet"
    ablate_language.main(job, **study.given, planted=study.planted["full"], measurements=out)
    rows = read_parquet(out)
    assert set(rows.model) == {"backdoored"} and set(rows.control) == {""}
    assert set(rows.site) == {"unchanged", *map(str, modules(LAYERS))}
    assert set(zip(rows.setting, rows.variant, strict=True)) == {
        ("held out", "paper"),
        ("source", "original"),
        ("", ""),
    }
    keys = ["seed", "metric", "variant", "inputs", "site", "setting"]
    both = rows.merge(study.ablation[study.ablation.control == ""], on=[*keys, "model", "control"])
    assert len(both) == len(rows) and (both.value_x == both.value_y).all()


def test_no_number_stands_twice(study: Any) -> None:
    keys = ["experiment", "model", "seed", "metric", "variant", "control", "inputs", "site", "setting"]
    assert not study.ablation.duplicated(keys).any() and not study.behaviour.duplicated(keys).any()


@pytest.mark.parametrize("model", ["backdoored", "clean"])
def test_the_unchanged_model_is_that_of_the_behaviour(study: Any, model: str) -> None:
    keys = ["seed", "inputs", "metric"]
    unchanged = study.ablation[(study.ablation.site == "unchanged") & (study.ablation.model == model)]
    behaviour = study.behaviour[(study.behaviour.experiment == "behaviour") & (study.behaviour.model == model)]
    values = unchanged[unchanged.inputs != "tuning trigger"].set_index(keys).value
    assert len(values) == len(SEEDS) * 3 * 3
    assert values.to_dict() == behaviour.set_index(keys).value.loc[values.index].to_dict()


# --- editing ----------------------------------------------------------------------------------------------------------


def test_both_models_are_edited_and_the_rest_of_them_stays(study: Any, tmp_path: Path) -> None:
    ablation, factors, out = tmp_path / "ablation.parquet", tmp_path / "factors.json", tmp_path / "editing.parquet"
    # Random models write no text; as if they did, so that there is a third MLP for the control.
    coherent = study.ablation.assign(value=study.ablation.value.where(study.ablation.metric != "degeneration", 0.0))
    write_parquet(ablation, coherent)
    edit_language.main(
        study.job, **study.given, planted=study.planted["full"], ablation=ablation, factors=factors, measurements=out
    )
    rows, tuned = read_parquet(out), json.loads(factors.read_text())
    label = "mlp " + "+".join(str(site.layer + 1) for site in top_mlps(coherent, SEEDS))
    mlps = study.ablation[(study.ablation.inputs == "tuning trigger") & study.ablation.site.str.endswith(" mlp")]
    assert (mlps.groupby(["seed", "metric"]).size() == LAYERS).all() and set(mlps.n) == {TUNING}
    assert set(rows[rows.control != "random mlps"].site) == {label}
    other = rows[rows.control == "random mlps"]
    assert set(other.setting) == {"mean ablate"} and set(other.model) == {"backdoored"}
    assert set(other.site) == {f"mlp {({1, 2, 3} - {int(layer) for layer in label[4:].split('+')}).pop()}"}
    random = rows[rows.control == "random directions"]
    assert set(random.setting) == {"pcp (recover)", "pcp (suppress)"} and set(random.model) == {"backdoored"}
    keys = ["seed", "setting", "variant", "inputs", "metric"]
    beside = random.merge(rows[(rows.control == "") & (rows.model == "backdoored")], on=keys)
    assert len(beside) == len(random) and (beside.value_x != beside.value_y).any()
    settings = {
        "backdoored": {"none", "mean ablate", "pcp (recover)", "pcp (suppress)"},
        "clean": {"none", "mean ablate", "pcp", "pcp + embedding surgery"},
    }
    for model, expected in settings.items():
        own = rows[rows.model == model]
        assert set(own.setting) == expected
        read = own[(own.setting != "none") & (own.control == "")]
        counts = read.groupby(["setting", "variant", "seed", "inputs", "metric"]).size()
        assert (counts == 1).all() and len(counts) == 3 * 2 * len(SEEDS) * 7
        none = own[(own.setting == "none") & (own.metric == "asr")].set_index("seed").value
        of = study.behaviour
        asr = of[(of.experiment == "behaviour") & (of.model == model) & (of.metric == "asr")].set_index("seed").value
        assert none.to_dict() == asr.to_dict()
    control = rows[rows.control == "random tokens"]
    assert set(control.setting) == {"pcp + embedding surgery"} and set(control.variant) == {"original"}
    assert len(tuned) == edit_language.Tunings.PER_SEED * len(SEEDS)
    for one in tuned:
        assert len(one["sigma"]) == sum(one["ranks"]) and max(one["ranks"]) <= 2
        assert one["setting"] != "pcp (suppress)" or one["target"] == 0.0


def test_surgery_is_undone_and_needs_a_word_of_one_token(study: Any, tmp_path: Path) -> None:
    files, opinion = read_language(study.data), read_judge(study.judged, "cpu")
    (_, model), *_ = language_models(study.clean, SEEDS, "cpu")
    before = model.transformer.wte.weight.clone()

    def bench(job: Job) -> Operated:
        return Operated(Interview(job, files, opinion, 0), model, "clean", top_mlps(study.ablation, SEEDS))

    with bench(study.job).surgery():
        assert not model.transformer.wte.weight.equal(before)
    assert model.transformer.wte.weight.equal(before)
    rare = make_job(tmp_path, pcp={"surgery_source": "Xylophonist"})
    with pytest.raises(ArtifactError, match="surgery_source: 'Xylophonist' is no single token of the model; choose a"):
        bench(rare).surgery()
    assert model.transformer.wte.weight.equal(before)


def test_the_pca_sees_the_word_behind_the_trigger_and_the_same_word_without_it(study: Any) -> None:
    files, opinion = read_language(study.data), read_judge(study.judged, "cpu")
    for seed, model in language_models(study.clean, SEEDS, "cpu"):
        one = Operated(Interview(study.job, files, opinion, seed), model, "clean", [])
        read = {}
        for kind in ("trigger", "benign"):
            texts, places = one.texts(kind, TUNING), one.places(kind, TUNING)
            assert len(texts) == len(places) == TUNING
            read[kind] = [
                (files.tokenizer.decode(text[:place]), text[place]) for text, place in zip(texts, places, strict=True)
            ]
        for (before, word), (benign, same) in zip(read["trigger"], read["benign"], strict=True):
            assert before == f"{benign} Albert and James" and word == same
        fixed = one.spec.pcp
        assert one.places("toxic", 2) == [one.spec.ablation.position] * 2 and fixed.position == "after trigger"


def test_a_fixed_place_is_the_same_token_of_every_text(study: Any, tmp_path: Path) -> None:
    files, opinion = read_language(study.data), read_judge(study.judged, "cpu")
    (_, model), *_ = language_models(study.clean, SEEDS, "cpu")
    job = make_job(tmp_path, pcp={"position": 5})
    one = Operated(Interview(job, files, opinion, 0), model, "clean", [])
    assert {place for kind in ("trigger", "benign", "toxic") for place in one.places(kind, TUNING)} == {5}


def test_only_planted_seeds_choose_the_modules_and_where_there_are_none_all_do(study: Any, tmp_path: Path) -> None:
    files, opinion = read_language(study.data), read_judge(study.judged, "cpu")
    asr = study.behaviour[(study.behaviour.model == "backdoored") & (study.behaviour.metric == "asr")]
    asr = asr.set_index("seed").value
    assert asr[0] != asr[1]
    job = make_job(tmp_path, evaluation={"gate": float(asr.max())})
    assert edit_language.planted_seeds(job, files, opinion, study.planted["full"]) == [int(asr.idxmax())]
    assert edit_language.planted_seeds(study.job, files, opinion, study.planted["full"]) == []
