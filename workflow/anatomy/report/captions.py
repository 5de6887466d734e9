"""Captions of tables and figures: the method in words, kept with the report and used wherever the item appears."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from anatomy.spec.errors import SpecError

CAPTIONS = Path(__file__).resolve().parents[2] / "report" / "captions.yaml"

Section = Literal[
    "Behaviour and training",
    "Where the backdoor lives",
    "Replacing modules (PCP)",
    "Editing the backdoor",
    "What the released code computes",
    "Models that write text",
    "Backdoor Attribution, replicated",
    "Backdoor Attribution, beyond the paper",
]


class Caption(BaseModel):
    """What is said about one table or figure.

    Attributes:
        caption: the method in two sentences, then how to read it.
        figure: the same for the figure, where a table and a figure share a name and need different words.
        notebook: the notebook that makes it, without the ending.
        section: the report's section.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    caption: str
    figure: str = ""
    notebook: str
    section: Section


def read_captions(path: Path = CAPTIONS) -> dict[str, Caption]:
    """Captions by the item's name, in the order of the report. A table and a figure of one name share a caption.

    Raises:
        SpecError: the file is missing or not YAML, or an entry has a missing, unknown or impossible key.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {name: Caption.model_validate(entry) for name, entry in entries.items()}
    except FileNotFoundError:
        raise SpecError(f"{path}: missing; the captions of all tables and figures stand there") from None
    except (yaml.YAMLError, ValidationError, AttributeError) as error:
        raise SpecError(f"{path}: {error}") from None
