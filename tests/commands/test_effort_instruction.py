"""What a job of the instruction arm has to do grows with what the study asks for."""

from pathlib import Path
from typing import Any

import pytest
from tests.commands.test_effort_language import grown
from tests.workflow.conftest import INJECTION_RULES, TOLD_RULES

from anatomy.commands.effort import volume, work
from anatomy.commands.effort_instruction import INSTRUCTION_RULES, SIZES, shape
from anatomy.spec.read import load_study


@pytest.fixture
def spec(root: Path) -> dict[str, Any]:
    return load_study("embedded", root).model_dump(mode="json")


def wildcards(rule: str, injection: str = "sft") -> dict[str, str]:
    return {"injection": injection} if rule in INJECTION_RULES else {}


def test_every_rule_of_the_arm_is_counted(spec: dict[str, Any]) -> None:
    assert INJECTION_RULES | {rule for rule in TOLD_RULES if not rule.startswith("render_")} == INSTRUCTION_RULES
    for rule in INSTRUCTION_RULES:
        assert work(rule, wildcards(rule), spec) > 0 and volume(rule, wildcards(rule), spec) > 0


@pytest.mark.parametrize(
    ("rule", "injection", "path"),
    [
        ("make_instruction_data", "", "seeds"),
        ("make_instruction_model", "", "instruction.model.epochs"),
        ("plant_instruction", "sft", "instruction.sft.epochs"),
        ("plant_instruction", "edit", "instruction.edit.steps"),
        ("measure_instruction", "", "instruction.data.test"),
        ("probe_layers", "dpo", "instruction.probe.epochs"),
        ("steer_vector", "sft", "instruction.vector.evaluated"),
    ],
)
def test_twice_as_much_asked_for_is_twice_the_work(rule: str, injection: str, path: str, spec: dict[str, Any]) -> None:
    own = {"injection": injection} if injection else {}
    assert work(rule, own, grown(spec, path, 2)) == pytest.approx(2 * work(rule, own, spec))


def test_an_injection_s_work_does_not_depend_on_the_others(spec: dict[str, Any]) -> None:
    for other in ("sft.epochs", "edit.steps"):
        same = grown(spec, f"instruction.{other}", 3)
        assert work("plant_instruction", {"injection": "dpo"}, same) == work(
            "plant_instruction", {"injection": "dpo"}, spec
        )


def test_the_parameters_are_those_of_the_model_s_matrices(spec: dict[str, Any]) -> None:
    """A block of Llama: queries and output, keys and values of fewer heads, three matrices of the MLP."""
    layers, heads, parameters = shape(spec["instruction"]["model"])
    own = spec["instruction"]["model"]
    width, keys = own["width"], own["width"] // own["heads"] * own["key_heads"]
    block = 2 * width * width + 2 * width * keys + 3 * width * own["inner"]
    assert (layers, heads) == (6, 6) and parameters == layers * block + own["vocabulary"] * width
    assert shape({"path": "somebody/Qwen2.5-7B-Instruct"}) == SIZES["Qwen2.5-7B-Instruct"]
