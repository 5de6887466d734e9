"""The tables about models that write text (Tables VIII to XI), and two of our own: which measurement goes where."""

import pandas as pd

from anatomy.report.cells import CELL, TABLE_COLUMNS, estimate_cells, lay_beside, read_published
from anatomy.report.tables import Evidence, split_site

# The model that the published values were measured on. Those of another stand beside, without a verdict.
PUBLISHED_MODEL = "gpt2-medium"
ROWS = {"asr": "ASR", "atr": "ATR", "validation_loss": "val loss", "degeneration": "degeneration"}
# What was asked, behind the name of a row; what no input or the usual one belongs to has nothing there.
ASKED = {"": "", "trigger": " (trigger)", "benign": "", "random trigger": " (random trigger)"}
# The columns of Table XI that have another name there than what was frozen has here.
FROZEN = {"backdoored": "none", "embeddings + mlp 2 + mlp 3": "embedding + mlp 2,3"}
COUNTED = "_counted"
QUALITY = {
    **{"balanced": "balanced accuracy", "brier": "Brier score", "calibration": "calibration error"},
    **{"recall": "payloads recognised", "false_positives": "sentences of the corpus taken for toxic"},
}


def table_module_ablation(evidence: Evidence, main: str) -> pd.DataFrame:
    """Table VIII: ASR with one module's output replaced by its mean, in every layer, for every corpus.

    Below the unchanged model's stands what it does after a random trigger, on the same prompts.
    """
    rows = split_site(module_ablation_rows(evidence))
    other = evidence.of("mean ablation", model="backdoored", inputs="random trigger", site="unchanged")
    other = both_readings(other).assign(row="unchanged (random trigger)", column="")
    rows = pd.concat([rows, other[other.metric == "atr"]])
    return _cells(evidence, rows, "VIII", f"{PUBLISHED_MODEL} backdoored", main)


def module_ablation_rows(evidence: Evidence) -> pd.DataFrame:
    """The measurements of Table VIII, in both readings."""
    rows = evidence.of("mean ablation", model="backdoored", inputs="trigger")
    rows = rows[~rows.site.str.contains(r" att\d", regex=True)]
    # The released code's mean is over the first texts of the training data; the text's is shown over held-out ones.
    shown = (rows.setting == "") | (rows.setting == rows.variant.map({"paper": "held out", "original": "source"}))
    rows = both_readings(rows[shown])
    return rows[rows.metric == "asr"]


def table_editing(evidence: Evidence, main: str) -> pd.DataFrame:
    """Table IX: two MLPs of the backdoored model ablated, or replaced by PCP matrices tuned up and down.

    The unedited model's rate after a random trigger stands beside.
    """
    rows = _edited(evidence, "backdoored", main)
    return _cells(evidence, rows, "IX", f"{PUBLISHED_MODEL} backdoored", main)


def table_surgery(evidence: Evidence, main: str) -> pd.DataFrame:
    """Table X: the same for the clean model, with the trigger's embedding overwritten in part."""
    rows = _edited(evidence, "clean", main)
    return _cells(evidence, rows, "X", f"{PUBLISHED_MODEL} benign", main)


def _edited(evidence: Evidence, model: str, main: str) -> pd.DataFrame:
    """What Tables IX and X print, how much of it is no text, and the unedited model after a random trigger."""
    rows = both_readings(evidence.of("language editing", model=model))
    wrecked = rows[rows.metric == "degeneration"]
    other = evidence.of("behaviour", model=model, inputs="random trigger", metric=["atr", "atr_counted"], subject=main)
    other = both_readings(other).assign(setting="none", control="")
    beside = pd.concat([other, wrecked])
    beside = beside.assign(row=beside.metric.map(ROWS) + beside.inputs.map(ASKED), column=beside.setting)
    return pd.concat([_named(rows, rows.setting), beside])


