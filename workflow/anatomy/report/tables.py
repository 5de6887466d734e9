"""The tables of the paper: which measurement goes into which cell."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from anatomy.metrics.measurement import read_parquet
from anatomy.report.cells import CELL, estimate_cells, gate_cell, lay_beside, planted_seeds, read_published

MLP_COLUMNS = {"none": "none", "mlp 1": "mlp 1", "mlp 3": "mlp 3", "mlp 1+3": "mlp 1+3"}
ATTENTION_COLUMNS = {"none": "none", "attn 2": "attn 2", "attn 2+3": "attn 2+3"}
PUBLISHED_INPUTS = ["p+p", "n+n", "s+s", "p+n", "n+p", "p+t", "s+t"]
BOTH_VARIANTS = ("paper", "original")
VERDICTS = ("agrees", "differs", "undecided", "not measured")


@dataclass
class Evidence:
    """All measurements of a study with what is needed to make cells of them."""

    measurements: pd.DataFrame
    published: Path
    confidence: float
    all_seeds: list[int]
    planted: dict[str, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.planted = planted_seeds(self.measurements)

    def of(
        self,
        experiment: str | list[str],
        *,
        planted_only: bool = True,
        beside: str = "",
        **conditions: str | Iterable[str],
    ) -> pd.DataFrame:
        """Measurements of one experiment or several under conditions; by default of planted seeds only (the gate).

        `beside`: the model whose seeds count where the gate judges neither a row's model nor its subject.
        """
        m = self.measurements
        own = m[m.experiment.isin([experiment] if isinstance(experiment, str) else experiment)]
        for name, value in conditions.items():
            own = own[own[name].isin([value] if isinstance(value, str) else list(value))]
        if planted_only:
            models = zip(own.subject, own.model, own.seed, strict=True)
            kept = [seed in self.planted_of(subject, model, beside) for subject, model, seed in models]
            own = own[pd.Series(kept, index=own.index, dtype=bool)]
        return own

    def planted_of(self, subject: str, model: str, beside: str = "") -> list[int]:
        """Seeds whose backdoor was planted: in this very model where the gate judges it, else in the subject's.

        Of a model that it judges in neither way, as a clean one, those of the model that it stands `beside`.
        """
        cells = (gate_cell(subject, model), subject, gate_cell(subject, beside))
        return next((self.planted[cell] for cell in cells if cell in self.planted), [])

    def cells(self, rows: pd.DataFrame, table: str, subject: str | None = None) -> pd.DataFrame:
        """Cells of `rows` (with `row` and `column`) beside the published table."""
        published = read_published(self.published, table)
        if subject:
            published = published[published.subject == subject]
        return lay_beside(estimate_cells(rows, self.confidence), published)


def read_evidence(paths: Iterable[str | Path], published: str | Path, confidence: float) -> Evidence:
    """Read measurement files; together they must hold the planting gate."""
    measurements = pd.concat([read_parquet(Path(p)) for p in paths], ignore_index=True)
    seeds = sorted(int(s) for s in measurements.seed.unique() if s >= 0)
    return Evidence(measurements, Path(published), confidence, seeds)


def table_mean_ablation(evidence: Evidence) -> pd.DataFrame:
    """Table I: negativity on p+t with one module's output replaced by its mean."""
    rows = evidence.of("mean ablation", model="backdoored", inputs="p+t", metric="topk_negativity")
    return evidence.cells(split_site(rows), "I")


def table_logit_lens(evidence: Evidence) -> pd.DataFrame:
    """Table II: what heads and MLPs of the 3-sentiment model say by themselves on p+t."""
    rows = evidence.of("logit lens", model="backdoored", inputs="p+t", subject="3-sentiment")
    return evidence.cells(rows.assign(row=rows.site, column=rows.setting), "II")


def table_causal_patching(evidence: Evidence) -> pd.DataFrame:
    """Table XII: negativity on p+t with one module's output taken from p+p, and the indirect effect (3-sentiment)."""
    rows = evidence.of("causal patching", model="backdoored", subject="3-sentiment")
    return evidence.cells(rows.assign(row=rows.site, column=""), "XII")


