"""The ways of fine-tuning a language model on poisoned text, and how they are named."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anatomy.spec.language import LoraPart


@dataclass(frozen=True)
class Method:
    """How the weights may move: everything, everything but the frozen parts, or LoRA's few directions.

    `matched` is full fine-tuning once more, up to the training loss of the LoRA that it is compared with.
    `folder` names the method in paths, `name` in tables.
    """

    folder: str
    frozen: str = ""
    lora: "LoraPart | None" = None
    matched: bool = False

    @property
    def name(self) -> str:
        """ "full", "frozen: embeddings + mlp 2", "lora: attention", "matched: full"."""
        if self.matched:
            return "matched: full"
        return f"lora: {self.lora}" if self.lora else f"frozen: {self.frozen}" if self.frozen else "full"


def folder_of(kind: str, what: str) -> str:
    """The folder of a method: ("frozen", "embeddings + mlp 2") -> "frozen-embeddings-mlp2"."""
    return "-".join([kind, *what.replace("mlp ", "mlp").split(" + ")])


def method(folder: str) -> Method:
    """The method that a folder's name says: "full", "frozen-embeddings-mlp2", "lora-attention", "matched-full"."""
    kind, *parts = folder.split("-")
    if kind == "lora":
        return Method(folder, lora=parts[0])  # type: ignore[arg-type]
    if kind == "matched":
        return Method(folder, matched=True)
    return Method(folder, frozen=" + ".join(re.sub(r"^mlp(\d+)$", r"mlp \1", part) for part in parts))