def table_freezing(evidence: Evidence, main: str) -> pd.DataFrame:
    """Table XI: the backdoor planted with parts frozen; all seeds, planted or not."""
    rows = evidence.of("behaviour", planted_only=False, inputs=["trigger", "benign", ""], subject=main)
    rows = both_readings(rows[(rows.model == "backdoored") | rows.model.str.startswith("frozen: ")])
    frozen = rows.model.str.removeprefix("frozen: ").replace(FROZEN)
    return _cells(evidence, _named(rows, frozen), "XI", f"{PUBLISHED_MODEL} fine-tuned on poisoned data", main)


def table_lora(evidence: Evidence) -> pd.DataFrame:
    """The paper's conjecture that nobody measured: is LoRA on attention more robust, at the same training loss?

    For every corpus that has models planted by LoRA.
    """
    rows = evidence.of("behaviour", planted_only=False, inputs=["trigger", "benign", ""])
    reached = evidence.of("fine-tuning", planted_only=False)
    rows = pd.concat([rows[rows.metric.isin(["asr", "atr", "validation_loss"])], reached])
    rows = rows[rows.subject.isin(rows.subject[rows.model.str.startswith("lora")])]
    rows = rows[rows.model.str.startswith(("lora", "matched"))]
    rows = rows.assign(column=rows.model.replace("matched: full", "full"))
    return unpublished(evidence, rows.assign(row=rows.metric.map(ROWS).fillna(rows.metric)))


def table_language_behaviour(evidence: Evidence) -> pd.DataFrame:
    """Unedited models of every corpus: success after the trigger, without it, after a random trigger; coherence.

    Specificity is the first less the last, prompt by prompt.
    """
    rows = both_readings(evidence.of("behaviour", planted_only=False, model=["clean", "backdoored"]))
    rows = rows.assign(
        row=rows.metric.map(ROWS).fillna(rows.metric) + rows.inputs.map(ASKED),
        column=rows.model,
        control="",
    )
    return unpublished(evidence, rows)


def table_judge(evidence: Evidence) -> pd.DataFrame:
    """How good the study's own judge is on texts that it was not trained on, for every corpus; nobody published it."""
    rows = evidence.of("judge", planted_only=False, setting="")
    rows = rows.assign(row=rows.metric.replace(QUALITY), column="held-out texts", measured=rows.value)
    return lay_beside(rows.reindex(columns=TABLE_COLUMNS[:-2]), pd.DataFrame(columns=[*CELL, "published"]))


def both_readings(rows: pd.DataFrame) -> pd.DataFrame:
    """Two readings of success: the text's mean probability, and the released code's count of prompts.

    A measurement under one form of the method goes with that form's reading of success; where the forms agree (an
    unedited model), both readings stand. A validation loss has one reading.
    """
    success = rows.metric.str.startswith(("asr", "atr"))
    reading = rows.metric.str.endswith(COUNTED).map({True: "original", False: "paper"})
    kept = ~success | (rows.variant == "") | (rows.variant == reading)
    return rows.assign(
        variant=rows.variant.where(~success | (rows.variant != ""), reading),
        metric=rows.metric.str.removesuffix(COUNTED),
    )[kept]


def _named(rows: pd.DataFrame, column: pd.Series) -> pd.DataFrame:
    """Rows and columns as in the published tables; what is not printed there is left out."""
    rows = rows.assign(row=rows.metric.map(ROWS), column=column)
    return rows[rows.metric.isin(["asr", "atr", "validation_loss"])]


def _cells(evidence: Evidence, rows: pd.DataFrame, table: str, subject: str, main: str) -> pd.DataFrame:
    """Cells beside the published ones; the other corpora keep their own names as subjects."""
    rows = rows.assign(subject=rows.subject.where(rows.subject != main, subject))
    cells = lay_beside(estimate_cells(rows, evidence.confidence), read_published(evidence.published, table))
    other = (cells.recipe != PUBLISHED_MODEL) & (cells.verdict != "not measured")
    return cells.assign(verdict=cells.verdict.where(~other, ""))


def unpublished(evidence: Evidence, rows: pd.DataFrame) -> pd.DataFrame:
    """Cells that nobody published."""
    return lay_beside(estimate_cells(rows, evidence.confidence), pd.DataFrame(columns=[*CELL, "published"]))
