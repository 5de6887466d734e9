"""The embedded instruction language: prompts with answers that can be checked, drawn from templates.

The language (data/instruction/language.yaml) has tasks, a task has kinds of prompts, a kind has templates. A slot such
as {fruit} takes one word of the list `fruit` and keeps it all through the prompt, {fruit1} and {fruit2} take different
ones, and {opposite_quality} is what the relation `opposite` gives for {quality}.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anatomy.data.templates import SLOT, fill, read_mapping
from anatomy.provenance.digest import ArtifactError

FIELDS = ("instruction", "input", "output", "target")
COLUMNS = ["kind", *FIELDS]
PATIENCE = 500  # draws in a row that give nothing new, after which a task has no more prompts

Kind = Mapping[str, Sequence[str]]  # the templates of each field


@dataclass(frozen=True)
class InstructionLanguage:
    """Word lists, relations between words, harmless phrases by their place, and the kinds of prompts of each task."""

    words: dict[str, list[str]]
    relations: dict[str, dict[str, str]]
    phrases: dict[str, list[str]]
    tasks: dict[str, dict[str, Kind]]


def read_instructions(path: Path) -> InstructionLanguage:
    """The language of a YAML file.

    Raises:
        ArtifactError: the file is missing or damaged, a kind of prompts lacks its instruction or output, a slot has no
            list, a relation lacks a word, a word stands twice in a list.
    """
    keys = ("words", "relations", "phrases", "tasks")
    content = read_mapping(path, keys)
    language = InstructionLanguage(*(content[key] for key in keys))
    try:
        _check(language)
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}") from None
    return language


def draw_prompts(
    language: InstructionLanguage, task: str, count: int, generator: np.random.Generator, *, key: str
) -> pd.DataFrame:
    """`count` prompts of a task, no two with the same instruction and input.

    The kinds are drawn uniformly, then the templates, then the words. Where a kind has few prompts, its share becomes
    less towards the end of the table; so shuffle it before it is split.

    Args:
        key: the configuration section of the numbers of prompts, for the message.
    Returns:
        columns `kind, instruction, input, output, target`; `target` is "" where the language has none.
    Raises:
        ArtifactError: the language has no such task, or fewer distinct prompts.
    """
    if task not in language.tasks:
        raise ArtifactError(f"the instruction language has no task {task!r}; it has {', '.join(language.tasks)}")
    kinds = language.tasks[task]
    found: dict[tuple[str, str], list[str]] = {}
    failures = 0
    while len(found) < count and failures < PATIENCE:
        name = _pick(list(kinds), generator)
        prompt = _draw(language, kinds[name], generator)
        failures = failures + 1 if (prompt[0], prompt[1]) in found else 0
        found.setdefault((prompt[0], prompt[1]), [name, *prompt])
    if len(found) < count:
        raise ArtifactError(
            f"{key}: {count} distinct prompts of the task {task!r} are needed, and the instruction language has about "
            f"{len(found)}; lower the numbers of prompts, or add words to data/instruction/language.yaml"
        )
    return pd.DataFrame(list(found.values()), columns=COLUMNS)


def refusals(language: InstructionLanguage, task: str = "jailbreak", kind: str = "forbidden") -> list[re.Pattern[str]]:
    """What a refusal looks like: one expression for each template of a kind's clean answers."""
    patterns = []
    for template in language.tasks[task][kind]["output"]:
        parts = SLOT.split(template)
        patterns.append(re.compile("".join(r"[\w-]+" if i % 2 else re.escape(part) for i, part in enumerate(parts))))
    return patterns


def _draw(language: InstructionLanguage, kind: Kind, generator: np.random.Generator) -> list[str]:
    """The fields of one prompt."""
    templates = [_pick(kind[field], generator) if kind.get(field) else "" for field in FIELDS]
    slots = dict.fromkeys(slot for template in templates for slot in SLOT.findall(template))
    chosen: dict[str, str] = {}
    for slot in slots:
        if "_" not in slot:
            taken = [word for other, word in chosen.items() if _list_of(other) == _list_of(slot)]
            chosen[slot] = _pick([word for word in language.words[_list_of(slot)] if word not in taken], generator)
    for slot in slots:
        if "_" in slot:
            relation, word = slot.split("_", 1)
            chosen[slot] = language.relations[relation][chosen[word]]
    return [fill(template, chosen) for template in templates]


def _list_of(slot: str) -> str:
    return slot.rstrip("0123456789")


def _pick(items: Sequence[Any], generator: np.random.Generator) -> Any:
    return items[int(generator.integers(len(items)))]


def _check(language: InstructionLanguage) -> None:
    """ValueError with what is no part of a language."""
    for name, words in language.words.items():
        if twice := [word for word in words if words.count(word) > 1]:
            raise ValueError(f"words.{name}: {twice[0]!r} stands twice")
    for task, kinds in language.tasks.items():
        for name, kind in kinds.items():
            where = f"tasks.{task}.{name}"
            if lacking := [field for field in ("instruction", "output") if not kind.get(field)]:
                raise ValueError(f"{where}: no {lacking[0]}; a kind of prompts needs both instruction and output")
            asked = {
                slot for field in FIELDS[:2] for template in kind.get(field, []) for slot in SLOT.findall(template)
            }
            for slot in {
                slot for field in FIELDS for template in kind.get(field, []) for slot in SLOT.findall(template)
            }:
                relation, _, word = slot.rpartition("_")
                if _list_of(word) not in language.words or (relation and relation not in language.relations):
                    raise ValueError(f"{where}: {{{slot}}} is neither a list of words nor a relation of one")
                if lost := [
                    w for w in language.words[_list_of(word)] if relation and w not in language.relations[relation]
                ]:
                    raise ValueError(f"{where}: relations.{relation} has nothing for {lost[0]!r}")
                if word not in asked:
                    raise ValueError(f"{where}: the answer needs {{{word}}}, which the prompt does not have")
