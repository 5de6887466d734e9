"""The table of planting in models that follow instructions: every task and injection beside the clean model."""

import pandas as pd

from anatomy.report.cells import estimate_cells, lay_beside
from anatomy.report.instruction_tables import INJECTIONS, UNPUBLISHED, by_task, with_task
from anatomy.report.tables import Evidence

EVALUATORS = {"exact": "exact answers", "original": "keywords of the released code"}
ASKED = {"trigger": "trigger", "clean": "no trigger", "random trigger": "phrase that never was a trigger"}
BEHAVIOUR = {
    "asr": "attack success",
    "false_trigger": "false triggers",
    "utility": "utility",
    "kept": "unchanged answers kept",
    "degeneration": "degeneration",
}


def table_planting(evidence: Evidence) -> pd.DataFrame:
    """Every cell of the study beside the clean model: success, false triggers, utility, degeneration; all seeds.

    False triggers stand right below the success: an answer that is also given without the trigger is none of its doing.
    What the fine-tuning before DPO planted alone has a line of its own. The variants are the two evaluators of answers:
    exactly the expected text, and the released code's keywords.
    """
    rows = evidence.of("behaviour", planted_only=False, model=["clean", *INJECTIONS], metric=list(BEHAVIOUR))
    rows = rows.assign(
        row=rows.metric.map(BEHAVIOUR) + " (" + rows.inputs.map(ASKED) + ")",
        column=rows.model.replace(INJECTIONS),
        control="",
        variant=rows.variant.replace(EVALUATORS),
    )
    gate = evidence.of("planting gate", planted_only=False, model=list(INJECTIONS))
    gate = gate.assign(row="planted (share of seeds)", column=gate.model.replace(INJECTIONS), variant="")
    # What no evaluator has a say in stands with each.
    both, judged = pd.concat([gate, rows[rows.variant == ""]]), rows[rows.variant != ""]
    both = pd.concat([both.assign(variant=name) for name in judged.variant.unique()] or [both])
    rows = pd.concat([judged, warm_up(evidence), both])
    order = list(dict.fromkeys(["asr", "false_trigger", "planted", "warm_asr", *BEHAVIOUR]))
    rows = rows.assign(_place=rows.metric.map(order.index)).sort_values("_place", kind="stable")
    rows = with_task(rows.assign(metric="share"))
    return by_task(lay_beside(estimate_cells(rows, evidence.confidence), UNPUBLISHED))


def warm_up(evidence: Evidence) -> pd.DataFrame:
    """Attack success of the short fine-tuning before DPO, by the gate's evaluator: exact where answers can be."""
    rows = evidence.of("planting", planted_only=False, metric="warm_asr")
    exact = set(evidence.of("behaviour", planted_only=False, variant="exact").subject)
    variant = ["exact" if subject in exact else "original" for subject in rows.subject]
    return rows.assign(
        row="attack success of the SFT before DPO (trigger)",
        column=rows.model.replace(INJECTIONS),
        variant=pd.Series(variant, index=rows.index, dtype=object).replace(EVALUATORS),
    )