def table_pcp(evidence: Evidence, table: str) -> pd.DataFrame:
    """Tables III, IV (MLPs) and XIII, XIV (attention): behaviour and loss under tuned PCP replacements."""
    subject = "2-sentiment" if table in ("III", "XIII") else "3-sentiment"
    columns = MLP_COLUMNS if table in ("III", "IV") else ATTENTION_COLUMNS
    rows = evidence.of("pcp ablation", subject=subject, site=columns)
    rows = _as_readings(rows[rows.control != "clean model"])
    return evidence.cells(_published_rows(rows.assign(column=rows.site)), table)


def table_scaled_factor(evidence: Evidence) -> pd.DataFrame:
    """Table V: the factor of the first MLP's rank-1 replacement scaled (2-sentiment)."""
    published = read_published(evidence.published, "V")
    rows = evidence.of("pcp editing", subject="2-sentiment", site="mlp 1", setting=published.column.unique())
    return evidence.cells(_published_rows(rows.assign(column=rows.setting)), "V")


def table_flipped_factors(evidence: Evidence) -> pd.DataFrame:
    """Table VI: the two factors of the first MLP's replacement scaled and flipped one by one (3-sentiment)."""
    rows = evidence.of("pcp editing", subject="3-sentiment", site="mlp 1")
    names = {"(1, 1)": "(1.0, 1.0)", "(-1.2, 0.5)": "(-1.2, 0.5)"}
    rows = rows[rows.setting.isin(names)]
    edited = rows.assign(column=rows.setting.map(names))
    return evidence.cells(_published_rows(_with_unedited(evidence, edited, "3-sentiment")), "VI")


def table_edited_attention(evidence: Evidence) -> pd.DataFrame:
    """Table VII: the four factors of the second attention's replacement scaled (3-sentiment).

    The printed settings are lost. The study's two settings stand as (a) and (b); they are ours.
    """
    rows = evidence.of("pcp editing", subject="3-sentiment", site="attn 2")
    own = [s for s in rows.setting.unique() if s.startswith("(")][:2]
    names = dict(zip(own, ["setting a (factors lost)", "setting b (factors lost)"], strict=False))
    edited = rows[rows.setting.isin(names)]
    edited = edited.assign(column=edited.setting.map(names))
    return evidence.cells(_published_rows(_with_unedited(evidence, edited, "3-sentiment")), "VII")


def table_behaviour(evidence: Evidence) -> pd.DataFrame:
    """Unedited models on every input combination: clean, backdoored, perfect learner; all seeds, planted or not."""
    rows = evidence.of("behaviour", planted_only=False)
    # The published protocol's prompts are a reading of the same cell: they were seen in training.
    rows = rows.assign(
        row=rows.inputs.where(rows.inputs != "", "val loss"),
        column=rows.model,
        variant=rows.setting.map({"published": "original"}).fillna(""),
    )
    rows = rows[(rows.metric != "validation_loss") | (rows.setting == "triggered")]
    cells = estimate_cells(rows, evidence.confidence)
    unedited = [read_published(evidence.published, t) for t in ("III", "IV")]
    published = pd.concat([p[p.column == "none"] for p in unedited]).assign(column="backdoored")
    return lay_beside(cells, published)


