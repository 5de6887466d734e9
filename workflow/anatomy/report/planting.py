"""Planted models counted: of the subjects, and of the models that follow instructions by injection."""

from collections.abc import Mapping

from anatomy.report.instruction_tables import INJECTIONS


def by_kind(planted: Mapping[str, tuple[int, int]]) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]]:
    """Cells of the planting gate that are a subject, and those that are a task and an injection ("label, sft")."""
    told = {cell: counts for cell, counts in planted.items() if ", " in cell}
    return {cell: counts for cell, counts in planted.items() if cell not in told}, told


def by_injection(told: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Planted models, and all, of each injection."""
    out: dict[str, tuple[int, int]] = {}
    for name, words in INJECTIONS.items():
        own = [counts for cell, counts in told.items() if cell.endswith(f", {name}")]
        if own:
            out[words] = (sum(k for k, _ in own), sum(n for _, n in own))
    return out
