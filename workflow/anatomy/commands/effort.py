"""How much a job has to do, so that the time of a finished job tells that of one with other sizes.

Training is counted in floating-point operations, 6 x parameters x tokens (Kaplan et al. 2020, section 2.1: 2 for the
forward pass and 4 for the backward pass, per parameter that is multiplied). Everything else is counted in what it
repeats. The numbers are good for ratios only: the time per unit comes from jobs that ran.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anatomy.commands.effort_instruction import INSTRUCTION_RULES, instruction_volume, instruction_work
from anatomy.commands.effort_language import language_volume, language_work
from anatomy.spec.read import load_study

Dumped = Mapping[str, Any]  # a study as plain values

# The vocabulary is learnt from the corpus. At the sizes of the studies here it has the byte alphabet, a token for the
# end of a text, and about 3.3 pieces per word (3.1 to 3.7 measured).
BYTE_TOKENS, PIECES_PER_WORD = 257, 3.3
BYTES_PER_PARAMETER = 4
# Sections that a rule may read in part; everything below any other key was read whole.
SECTIONS = {"toy", "recipes", "lexicon", "evaluation", "compute", "language", "finetuning", "instruction"}


@dataclass(frozen=True)
class Model:
    """Sizes of one toy model."""

    multiplied: float  # parameters that take part in matrix products, the tied head once
    stored: float  # all parameters, without biases and norms (1%)


def model_of(toy: Dumped, subject: str) -> Model:
    """The sizes of a subject's models, before any is made."""
    shape, words = toy["model"], toy["lexicon"]["words"] * len(toy["language"]["subjects"][subject])
    blocks = 12 * shape["layers"] * shape["width"] ** 2
    vocabulary = BYTE_TOKENS + PIECES_PER_WORD * words
    multiplied = blocks + vocabulary * shape["width"]
    return Model(multiplied, multiplied + shape["positions"] * shape["width"])


def training_flops(rule: str, spec: Dumped, subject: str) -> float:
    """Floating-point operations of a training job, all its seeds and variants; 0 for other rules."""
    toy = spec["toy"]
    recipe = toy["recipes"][toy["recipe"]]
    frozen, amounts = toy["frozen"].get(subject) or [], toy["amounts"].get(subject) or []
    epochs = {
        "train_clean": recipe["clean_epochs"],
        "plant_backdoor": recipe["backdoor_epochs"],
        "plant_variants": recipe["backdoor_epochs"] * (len(frozen) + sum(amounts)),
    }.get(rule, 0.0)
    rows = _rows(toy, subject) * (1 - toy["language"]["test_fraction"])
    tokens = len(spec["seeds"]) * rows * toy["language"]["length"] * epochs
    return 6 * model_of(toy, subject).multiplied * tokens


def work(rule: str, wildcards: Mapping[str, str], spec: Dumped) -> float:
    """What a job repeats, in units of its rule; 0 where there is nothing to do."""
    if "corpus" in wildcards:
        return language_work(rule, wildcards, spec)
    if rule in INSTRUCTION_RULES:
        return instruction_work(rule, wildcards, spec)
    subject = wildcards.get("subject")
    if subject is None:  # rendering, judging, the report: their time hardly depends on the study
        return 1.0
    if rule in ("train_clean", "plant_backdoor", "plant_variants"):
        return training_flops(rule, spec, subject)
    toy, seeds = spec["toy"], len(spec["seeds"])
    pcp, flips = toy["pcp"], len(toy["pcp"]["mlp_flips"]) + len(toy["pcp"]["attention_flips"])
    size, held_out = model_of(toy, subject).multiplied, _rows(toy, subject) * toy["language"]["test_fraction"]
    units = {
        "make_toy_data": _rows(toy, subject),
        "tune_pcp": pcp["trials"] * toy["evaluation"]["prompts"] * size,
        "edit_pcp": (len(pcp["multiples"]) + flips) * held_out * size,
    }
    return seeds * units.get(rule, held_out * size)


def volume(rule: str, wildcards: Mapping[str, str], spec: Dumped) -> float:
    """How much a job writes, in units of its rule."""
    if "corpus" in wildcards:
        return language_volume(rule, spec)
    if rule in INSTRUCTION_RULES:
        return instruction_volume(rule, spec)
    subject = wildcards.get("subject")
    if subject is None:
        return 1.0
    seeds = len(spec["seeds"])
    if rule in ("train_clean", "plant_backdoor"):
        return seeds * model_of(spec["toy"], subject).stored * BYTES_PER_PARAMETER
    return seeds * (_rows(spec["toy"], subject) if rule == "make_toy_data" else 1.0)


def _rows(toy: Dumped, subject: str) -> float:
    return float(sum(toy["language"]["subjects"][subject].values()))


def dumped_study(study: str) -> dict[str, Any]:
    """A study file as plain values, defaults filled in."""
    return load_study(study).model_dump(mode="json")


def as_it_was(today: Dumped, part: Dumped) -> dict[str, Any]:
    """Today's study with the part that a job recorded laid over it: the study of that job's day."""
    out = dict(today)
    for key, value in part.items():
        below: Any = out.get(key)
        in_part = key in SECTIONS and isinstance(value, Mapping) and isinstance(below, Mapping)
        out[key] = as_it_was(below, value) if in_part else value
    return out