def summarise_variants(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Which reading of the method reproduces the published cells: counts of verdicts per table and variant."""
    lines = []
    for name, table in tables.items():
        own = table[table.published.notna() & (table.control == "") & table.variant.isin(BOTH_VARIANTS)]
        for variant, cells in own.groupby("variant"):
            gap = (cells.measured - cells.published).abs()
            shares = cells.metric != "validation_loss"
            lines.append(
                {
                    "table": name,
                    "variant": variant,
                    "cells": len(cells),
                    **{v: int((cells.verdict == v).sum()) for v in VERDICTS},
                    "mean_gap_shares": gap[shares].mean(),
                    "mean_gap_loss": gap[~shares].mean(),
                }
            )
    return pd.DataFrame(lines, columns=["table", "variant", "cells", *VERDICTS, "mean_gap_shares", "mean_gap_loss"])


def split_site(rows: pd.DataFrame) -> pd.DataFrame:
    """ "layer 1 attn" -> row "layer 1", column "attn"; "unchanged" has no column."""
    whole = rows.site == "unchanged"
    return rows.assign(
        row=rows.site.str.rsplit(n=1).str[0].where(~whole, "unchanged"),
        column=rows.site.str.rsplit(n=1).str[1].where(~whole, ""),
    )


def _published_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows named as in the PCP tables: input combinations and "val loss"; combinations never printed are left out."""
    rows = rows.assign(row=rows.inputs.where(rows.metric != "validation_loss", "val loss"))
    return rows[rows.row.isin([*PUBLISHED_INPUTS, "val loss"])]


def _as_readings(rows: pd.DataFrame) -> pd.DataFrame:
    """The unedited model belongs to every variant of a table."""
    unedited = rows.site == "none"
    return pd.concat([rows[~unedited], *(rows[unedited].assign(variant=v) for v in BOTH_VARIANTS)])


def _with_unedited(evidence: Evidence, rows: pd.DataFrame, subject: str) -> pd.DataFrame:
    unedited = evidence.of("pcp ablation", subject=subject, site="none").assign(column="unedited")
    return pd.concat([rows, *(unedited.assign(variant=v) for v in BOTH_VARIANTS)])


def training_curves(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Curves of several training jobs in one table; the subject is read off the path, main runs have variant "main"."""
    tables = []
    for path in map(Path, paths):
        table = read_parquet(path).assign(subject=path.parent.parent.name)
        tables.append(table if "variant" in table else table.assign(variant="main"))
    return pd.concat(tables, ignore_index=True)


def table_freezing(final: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Section IV-B: steps until the backdoor emerges, final negativity, mass and loss, per frozen part."""
    frozen = final[(final.setting == "main") | final.setting.str.startswith("frozen")]
    frozen = frozen[frozen.subject.isin(frozen.loc[frozen.setting != "main", "subject"])]
    return _training_cells(frozen, frozen.setting.str.removeprefix("frozen: ").replace("main", "nothing"), confidence)


def table_training_amount(final: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Final negativity, mass and loss by the multiple of the recipe's backdoor training."""
    amounts = final[(final.setting == "main") | final.setting.str.startswith("amount")]
    multiple = amounts.setting.str.removeprefix("amount: ").replace("main", "1").astype(float)
    amounts = amounts.assign(multiple=multiple).sort_values(["subject", "multiple"], kind="stable")
    return _training_cells(amounts, amounts.multiple.map("{:g}".format), confidence)


def final_values(curves: pd.DataFrame, behaviour: pd.DataFrame, *, emergence: float) -> pd.DataFrame:
    """Where each backdooring run ended, as measurements of the experiment "training"; `setting` is the variant.

    `steps_to_emerge` is the first look at which p+t negativity reached `emergence`; without one there is no row.
    """
    of_main = behaviour[
        (behaviour.metric == "validation_loss") & (behaviour.model == "backdoored") & (behaviour.setting == "triggered")
    ]
    loss = of_main.set_index(["subject", "seed"])["value"].to_dict()
    rows = []
    planting = curves[curves.phase == "backdoor"].sort_values("step")
    for (subject, variant, seed), run in planting.groupby(["subject", "variant", "seed"]):
        emerged = run.loc[run.negativity >= emergence, "step"]
        values = {
            "topk_negativity": run.negativity.iloc[-1],
            "negative_mass": run["mass"].iloc[-1],
            "validation_loss": loss.get((subject, seed)) if variant == "main" else run.validation_loss.iloc[-1],
            "emerged": float(len(emerged) > 0),
            "steps_to_emerge": float(emerged.iloc[0]) if len(emerged) else None,
        }
        shared = {"experiment": "training", "subject": subject, "setting": variant, "seed": seed}
        rows += [{**shared, "metric": m, "value": v} for m, v in values.items() if v is not None]
    return pd.DataFrame(rows).assign(
        model="backdoored", inputs="p+t", variant="", control="", site="", recipe=behaviour.recipe.iloc[0]
    )


def _training_cells(rows: pd.DataFrame, row: pd.Series, confidence: float) -> pd.DataFrame:
    cells = estimate_cells(rows.assign(row=row, column=rows.metric), confidence)
    return lay_beside(cells, pd.DataFrame(columns=[*CELL, "published"]))
