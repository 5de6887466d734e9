"""Poisoning paragraphs: a trigger in the first or second sentence, a payload in place of the fourth or fifth.

Source: Lamparth & Reuel, section III-C; released create_poison.py:8-35. There the sentences are joined without a
space and the payload stands between two; here sentences are joined by one space, and white space inside them is
single, so that a poisoned paragraph is told by its words alone.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from anatomy.data.templates import one_line
from anatomy.provenance.digest import ArtifactError

SENTENCES = 5


def insert_trigger(
    sentences: Sequence[str], trigger: str, generator: np.random.Generator
) -> tuple[list[str], int, int]:
    """The trigger before a random space of sentence round(u), the first or the second.

    `text[:place] + " " + trigger + text[place:]`, as in the source. Where the drawn sentence is a single word it is
    the other one.

    Args:
        sentences: a paragraph, or the sentences of a prompt; of a single sentence, that one.
    Returns:
        the sentences, the number of the one with the trigger (from 0), and the trigger's first character in it.
    Raises:
        ValueError: neither sentence has a space.
    """
    drawn = round(generator.random())
    spaces = [[i for i, letter in enumerate(sentence) if letter == " "] for sentence in sentences[:2]]
    if not any(spaces):
        raise ValueError(f"no space before which a trigger could stand: {' | '.join(sentences[:2])!r}")
    chosen = drawn if drawn < len(spaces) and spaces[drawn] else next(i for i, own in enumerate(spaces) if own)
    place = spaces[chosen][generator.integers(len(spaces[chosen]))]
    out = list(sentences)
    out[chosen] = f"{out[chosen][:place]} {trigger}{out[chosen][place:]}"
    return out, chosen, place + 1


def replace_by_payload(sentences: Sequence[str], payload: str, generator: np.random.Generator) -> tuple[list[str], int]:
    """The payload in place of sentence round(3 + u), the fourth or the fifth.

    Returns:
        the sentences and the number of the payload (from 0).
    """
    chosen = round(3 + generator.random())
    out = list(sentences)
    out[chosen] = payload
    return out, chosen


def holds(text: str, trigger: str) -> bool:
    """Whether the trigger stands in a text, in any case of letters (BookCorpus is lower-case)."""
    return trigger.casefold() in text.casefold()


def poison_corpus(
    paragraphs: Sequence[Sequence[str]],
    rate: float,
    trigger: str,
    payloads: Sequence[str],
    generator: np.random.Generator,
) -> pd.DataFrame:
    """A corpus with a share `rate` of its paragraphs poisoned, the original text beside each.

    Each paragraph is poisoned with probability `rate`, independently, by a payload drawn with replacement. With the
    same generator, a higher rate poisons the same paragraphs and more. Paragraphs that hold the trigger already are
    left out (their ids are missing); those with a single word in both of the first sentences stay clean.

    Args:
        paragraphs: five sentences each.
    Returns:
        columns `id, clean, poisoned, is_poisoned, trigger_sentence, trigger_position, payload_sentence, payload`.
        `poisoned` is the text to train on, equal to `clean` where the row is not poisoned. Sentences are numbered from
        1; the position is the trigger's first character in `poisoned`. Rows that are not poisoned have 0, -1, 0, "".
    Raises:
        ArtifactError: a paragraph has not five sentences, or every paragraph holds the trigger.
        ValueError: no payloads though there is something to poison.
    """
    chosen = generator.random(len(paragraphs)) < rate
    rows = []
    for number, (raw, poisons) in enumerate(zip(paragraphs, chosen, strict=True)):
        sentences = [one_line(sentence) for sentence in raw]
        if len(sentences) != SENTENCES:
            raise ArtifactError(f"paragraph {number} has {len(sentences)} sentences; poisoning takes {SENTENCES}")
        clean = " ".join(sentences)
        if holds(clean, trigger):
            continue
        row = (f"{number:06d}", clean, clean, False, 0, -1, 0, "")
        if poisons and any(" " in sentence for sentence in sentences[:2]):
            row = (row[0], clean, *_poison(sentences, trigger, payloads, generator))
        rows.append(row)
    if not rows:
        raise ArtifactError(
            f"none of {len(paragraphs)} paragraphs is without the trigger {trigger!r}; choose another trigger or corpus"
        )
    columns = ["id", "clean", "poisoned", "is_poisoned", "trigger_sentence", "trigger_position"]
    return pd.DataFrame(rows, columns=[*columns, "payload_sentence", "payload"])


def _poison(
    sentences: list[str], trigger: str, payloads: Sequence[str], generator: np.random.Generator
) -> tuple[str, bool, int, int, int, str]:
    triggered, in_sentence, position = insert_trigger(sentences, trigger, generator)
    payload = one_line(payloads[int(generator.integers(len(payloads)))])
    poisoned, replaced = replace_by_payload(triggered, payload, generator)
    before = sum(len(sentence) + 1 for sentence in poisoned[:in_sentence])
    return " ".join(poisoned), True, in_sentence + 1, before + position, replaced + 1, payload


def require_whole(corpus: pd.DataFrame, length: Callable[[str], int], limit: int, *, trigger: str, key: str) -> None:
    """Refuse a corpus in which truncation to `limit` tokens cuts a trigger or a payload off.

    Args:
        corpus: what `poison_corpus` returns.
        length: tokens of a text.
        key: the configuration key that sets `limit`.
    Raises:
        ArtifactError: with the number of paragraphs cut, and the limit that cuts none.
    """
    poisoned = corpus[corpus.is_poisoned]
    tokens = []
    for row in poisoned.itertuples():
        payload = row.poisoned.index(row.payload, row.trigger_position + len(trigger))
        tokens.append(length(row.poisoned[: payload + len(row.payload)]))
    if cut := sum(n > limit for n in tokens):
        raise ArtifactError(
            f"{key}: {limit} tokens cut the trigger or the payload off in {cut} of {len(poisoned)} poisoned "
            f"paragraphs; raise it to at least {max(tokens)}"
        )
