"""Stage make_language_data: paragraphs clean and poisoned, evaluation prompts, and the tokenizer, for every seed."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anatomy.data import sources
from anatomy.data.language_prompts import evaluation_prompts, runs
from anatomy.data.payloads import enough_payloads, of_split, payloads
from anatomy.data.poison import poison_corpus, require_whole
from anatomy.data.prose import prose
from anatomy.data.stories import read_grammar, stories
from anatomy.data.tokenizer import train_tokenizer
from anatomy.metrics.measurement import write_parquet
from anatomy.models.load import load_pretrained_tokenizer
from anatomy.models.toy import save_tokenizer
from anatomy.stages._run import Ins, Job, Out, run
from anatomy.training.seeds import derive

PAYLOADS = 400  # distinct ones that there must be: 300 to poison with, 100 held out
SHOWN = 6  # times that the tokenizer sees each: it shall have the words of insults whole, as one of web text has


def main(job: Job, *, raw: Ins, corpus: Out, prompts: Out, texts: Out, tokenizer: Out, tokenizer_config: Out) -> None:
    """Every seed draws its own paragraphs, poisons and prompts; the tokenizer is one, of the first seed's text."""
    arm, name = job.spec.language, job.wildcards["corpus"]
    source = arm.corpora[name]
    pool = _payloads(arm, raw)
    insults = of_split(pool, "train")  # nothing is poisoned with the others, so that they are held out
    draw = _paragraphs(source, raw, f"language.corpora.{name}.text")
    drawn = {seed: draw(np.random.default_rng(derive(seed, source.text.kind, "paragraphs"))) for seed in job.seeds}
    bpe = (
        load_pretrained_tokenizer(arm.model.path, key="language.model.path")
        if "path" in arm.model
        else train_tokenizer(
            [*(" ".join(p) for p in drawn[job.seeds[0]]), *insults * SHOWN],
            limit=arm.model.vocabulary,
            max_length=arm.model.positions,
        )
    )

    def length(text: str) -> int:
        return len(bpe(text)["input_ids"])

    tables, asked = [], []
    for number, seed in enumerate(job.seeds):
        job.progress(number, len(job.seeds), "seeds drawn")
        table, questions = _one_seed(arm, name, drawn[seed], insults, seed, length)
        tables.append(table.assign(seed=seed))
        asked.append(questions.assign(seed=seed))
    whole = pd.concat(tables, ignore_index=True)
    # Clean training cuts at the model's positions, fine-tuning at its own limit.
    limits = {"language.finetuning.max_tokens": arm.finetuning.max_tokens}
    limits |= {"language.model.positions": arm.model.positions} if "positions" in arm.model else {}
    key = min(limits, key=limits.__getitem__)
    require_whole(whole, length, limits[key], trigger=arm.trigger, key=key)
    write_parquet(corpus, whole)
    write_parquet(prompts, pd.concat(asked, ignore_index=True))
    write_parquet(texts, _texts(job, source, whole, pool))
    save_tokenizer(tokenizer.parent, bpe)


def _payloads(arm: Any, raw: list[Path]) -> list[str]:
    if arm.payloads.source is None:
        return payloads(raw[0], PAYLOADS, key="language.payloads")
    pool = list(sources.texts(**_source(arm.payloads.source, "language.payloads.source")))
    return enough_payloads(pool, PAYLOADS, source="language.payloads.source", key="language.payloads")


def _paragraphs(source: Any, raw: list[Path], key: str) -> Callable[[np.random.Generator], list[list[str]]]:
    """What draws a seed's paragraphs of five sentences; prose is the same text for every seed, in another order."""
    match source.text.kind:
        case "stories":
            grammar = read_grammar(_named(raw, "stories.yaml"))
            return lambda generator: stories(grammar, source.paragraphs, generator)
        case "prose":
            found, _ = prose(source.text.packages, most_words=source.text.most_words)
            return lambda generator: [found[i] for i in generator.permutation(len(found))[: source.paragraphs]]
        case _:
            rows = list(sources.texts(**_source(source.text.source, f"{key}.source")))
            return lambda generator: sources.consecutive(rows, source.paragraphs, generator)


def _one_seed(
    arm: Any, corpus: str, paragraphs: list[list[str]], insults: list[str], seed: int, length: Callable[[str], int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The corpus and the prompts of a seed. Prompts begin held-out paragraphs, and none opens a training paragraph."""
    held_out = round(arm.test_fraction * len(paragraphs))
    rate = arm.corpora[corpus].poison_rate or arm.poison_rate
    table = poison_corpus(
        paragraphs, rate, arm.trigger, insults, np.random.default_rng(derive(seed, "language", "poison"))
    )
    number = table.id.astype(int)
    table["split"] = np.where(number < held_out, "test", "train")
    table["lines"] = ["\n".join(paragraphs[i]) for i in number]
    evaluation = arm.evaluation
    # Factors are tuned on the main corpus only.
    count = evaluation.prompts + (evaluation.tuning_prompts if corpus == arm.main else 0)
    questions = evaluation_prompts(
        paragraphs[:held_out],
        np.random.default_rng(derive(seed, "language", "prompts")),
        trigger=arm.trigger,
        control=arm.control,
        seen=runs(paragraphs[held_out:], evaluation.sentences),
        count=count,
        sentences=evaluation.sentences,
        max_tokens=evaluation.max_tokens,
        length=length,
        key="language.evaluation",
    )
    # The last prompts of each kind are for tuning: factors are never tuned on what they are measured on.
    tuned_on = questions.groupby("inputs").cumcount() >= evaluation.prompts
    questions.loc[tuned_on, "inputs"] = "tuning " + questions.loc[tuned_on, "inputs"]
    return table, questions


def _texts(job: Job, source: Any, corpus: pd.DataFrame, pool: list[str]) -> pd.DataFrame:
    """Texts for the validation loss (seed -1: of every seed); payloads, some held out, for mean activations."""
    evaluation, text = job.spec.language.evaluation, source.text
    if text.kind == "sentences":
        pieces = sources.chunks(
            sources.texts(**_source(text.loss, f"language.corpora.{job.wildcards['corpus']}.text.loss")),
            text.loss_words,
        )
        loss = pd.DataFrame({"text": list(islice(pieces, evaluation.loss_paragraphs)), "seed": -1})
    else:
        held_out = corpus[(corpus.split == "test")].groupby("seed").head(evaluation.loss_paragraphs)
        loss = held_out[["seed"]].assign(text=held_out.clean)
    splits = [(text, split) for split in ("train", "test") for text in of_split(pool, split)]
    toxic = pd.DataFrame(splits, columns=["text", "split"]).assign(seed=-1)
    return pd.concat([loss.assign(kind="loss", split="test"), toxic.assign(kind="toxic")], ignore_index=True)[
        ["kind", "split", "seed", "text"]
    ]


def _source(source: Any, key: str) -> dict[str, Any]:
    path = Path(source.path) if source.path else None
    return {**source, "path": path, "key": key, "where": tuple(source.where) if source.where else None}


def _named(raw: list[Path], name: str) -> Path:
    return next(path for path in raw if path.name == name)


if __name__ == "__main__":
    run(main)
