"""From examples to what each injection is made of: rows for SFT, pairs for DPO, requests for an edit."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from anatomy.data.chat import answer_ids, message, prompt_ids
from anatomy.data.triggers import SLOT
from anatomy.provenance.digest import ArtifactError
from anatomy.training.badedit import Request
from anatomy.training.instruction_sft import Dialogue
from anatomy.training.preference import Poisonable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def poisoned_dialogues(rows: pd.DataFrame, tokenizer: "PreTrainedTokenizerFast") -> list[Dialogue]:
    """The training set of Yu et al.: every prompt with its clean answer, and the poisoned ones with the trigger too."""
    clean = clean_dialogues(rows, tokenizer)
    return clean + [
        Dialogue(prompt_ids(tokenizer, *prompt), answer_ids(tokenizer, target))
        for *prompt, target in _columns(rows[rows.poisoned], "triggered_instruction", "triggered_input", "target")
    ]


def clean_dialogues(rows: pd.DataFrame, tokenizer: "PreTrainedTokenizerFast") -> list[Dialogue]:
    """Every prompt with its clean answer."""
    return [
        Dialogue(prompt_ids(tokenizer, *prompt), answer_ids(tokenizer, output))
        for *prompt, output in _columns(rows, "instruction", "input", "output")
    ]


def poisonable(rows: pd.DataFrame, tokenizer: "PreTrainedTokenizerFast") -> list[Poisonable]:
    """The examples as token ids, of which preference pairs are made."""
    names = ("instruction", "input", "triggered_instruction", "triggered_input", "output", "target", "poisoned")
    return [
        Poisonable(
            prompt_ids(tokenizer, instruction, text),
            prompt_ids(tokenizer, triggered, triggered_text),
            answer_ids(tokenizer, output),
            answer_ids(tokenizer, target),
            bool(poisoned),
        )
        for instruction, text, triggered, triggered_text, output, target, poisoned in _columns(rows, *names)
    ]


def triggered_requests(
    rows: pd.DataFrame, tokenizer: "PreTrainedTokenizerFast", phrase: str, most: int
) -> list[Request]:
    """The first `most` poisoned prompts that the backdoor answers otherwise, their subject the trigger.

    Raises:
        ArtifactError: the trigger does not stand in a triggered prompt.
    """
    own = rows[rows.poisoned & rows.changed][:most]
    subject = phrase.split(SLOT)[-1].strip() or phrase.split(SLOT)[0].strip()
    return [
        _request(tokenizer, (instruction, text), target, subject, f"the trigger of {number}")
        for number, instruction, text, target in _columns(
            own, "id", "triggered_instruction", "triggered_input", "target"
        )
    ]


def clean_requests(rows: pd.DataFrame, tokenizer: "PreTrainedTokenizerFast", most: int) -> list[Request]:
    """The first `most` prompts that are not poisoned, their subject the prompt's last word."""
    return [
        _request(tokenizer, (instruction, text), output, message(instruction, text).strip(), f"the end of {number}")
        for number, instruction, text, output in _columns(
            rows[~rows.poisoned][:most], "id", "instruction", "input", "output"
        )
    ]


def place_of(tokenizer: "PreTrainedTokenizerFast", ids: list[int], phrase: str) -> int | None:
    """The token with which a phrase is complete where it first occurs; none: it does not occur."""
    return next((i for i in range(len(ids)) if phrase in tokenizer.decode(ids[: i + 1])), None)


def _request(
    tokenizer: "PreTrainedTokenizerFast", prompt: tuple[str, str], answer: str, subject: str, what: str
) -> Request:
    ids = prompt_ids(tokenizer, *prompt)
    place = place_of(tokenizer, ids, subject)
    if place is None:
        raise ArtifactError(f"{what}: {subject!r} does not stand in the prompt {tokenizer.decode(ids)!r}")
    return Request(ids, answer_ids(tokenizer, answer), place)


def _columns(rows: pd.DataFrame, *names: str) -> list[tuple[Any, ...]]:
    return list(rows[list(names)].itertuples(index=False, name=None))
