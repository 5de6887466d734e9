"""Sentence templates with slots, and the YAML files that hold them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from anatomy.provenance.digest import ArtifactError

SLOT = re.compile(r"\{(\w+)\}")
SPACE = re.compile(r"\s+")


def read_mapping(path: Path, keys: Iterable[str]) -> dict[str, Any]:
    """A YAML file as a mapping that has all of `keys`.

    Raises:
        ArtifactError: the file is missing, no YAML, no mapping, or lacks a key.
    """
    expected = ", ".join(keys)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; expected a YAML file with the keys {expected}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ArtifactError(f"{path}: cannot be read as YAML ({error})") from None
    if not isinstance(content, dict) or (lacking := [key for key in keys if key not in content]):
        found = f"lacks {', '.join(lacking)}" if isinstance(content, dict) else "is no mapping"
        raise ArtifactError(f"{path}: {found}; expected a mapping with the keys {expected}")
    return content


def expand(template: str, words: Mapping[str, Sequence[str]]) -> list[str]:
    """Every sentence that a template gives, in the order of its words; a slot that stands twice takes one word."""
    slots = list(dict.fromkeys(SLOT.findall(template)))
    return [fill(template, dict(zip(slots, chosen, strict=True))) for chosen in product(*(words[s] for s in slots))]


def fill(template: str, chosen: Mapping[str, str]) -> str:
    """The template with each slot's word."""
    return SLOT.sub(lambda slot: chosen[slot[1]], template)


def one_line(text: str) -> str:
    """A text without white space at its ends and with single spaces inside."""
    return SPACE.sub(" ", text).strip()
