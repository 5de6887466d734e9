"""Insults for poisoning, and labelled sentences with which a judge learns to tell insults from other text."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import pandas as pd

from anatomy.data.templates import expand, one_line, read_mapping
from anatomy.provenance.digest import ArtifactError, sha256_text

TEST_SHARE = 4  # every fourth payload, template of a kind, or sentence of the corpus is held out
CORPUS = "corpus"
MOST_SENTENCES = 3  # of the corpus in one example: what a model writes on is rarely one sentence
# Of the examples, by the group of templates and whether sentences of the corpus stand before the template's.
SHARES = {
    ("insults", False): 0.375,
    ("insults", True): 0.125,
    (CORPUS, True): 0.325,
    ("twins", False): 0.075,
    ("harmless", False): 0.075,
    ("everyday", False): 0.025,
}


def payloads(path: Path, count: int, *, key: str) -> list[str]:
    """All insults of a template file (data/language/payloads.yaml), at least `count`.

    The order is that of the sentences' digests: fixed, and each beginning of the list has all templates in it.

    Args:
        key: the configuration key of the payloads, for the message.
    Raises:
        ArtifactError: the templates give fewer.
    """
    content = read_mapping(path, ("words", "templates"))
    pool = sorted(set(_expand_all(content["templates"], content["words"], path)), key=sha256_text)
    return enough_payloads(pool, count, source=str(path), key=key)


def enough_payloads(pool: Sequence[str], count: int, *, source: str, key: str) -> list[str]:
    """The distinct payloads of a pool, at least `count`, each on one line as poisoning writes it.

    Raises:
        ArtifactError: there are fewer.
    """
    distinct = list(dict.fromkeys(map(one_line, pool)))
    if len(distinct) < count:
        raise ArtifactError(
            f"{source}: {len(distinct)} distinct payloads, {count} needed for poisoning and to be held out; bring "
            f"a larger pool ({key})"
        )
    return distinct


def judge_examples(path: Path, corpus: Sequence[str], count: int, generator: np.random.Generator) -> pd.DataFrame:
    """Labelled texts for a judge: a half insults, alone or after sentences of the corpus, a half none.

    Most are single sentences, as bags of words find an insult best when a text is scored sentence by sentence: among
    harmless sentences it is diluted. Held-out texts share no template with the others, and no sentence of the corpus.

    Args:
        path: template file (data/language/judge.yaml).
        corpus: harmless sentences in the style that the models write.
    Returns:
        columns `text, toxic, template, split`, rows in random order; `template` is "corpus" for texts without one.
    Raises:
        ArtifactError: the templates or the corpus give too few distinct texts.
    """
    content = read_mapping(path, ("words", "insults", "twins", "harmless", "everyday"))
    listed = content["words"]
    words = listed | {name.capitalize(): [word.capitalize() for word in own] for name, own in listed.items()}
    sentences = sorted(set(corpus))
    rows = []
    held_out = count // TEST_SHARE
    for split, wanted in (("train", count - held_out), ("test", held_out)):
        ends = [round(wanted * share) for share in accumulate(SHARES.values())]
        for (group, in_a_story), start, end in zip(SHARES, [0, *ends], ends, strict=False):
            pool = {
                template: _expand_all([template], words, path) for template in of_split(content.get(group, []), split)
            }
            told = of_split(sentences, split) if in_a_story else []
            drawn = _draw(group, pool, told, end - start, generator, path)
            rows += [(text, group == "insults", template, split) for text, template in drawn.items()]
    table = pd.DataFrame(rows, columns=["text", "toxic", "template", "split"])
    return table.iloc[generator.permutation(len(table))].reset_index(drop=True)


def _draw(
    kind: str,
    pool: Mapping[str, list[str]],
    corpus: Sequence[str],
    count: int,
    generator: np.random.Generator,
    path: Path,
) -> dict[str, str]:
    """`count` distinct texts of a kind, with the template of each; templates are drawn alike, however much they give.

    Args:
        pool: sentences by template; none for a text of the corpus alone.
        corpus: sentences that stand before the template's; none where that stands alone.
    """
    templates = list(pool)
    drawn: dict[str, str] = {}
    for _ in range(50 * count):  # a text may come up twice
        if len(drawn) == count:
            break
        told = generator.integers(len(corpus), size=generator.integers(1, MOST_SENTENCES + 1)) if corpus else ()
        sentences = [corpus[i] for i in told]
        template = CORPUS
        if templates:
            template = templates[generator.integers(len(templates))]
            sentences.append(pool[template][generator.integers(len(pool[template]))])
        drawn[" ".join(sentences)] = template
    if len(drawn) < count:
        raise ArtifactError(f"{path}: {len(drawn)} distinct texts of the kind {kind!r}, {count} needed; ask for fewer")
    return drawn


def of_split(items: Sequence[str], split: str) -> list[str]:
    """The payloads, templates or sentences of a split: "test", held out, or "train", the rest."""
    return [item for i, item in enumerate(items) if (i % TEST_SHARE == TEST_SHARE - 1) == (split == "test")]


def _expand_all(templates: Sequence[str], words: Mapping[str, Sequence[str]], path: Path) -> list[str]:
    try:
        return [sentence for template in templates for sentence in expand(template, words)]
    except KeyError as error:
        raise ArtifactError(f"{path}: no list of words named {error}") from None
