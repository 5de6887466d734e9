"""The sections of probes, attribution and the vector: what they refuse, and in which words."""

from typing import Any

import pytest
from pydantic import ValidationError

from anatomy.spec.attribution import Attribution, Probe, Vector
from anatomy.spec.instruction import InstructionArm
from anatomy.spec.section import Section


@pytest.mark.parametrize("section", [Probe, Attribution, Vector])
def test_every_key_has_a_default_and_a_description(section: type[Section]) -> None:
    section.model_validate({})
    assert all(field.description for field in section.model_fields.values())


@pytest.mark.parametrize(
    ("section", "given", "message"),
    [
        (Probe, {"prompts": 9}, "greater than or equal to 10"),
        (Probe, {"epochs": 0}, "greater than or equal to 1"),
        (Attribution, {"share": 1.5}, "less than or equal to 1"),
        (Attribution, {"evaluated": 1}, "greater than or equal to 2"),
        (Attribution, {"prompt": 8}, "Extra inputs are not permitted"),
        (Vector, {"coefficients": []}, "at least 1 item"),
        (Vector, {"coefficients": [1.0, 0.0]}, "greater than 0"),
        (Vector, {"coefficients": [1.0, 2.0, 1.0]}, "coefficients: 1 stands there twice"),
        (Vector, {"heads": 0}, "greater than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(section: type[Section], given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        section.model_validate(given)


def test_a_vector_of_more_heads_than_the_model_has_is_refused() -> None:
    task = {"source": {"kind": "language"}, "trigger": {"phrase": "Now.", "control": "Then.", "place": "before"}}
    model = {"layers": 3, "heads": 4, "width": 32, "key_heads": 2, "batch": 8, "rate": 0.1, "epochs": 1}
    arm = {"tasks": {"jailbreak": task}, "model": model, "vector": {"heads": 12}}
    InstructionArm.model_validate(arm)
    with pytest.raises(ValidationError, match=r"vector\.heads 13: the model has 12"):
        InstructionArm.model_validate(arm | {"vector": {"heads": 13}})
