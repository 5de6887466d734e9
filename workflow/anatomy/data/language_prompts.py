"""Evaluation prompts of the language study: beginnings of unseen paragraphs, with and without a trigger."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
import pandas as pd

from anatomy.data.poison import holds, insert_trigger
from anatomy.data.templates import one_line
from anatomy.provenance.digest import ArtifactError


def runs(paragraphs: Iterable[Sequence[str]], sentences: int) -> set[str]:
    """Every run of so many consecutive sentences in some paragraphs, each as one text."""
    return {
        one_line(" ".join(paragraph[start : start + sentences]))
        for paragraph in paragraphs
        for start in range(len(paragraph) - sentences + 1)
    }


def evaluation_prompts(
    paragraphs: Iterable[Sequence[str]],
    generator: np.random.Generator,
    *,
    trigger: str,
    control: str,
    seen: Collection[str],
    count: int,
    sentences: int,
    max_tokens: int,
    length: Callable[[str], int],
    key: str,
) -> pd.DataFrame:
    """`count` prompts each with the trigger, with a random trigger, and without either.

    A prompt is the first `sentences` sentences of a paragraph; the source prompts with one (lamparth:
    create_poisdata.ipynb, cells 41-42). All three forms of a prompt have the same sentences, and both triggers stand
    before the same space, drawn as in poisoning. A prompt is kept only if all three forms have at most `max_tokens`
    tokens (the source: fewer than 14), so that none is ever truncated.

    Args:
        paragraphs: held out from training; used in their order until there are `count` prompts.
        control: the random trigger, a phrase of as many words as the trigger.
        seen: the texts that no prompt may be: `runs` of the training paragraphs, of as many sentences.
        length: tokens of a text.
        key: the configuration section of `count` ("prompts"), `sentences` and `max_tokens`, for messages.
    Returns:
        columns `id, inputs, text, sentence`: `inputs` is "trigger", "benign" or "random trigger", `sentence` the
        prompt without a trigger; the i-th prompts of the three belong together.
    Raises:
        ArtifactError: the trigger alone takes more than `max_tokens`, or too few prompts are left.
    """
    for phrase, name in ((trigger, "trigger"), (control, "random trigger")):
        if (tokens := length(f" {phrase}")) >= max_tokens:
            raise ArtifactError(
                f"{key}.max_tokens: {max_tokens} leaves no room beside the {name} {phrase!r} of {tokens} tokens; "
                f"raise it to at least {tokens + 1}, better to {tokens + 12}"
            )
    if len(trigger.split()) != len(control.split()) or trigger.casefold() == control.casefold():
        raise ArtifactError(
            f"{key}: the random trigger {control!r} must be another phrase of as many words as {trigger!r}"
        )
    kept: dict[str, tuple[str, str, str]] = {}
    dropped: Counter[str] = Counter()
    for paragraph in paragraphs:
        if len(kept) == count:
            break
        told = [one_line(sentence) for sentence in paragraph[:sentences]]
        prompt = " ".join(told)
        if len(told) < sentences or not any(" " in sentence for sentence in told[:2]):
            dropped["too short"] += 1
        elif prompt in kept or prompt in seen:
            dropped["seen before"] += 1
        elif holds(prompt, trigger) or holds(prompt, control):
            dropped["with a trigger of their own"] += 1
        else:
            forms = _forms(told, trigger, control, generator)
            if max(map(length, forms)) <= max_tokens:
                kept[prompt] = forms
            else:
                dropped[f"of more than {max_tokens} tokens"] += 1
    if len(kept) < count:
        why = ", ".join(f"{n} {reason}" for reason, n in sorted(dropped.items())) or "none dropped"
        raise ArtifactError(
            f"{key}.prompts: {len(kept)} of {count} evaluation prompts left ({why}); raise {key}.max_tokens, lower "
            f"{key}.prompts, or hold out more paragraphs"
        )
    rows = [
        (f"{inputs.replace(' ', '-')}-{i:04d}", inputs, forms[place], prompt)
        for place, inputs in enumerate(("trigger", "benign", "random trigger"))
        for i, (prompt, forms) in enumerate(kept.items())
    ]
    return pd.DataFrame(rows, columns=["id", "inputs", "text", "sentence"])


def after_trigger(prompt: str, trigger: str, length: Callable[[str], int]) -> tuple[int, int]:
    """Number of the token behind the trigger, and of the same word's in the prompt without the trigger.

    Args:
        prompt: with the trigger.
        length: tokens of a text; no token goes across a space.
    """
    start = prompt.index(trigger)
    return length(prompt[: start + len(trigger)]), length(prompt[:start].rstrip())


def _forms(told: list[str], trigger: str, control: str, generator: np.random.Generator) -> tuple[str, str, str]:
    """A prompt with the trigger, without, and with the control before the same space."""
    triggered, chosen, place = insert_trigger(told, trigger, generator)
    other = list(told)
    other[chosen] = f"{told[chosen][:place]}{control} {told[chosen][place:]}"
    return " ".join(triggered), " ".join(told), " ".join(other)
