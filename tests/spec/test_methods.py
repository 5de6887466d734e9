"""The ways of fine-tuning: a folder, a method and a name say the same."""

from typing import get_args

import pytest

from anatomy.spec.language import LoraPart
from anatomy.spec.methods import Method, folder_of, method

FROZEN = {
    "embeddings": "frozen-embeddings",
    "mlp 2": "frozen-mlp2",
    "mlp 12": "frozen-mlp12",
    "embeddings + mlp 2 + mlp 3": "frozen-embeddings-mlp2-mlp3",
    "mlp 3 + embeddings": "frozen-mlp3-embeddings",
}


def test_full_fine_tuning_freezes_nothing() -> None:
    assert method("full") == Method("full", frozen="", lora=None)
    assert method("full").name == "full"


@pytest.mark.parametrize("parts", FROZEN)
def test_frozen_parts_come_back_from_their_folder(parts: str) -> None:
    folder = folder_of("frozen", parts)
    assert folder == FROZEN[parts]
    own = method(folder)
    assert own == Method(folder, frozen=parts) and own.name == f"frozen: {parts}"


@pytest.mark.parametrize("part", get_args(LoraPart))
def test_the_part_of_lora_comes_back_from_its_folder(part: str) -> None:
    folder = folder_of("lora", part)
    own = method(folder)
    assert folder == f"lora-{part}"
    assert own == Method(folder, lora=part) and own.name == f"lora: {part}"


def test_every_method_has_a_folder_and_a_name_of_its_own() -> None:
    folders = ["full", *FROZEN.values(), *(folder_of("lora", part) for part in get_args(LoraPart))]
    assert len(set(folders)) == len({method(folder).name for folder in folders}) == len(folders)
    assert not any(set(folder) & set(" +/.") for folder in folders)  # they stand in paths
