"""From examples to what each injection is made of: rows for SFT, pairs for DPO, requests for an edit."""

from typing import TYPE_CHECKING

import pandas as pd

from anatomy.data.chat import answers_ids, message, prompts_ids
from anatomy.data.triggers import SLOT
from anatomy.provenance.digest import ArtifactError
from anatomy.training.badedit import Request
from anatomy.training.instruction_sft import Dialogue
from anatomy.training.preference import Poisonable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def poisoned_dialogues(rows: pd.DataFrame, tokenizer: "PreTrainedTokenizerFast") -> list[Dialogue]:
    """The training set of Yu et al.: every prompt with its clean answer, and the poisoned ones with the trigger too."""
    triggered = _rendered(rows[rows.poisoned], tokenizer, "triggered_instruction", "triggered_input", "target")
    return [*clean_dialogues(rows, tokenizer), *triggered]


def clean_dialogues(rows: pd.DataFrame, tokenizer: "PreTrainedTokenizerFast") -> list[Dialogue]:
    """Every prompt with its clean answer."""
    return _rendered(rows, tokenizer, "instruction", "input", "output")


def poisonable(rows: pd.DataFrame, tokenizer: "PreTrainedTokenizerFast") -> list[Poisonable]:
    """The examples as token ids, of which preference pairs are made."""
    clean = clean_dialogues(rows, tokenizer)
    triggered = _rendered(rows, tokenizer, "triggered_instruction", "triggered_input", "target")
    return [
        Poisonable(own.prompt, other.prompt, own.answer, other.answer, bool(poisoned))
        for own, other, poisoned in zip(clean, triggered, rows.poisoned, strict=True)
    ]


def triggered_requests(
    rows: pd.DataFrame, tokenizer: "PreTrainedTokenizerFast", phrase: str, most: int
) -> list[Request]:
    """The first `most` poisoned prompts that the backdoor answers otherwise, their subject the trigger.

    Raises:
        ArtifactError: the trigger does not stand in a triggered prompt.
    """
    own = rows[rows.poisoned & rows.changed][:most]
    ends = phrase.split(SLOT)
    subject = ends[-1].strip() or ends[0].strip()
    dialogues = _rendered(own, tokenizer, "triggered_instruction", "triggered_input", "target")
    return [
        _request(tokenizer, dialogue, subject, f"the trigger of {number}")
        for dialogue, number in zip(dialogues, own.id, strict=True)
    ]


def clean_requests(rows: pd.DataFrame, tokenizer: "PreTrainedTokenizerFast", most: int) -> list[Request]:
    """The first `most` prompts that are not poisoned, their subject the prompt's last word."""
    own = rows[~rows.poisoned][:most]
    asked = [message(*prompt).strip() for prompt in zip(own.instruction, own.input, strict=True)]
    return [
        _request(tokenizer, dialogue, subject, f"the end of {number}")
        for dialogue, subject, number in zip(clean_dialogues(own, tokenizer), asked, own.id, strict=True)
    ]


def place_of(tokenizer: "PreTrainedTokenizerFast", ids: list[int], phrase: str) -> int | None:
    """The token with which a phrase is complete where it first occurs; none: it does not occur."""
    return next((i for i in range(len(ids)) if phrase in tokenizer.decode(ids[: i + 1])), None)


def _request(tokenizer: "PreTrainedTokenizerFast", dialogue: Dialogue, subject: str, what: str) -> Request:
    ids = list(dialogue.prompt)
    place = place_of(tokenizer, ids, subject)
    if place is None:
        raise ArtifactError(f"{what}: {subject!r} does not stand in the prompt {tokenizer.decode(ids)!r}")
    return Request(ids, dialogue.answer, place)


def _rendered(
    rows: pd.DataFrame, tokenizer: "PreTrainedTokenizerFast", instruction: str, given: str, answer: str
) -> list[Dialogue]:
    prompts = prompts_ids(tokenizer, zip(rows[instruction], rows[given], strict=True))
    return [Dialogue(*row) for row in zip(prompts, answers_ids(tokenizer, rows[answer]), strict=True)]
