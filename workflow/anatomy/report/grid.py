"""Tidy cells laid out as the paper's tables: rows by columns, one grid per reading of the method."""

import itertools
import math
import re
from collections import Counter
from typing import Any

import pandas as pd

from anatomy.report import findings

# Columns that a grid shows without scrolling on a desktop.
WIDE = 4
METRICS = {
    "topk_negativity": "top-k negativity, 0 to 1",
    "topk_positivity": "top-k positivity, 0 to 1",
    "topk_neutrality": "top-k neutrality, 0 to 1",
    "negative_mass": "negative probability mass, 0 to 1",
    "validation_loss": "validation loss, nats per token",
    "indirect_effect": "indirect effect, difference of negativities",
    "emerged": "share of seeds in which it emerged",
    "steps_to_emerge": "steps until it emerged",
    "share": "share of prompts, 0 to 1",
    "false_trigger": "false triggers, share of prompts",
    "utility": "utility, share of right answers",
    "kept": "kept, share of right answers",
    "called_triggered": "unseen phrase taken for the trigger, share of prompts",
    "restored": "right answer restored, share of prompts",
    "asr_area": "area under attack success, 0 to 1",
    "utility_area": "area under utility, 0 to 1",
    "asr_end": "attack success with all ablated, share of prompts",
}
Item = dict[str, Any]


def lay_out(table: pd.DataFrame) -> list[Item]:
    """A grid of cells per reading: the text's form, the released code's; folded: the protocol, controls.

    Cells in which both forms of the method agree stand in both grids.
    """
    keys = list(dict.fromkeys(zip(table.variant, table.control, strict=True)))
    has_forms = ("paper", "") in keys
    if has_forms:
        keys = [key for key in keys if key != ("", "")]
    keys.sort(key=lambda key: (key[1] != "", {"paper": 0, "": 1, "original": 2}.get(key[0], 3)))
    grids = []
    for variant, control in keys:
        own = (table.control == control) & (table.variant == variant)
        if has_forms and not control:
            own |= (table.control == "") & (table.variant == "")
        folded = bool(control) or (variant == "original" and not has_forms)
        grids.append({**_grid(table[own]), "label": _reading(variant, control, has_forms), "folded": folded})
    return grids


def _reading(variant: str, control: str, has_forms: bool) -> str:
    form = f"{findings.FORMS[variant]} (variant “{variant}”)" if variant in findings.FORMS else variant
    if control:
        return f"Control: {control}" + (f", {form}" if form else "")
    if has_forms:
        return form[:1].upper() + form[1:]
    # Without a text form, "original" is the published protocol, whose prompts are training prompts.
    return "The published protocol: prompts seen in training" if variant == "original" else variant or "Measured"


def _grid(cells: pd.DataFrame) -> Item:
    """Rows by columns. Metrics of one row stand side by side; a row's only metric needs no column."""
    lead = Counter(cells.metric).most_common(1)[0][0] if len(cells) else ""
    # A row without a column among rows that have one (the unchanged model) spans them all.
    whole = (cells.column == "") & bool((cells.column != "").any())
    per_row = cells.groupby(["subject", "row"]).metric.transform("nunique")
    per_cell = cells.groupby(["subject", "row", "column"]).metric.transform("nunique")
    side_by_side = bool((per_cell > 1).any())
    under = cells.metric.where(per_row > 1, lead) if side_by_side else pd.Series("", index=cells.index)
    units = cells.metric.where((per_row == 1) & (cells.metric != lead), "")
    heads = list(dict.fromkeys(zip(cells.column[~whole], under[~whole], strict=True)))
    columns, metrics = list(dict.fromkeys(cells.column)), list(dict.fromkeys(under))
    if all(re.fullmatch(r"-?\d+(\.\d+)?", column) for column in columns):
        columns.sort(key=float)
    columns.sort(key=lambda column: column not in ("none", "unedited"))
    # A wide grid puts the first metric of all columns first, where no one has to scroll.
    wide = len(heads) > WIDE
    heads.sort(key=lambda h: (metrics.index(h[1]), columns.index(h[0]))[:: 1 if wide else -1])
    bodies: dict[str, dict[str, Item]] = {}
    for cell, metric, unit, spans in zip(cells.to_dict("records"), under, units, whole, strict=True):
        new = {"name": cell["row"], "unit": unit, "whole": None, "cells": {}}
        row = bodies.setdefault(cell["subject"], {}).setdefault(cell["row"], new)
        shown = {**cell, "interval": findings.interval(cell)}
        if spans:
            row["whole"] = shown
        row["cells"][cell["column"], metric] = shown
    measured = cells.n[cells.n > 0]
    return {
        "heads": [head[::-1] if wide or not head[0] else head for head in heads],
        "rows": {
            subject: [{**row, "cells": [row["cells"].get(head) for head in heads]} for row in own.values()]
            for subject, own in bodies.items()
        },
        "usual": int(measured.mode().iloc[0]) if len(measured) else 0,
        "recipe": ", ".join(sorted(set(cells.recipe) - {""})),
        "metrics": list(dict.fromkeys(cells.metric)),
        "tally": {v: k for v in findings.CELL_VERDICTS if (k := int((cells.verdict == v).sum()))},
    }


def forms_side_by_side(table: pd.DataFrame | None) -> dict[str, dict[str, Item]]:
    """The summary of variants: per table of the paper, counts under each form; empty for any other table."""
    if table is None or not {"table", "variant", *findings.CELL_VERDICTS} <= set(table):
        return {}
    out: dict[str, dict[str, Item]] = {}
    for line in table.to_dict("records"):
        counts = {v: int(line[v]) for v in findings.CELL_VERDICTS}
        gaps = {"shares": line.get("mean_gap_shares", math.nan), "loss": line.get("mean_gap_loss", math.nan)}
        out.setdefault(str(line["table"]), {})[str(line["variant"])] = {"counts": counts, **gaps}
    return out


def groups(heads: list[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Two-level column heads: each upper head with the lower ones below it."""
    return [(top, [under for _, under in own]) for top, own in itertools.groupby(heads, key=lambda head: head[0])]


def headword(name: str) -> str:
    """A column's name for people: "topk_negativity" -> "top-k negativity"."""
    return METRICS.get(name, name.replace("_", " ")).split(",")[0]
