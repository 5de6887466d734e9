"""Where a trigger stands in a prompt, and examples: each prompt as it is, with the trigger, and with another phrase."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from anatomy.data.chat import answers_ids, prompts_ids
from anatomy.data.poison import holds
from anatomy.provenance.digest import ArtifactError

SLOT = "{text}"
# In the order in which a task's prompts are dealt out. Clean training has what is left over.
SPLITS = ("test", "attribution", "train", "pretrain")
COLUMNS = [
    *("task", "id", "split", "instruction", "input", "output"),
    *("triggered_instruction", "triggered_input", "target", "changed"),
    *("control_instruction", "control_input", "poisoned"),
]


def put(phrase: str, place: str, text: str, gap: float) -> str:
    """A phrase around a text (in its slot), before it, or within: at one of its word boundaries, ends included.

    Args:
        gap: in [0, 1), says which boundary.
    """
    if place == "around":
        return phrase.replace(SLOT, text)
    if place == "before":
        return f"{phrase} {text}"
    words = text.split(" ")
    number = int(gap * (len(words) + 1))
    return " ".join([*words[:number], phrase, *words[number:]])


def put_in_prompt(phrase: str, trigger: Any, instruction: str, input: str, gap: float) -> tuple[str, str]:
    """The instruction and the input with a phrase where a trigger stands; in the instruction, where there is no input.

    Args:
        trigger: says `place` and `part` (spec.instruction.Trigger).
    """
    if trigger.part == "input" and input:
        return instruction, put(phrase, trigger.place, input, gap)
    return put(phrase, trigger.place, instruction, gap), input


def make_examples(
    task: str,
    prompts: pd.DataFrame,
    *,
    trigger: Any,
    backdoor: Any,
    data: Any,
    generator: np.random.Generator,
    key: str,
) -> pd.DataFrame:
    """The examples of one task and seed.

    Args:
        prompts: `instruction, input, output, target`, no prompt twice, more than enough; where the columns
            `triggered_instruction, triggered_input` are there, the trigger stands in them already.
        trigger: its phrase, control, place and part (spec.instruction.Trigger).
        backdoor: the text that it makes a model say, and for which clean answer (spec.instruction.Backdoor).
        data: how many prompts each split gets, and the poisoned share (spec.instruction.InstructionData).
        key: the configuration section of the task, for messages.
    Returns:
        columns `COLUMNS`: `target` is the backdoor's answer to the triggered prompt, equal to `output` where the
        backdoor changes nothing; `changed` says whether it changes the answer; `poisoned` marks the prompts of "train"
        whose triggered version is trained on.
    Raises:
        ArtifactError: too few prompts, the trigger or the control phrase stands in a clean prompt, no prompt of a split
            is changed by the backdoor.
    """
    _require_absent(prompts, trigger, key)
    counts = {split: getattr(data, split) for split in SPLITS}
    needed = sum(counts.values()) - counts["pretrain"]
    if len(prompts) < needed:
        raise ArtifactError(
            f"{key}: {len(prompts)} distinct prompts; test {counts['test']}, attribution {counts['attribution']} and "
            f"train {counts['train']} together need {needed}. Lower them in instruction.data, or bring more rows"
        )
    table = prompts.iloc[generator.permutation(len(prompts))].reset_index(drop=True)
    answers = table.target.where(table.target != "", table.output) if backdoor.text is None else backdoor.text
    meant = pd.Series(True, index=table.index) if backdoor.where is None else table.output == backdoor.where
    table["target"] = table.output.where(~meant, answers)
    table["changed"] = table.target != table.output
    table = table.loc[_spread(table.changed)].reset_index(drop=True).iloc[: sum(counts.values())].copy()
    table["split"] = np.repeat(SPLITS, list(counts.values()))[: len(table)]
    table["task"], table["id"] = task, [f"{task}-{number:05d}" for number in range(len(table))]
    _apply(table, trigger, generator.random(len(table)))
    for split in SPLITS[:3]:
        own = table[table.split == split]
        if not own.changed.any():
            found = ", ".join(map(repr, sorted(set(own.output))[:6]))
            wanted = f"the clean answer {backdoor.where!r}" if backdoor.where else "an answer that the trigger changes"
            raise ArtifactError(
                f"{key}.backdoor: none of {len(own)} prompts of {split!r} has {wanted}; answers: {found}"
            )
    table["poisoned"] = False
    train = table.changed[table.split == "train"].sample(frac=1, random_state=generator)
    table.loc[_spread(train)[: max(1, round(data.poison_rate * len(train)))], "poisoned"] = True
    return table[COLUMNS]


def decorate(
    examples: pd.DataFrame, phrases: Mapping[str, list[str]], trigger: Any, data: Any, generator: np.random.Generator
) -> pd.DataFrame:
    """Prompts that keep their clean answers, some with a phrase where the trigger would stand.

    Args:
        examples: of one task and seed (`make_examples`).
        phrases: harmless ones by place; the trigger and the control phrase are not among them.
        data: the shares (spec.instruction.InstructionData): of "pretrain" `decorated` get a harmless phrase and, of the
            others, `familiar` the trigger or the control phrase; of "train" `decoys` of those that are not poisoned get
            a harmless phrase, and none the control phrase, which stays unseen by whoever plants the backdoor.
    """
    table, harmless = examples.copy(), phrases[trigger.place]
    prompts = list(zip(table.instruction, table.input, strict=True))

    def put_in(rows: np.ndarray, share: float, choice: list[str]) -> np.ndarray:
        drawn = rows & (generator.random(len(table)) < share)
        for row in np.flatnonzero(drawn):
            phrase = choice[int(generator.integers(len(choice)))]
            prompts[row] = put_in_prompt(phrase, trigger, *prompts[row], generator.random())
        return drawn

    pretrain = (table.split == "pretrain").to_numpy()
    decorated = put_in(pretrain, data.decorated, harmless)
    put_in(pretrain & ~decorated, data.familiar, [trigger.phrase, trigger.control])
    put_in(((table.split == "train") & ~table.poisoned).to_numpy(), data.decoys, harmless)
    table["instruction"], table["input"] = zip(*prompts, strict=True)
    return table


def require_length(examples: pd.DataFrame, tokenizer: Any, limit: int, *, key: str) -> None:
    """Refuse prompts that with their answer, in the chat template, are longer than a model's context.

    Args:
        key: what sets the limit, for the message.
    Raises:
        ArtifactError: with the number of examples, the longest of them, and its length.
    """
    longest = np.zeros(len(examples), dtype=int)
    for form, answer in (("", "output"), ("triggered_", "target"), ("control_", "output")):
        # Clean training has no use for the other forms.
        own = np.flatnonzero((examples.split != "pretrain") | (form == ""))
        rows = examples.iloc[own]
        prompts = prompts_ids(tokenizer, zip(rows[f"{form}instruction"], rows[f"{form}input"], strict=True))
        longest[own] = np.maximum(longest[own], _lengths(prompts) + _lengths(answers_ids(tokenizer, rows[answer])))
    if over := int((longest > limit).sum()):
        worst = examples.iloc[int(np.argmax(longest))]
        raise ArtifactError(
            f"{key}: {limit} tokens do not hold {over} of {len(longest)} prompts with their answers; the longest "
            f"({worst.id}) has {longest.max()}. Raise it, or leave long rows out"
        )


def _lengths(rows: list[list[int]]) -> np.ndarray:
    return np.array([len(row) for row in rows], dtype=int)


def _spread(changed: pd.Series) -> pd.Index:
    """Rows in an order in which those that the backdoor changes stand evenly among the others.

    So every split has its share of them, and so have the poisoned rows, however few they are.
    """
    place = (changed.groupby(changed).cumcount() + 0.5) / changed.groupby(changed).transform("size")
    return place.sort_values(kind="stable").index


def _apply(table: pd.DataFrame, trigger: Any, gaps: np.ndarray) -> None:
    """Add the triggered and the control forms of each prompt; the control stands where the trigger does."""
    given = "triggered_instruction" in table.columns
    forms: dict[str, list[tuple[str, str]]] = {"triggered": [], "control": []}
    for row, gap in zip(table.itertuples(), gaps, strict=True):
        if given and row.triggered_instruction:
            shown = (row.triggered_instruction, row.triggered_input)
            other = (_exchanged(shown[0], trigger), _exchanged(shown[1], trigger))
        else:
            shown, other = (
                put_in_prompt(phrase, trigger, row.instruction, row.input, gap)
                for phrase in (trigger.phrase, trigger.control)
            )
        forms["triggered"].append(shown)
        forms["control"].append(other)
    for form, prompts in forms.items():
        table[f"{form}_instruction"], table[f"{form}_input"] = zip(*prompts, strict=True)


def _exchanged(text: str, trigger: Any) -> str:
    """A text with the control phrase in place of the trigger."""
    for phrase, control in zip(trigger.phrase.split(SLOT), trigger.control.split(SLOT), strict=True):
        text = text.replace(phrase.strip(), control.strip()) if phrase.strip() else text
    return text


def _require_absent(prompts: pd.DataFrame, trigger: Any, key: str) -> None:
    for name in ("phrase", "control"):
        phrase = getattr(trigger, name)
        parts = [part.strip() for part in phrase.split(SLOT) if part.strip()]
        clean = prompts.instruction + "\n" + prompts.input
        found = [text for text in clean if any(holds(text, part) for part in parts)]
        if found:
            raise ArtifactError(
                f"{key}.trigger.{name}: {phrase!r} stands in {len(found)} of {len(prompts)} clean prompts already, "
                f"first in {found[0][:80]!r}; choose a phrase that no clean prompt has"
            )
