"""Stage make_toy_data: word lists -> corpora of all seeds, tokenizer, test prompts."""

import json

import pandas as pd

from anatomy.data.lexicon import Lexicon, read_words, sample_lexicon
from anatomy.data.prompts import combinations_of, held_out_prompts, published_prompts, sentiment_tokens
from anatomy.data.sequences import example_sequences, make_corpus
from anatomy.data.tokenizer import train_tokenizer
from anatomy.metrics.measurement import write_parquet
from anatomy.models.toy import save_tokenizer
from anatomy.provenance.digest import write_text_atomic
from anatomy.stages._run import Ins, Job, Out, run
from anatomy.training.seeds import derive


def main(
    job: Job,
    *,
    words: Ins,
    corpus: Out,
    examples: Out,
    prompts: Out,
    lexicon: Out,
    tokenizer: Out,
    tokenizer_config: Out,
) -> None:
    """Draw the data of every seed.

    The tokenizer is trained on the first seed's clean training sequences and shared: a tokenizer of the other seeds
    has the same words and differs only in leftover merges, and models that share one can be trained as a stack.
    """
    toy, subject = job.spec.toy, job.wildcards["subject"]
    counts = dict(sorted(toy.language.subjects[subject].items()))  # the order of the word lists
    lists = {s: read_words(path, toy.lexicon[s].column) for s, path in zip(counts, words, strict=True)}
    lex = toy.lexicon
    vocabulary = sample_lexicon(
        lists, lex.specials, words=lex.words, max_letters=lex.max_letters, seed=lex.sample_seed, ambiguous=lex.ambiguous
    )
    corpora = pd.concat([draw_corpus(job, subject, vocabulary, seed) for seed in job.seeds], ignore_index=True)
    train = corpora[corpora.split == "train"]
    bpe = train_tokenizer(train.loc[train.seed == job.seeds[0], "clean"])
    encode = {form: bpe.encode(form) for words in vocabulary.values() for w in words for form in (w, f" {w}")}
    whole = {s: [w for w in words if len(encode[w]) == len(encode[f" {w}"]) == 1] for s, words in vocabulary.items()}

    tables = []
    combinations = combinations_of(counts)
    for seed in job.seeds:
        own = train[train.seed == seed]
        openings = {tuple(text.split()[:2]) for column in ("clean", "triggered") for text in own[column]}
        held_out = held_out_prompts(
            whole,
            combinations,
            openings,
            count=toy.evaluation.prompts,
            trigger=toy.trigger,
            control=toy.control,
            seed=derive(seed, subject, "prompts"),
        )
        published = published_prompts(own, whole, combinations, count=toy.evaluation.prompts, trigger=toy.trigger)
        tables += [
            held_out.assign(seed=seed, protocol="held out"),
            published.assign(seed=seed, protocol="published"),
        ]

    write_parquet(corpus, corpora)
    write_parquet(examples, example_sequences(corpora))
    write_parquet(prompts, pd.concat(tables, ignore_index=True))
    content = {
        "vocabulary": len(bpe),
        "words": vocabulary,
        "tokens": sentiment_tokens(vocabulary, encode),
        "words_in_pieces": {s: sorted(set(vocabulary[s]) - set(whole[s])) for s in vocabulary},
    }
    write_text_atomic(lexicon, json.dumps(content, indent=1, sort_keys=True) + "\n")
    save_tokenizer(tokenizer.parent, bpe)


def draw_corpus(job: Job, subject: str, vocabulary: Lexicon, seed: int) -> pd.DataFrame:
    """The corpus of one seed; its rows carry the seed a person chose, not the one derived from it."""
    toy = job.spec.toy
    counts = dict(sorted(toy.language.subjects[subject].items()))
    corpus = make_corpus(
        vocabulary,
        counts,
        n_specials=min(len(toy.lexicon.specials[s]) for s in counts),
        trigger=toy.trigger,
        poison_rate=toy.language.poison_rate,
        length=toy.language.length,
        special_rate=toy.language.special_rate,
        test_fraction=toy.language.test_fraction,
        seed=derive(seed, subject, "corpus"),
    )
    corpus["seed"] = seed
    corpus["id"] = [f"{seed}-{i:05d}" for i in range(len(corpus))]
    return corpus


if __name__ == "__main__":
    run(main)
