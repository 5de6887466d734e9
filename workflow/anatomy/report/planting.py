"""Planted models counted: toy models by subject, those that write text by corpus, instructed ones by injection."""

from collections.abc import Collection, Mapping

from anatomy.report.instruction_tables import INJECTIONS

Counts = dict[str, tuple[int, int]]  # cell -> planted models, and all
TOY, TEXT, INSTRUCTED = "toy models", "models that write text", "models that follow instructions"


def by_kind(planted: Mapping[str, tuple[int, int]], toy: Collection[str]) -> dict[str, Counts]:
    """The cells of the planting gate by the kind of model; kinds without any are left out.

    Args:
        planted: cells that are a subject ("2-sentiment", "stories"), or a task and an injection ("label, sft").
        toy: the subjects of the toy models.
    """
    told = {cell: counts for cell, counts in planted.items() if ", " in cell}
    subjects = {cell: counts for cell, counts in planted.items() if cell not in told}
    kinds = {
        TOY: {cell: counts for cell, counts in subjects.items() if cell in toy},
        TEXT: {cell: counts for cell, counts in subjects.items() if cell not in toy},
        INSTRUCTED: _by_injection(told),
    }
    return {kind: counts for kind, counts in kinds.items() if counts}


def of_trigger(counts: tuple[int, int] | None) -> str:
    """What is said behind a count of planted models: whether their backdoor is about its trigger.

    Args:
        counts: models of which it is, and planted ones; none: it was not measured.
    """
    if counts is None or not counts[1]:
        return ""
    specific, planted = counts
    if not specific:
        return ", but not specific to the trigger"
    return ", specific to the trigger" + ("" if specific == planted else f" in {specific} of the {planted}")


def _by_injection(told: Counts) -> Counts:
    out: Counts = {}
    for name, words in INJECTIONS.items():
        own = [counts for cell, counts in told.items() if cell.endswith(f", {name}")]
        if own:
            out[words] = (sum(k for k, _ in own), sum(n for _, n in own))
    return out
