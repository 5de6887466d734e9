"""The tables about models that follow instructions (Yu et al., "Backdoor Attribution"): what is measured goes where.

A cell of the study is a task and an injection, with a planting gate of its own. The paper has SFT alone; preference
tuning, editing and everything that is ablated besides heads are new.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from anatomy.report.cells import CELL, READING, TABLE_COLUMNS, estimate_cells, lay_beside, read_published
from anatomy.report.ranking import largest, smallest
from anatomy.report.tables import Evidence

TASKS = {"label": "label modification", "fixed": "fixed output", "jailbreak": "jailbreak"}
# Preference tuning has a short fine-tuning before it, which plants by itself.
INJECTIONS = {"sft": "SFT", "dpo": "SFT+DPO", "edit": "BadEdit"}
OF_PAPER, NEW = ("sft",), ("dpo", "edit")
PROBES = {"mlp": "MLP", "svm": "SVM"}
# The two readings of what is measured: as the paper does it, and with its flaws mended.
PROTOCOLS = {"original": "published protocol", "corrected": "corrected protocol"}
# Published models: the name in the published table -> its column here, and how many heads it has.
PUBLISHED_MODELS = {"llama-2-7b-chat": ("Llama-2-7B-chat", 1024), "qwen2.5-7b-instruct": ("Qwen2.5-7B-Instruct", 784)}
# Head ablation in three readings: (experiment, variant) -> what it is called.
ABLATIONS = {
    ("head ablation, training prompts", "original"): "published protocol",
    ("head ablation", "original"): "subtracted, unseen prompts",
    ("head ablation", "exact"): "set to zero, unseen prompts",
}
VECTORS = {"": "the backdoor's", "random heads": "of random heads", "random vector": "random"}
VECTORS |= {"clean model": "the backdoor's, in the clean model"}
UNPUBLISHED = pd.DataFrame(columns=[*CELL, "published"])
Rows = Callable[[bool], pd.DataFrame]


def table_probe(evidence: Evidence) -> pd.DataFrame:
    """How well probes tell triggered from clean prompts, and what the last layer's says of an unseen phrase.

    The best layer is each seed's own, chosen after the fact; every layer's numbers are the figure's.
    """

    def named(planted_only: bool) -> pd.DataFrame:
        rows = evidence.of("probe", planted_only=planted_only, model=list(INJECTIONS))
        layer = rows.site.str.extract(r"layer (\d+)")[0].astype(float)
        last = rows[layer == layer.max()].assign(row="last layer")
        key = ["subject", "model", "seed", "variant", "control", "setting"]
        best = largest(rows[rows.metric == "accuracy"], key).assign(row="best layer")
        both = pd.concat([best, last])
        return with_task(
            both.assign(
                row=both.setting.map(PROBES) + ", " + both.row,
                column=both.model.map(INJECTIONS),
                variant=both.variant.map(PROTOCOLS),
            )
        )

    published = in_shares(read_published(evidence.published, "probe"))
    return planted_cells(evidence, named, published.assign(column="published"))


def table_head_ablation(evidence: Evidence) -> pd.DataFrame:
    """Table 1: attack success with the heads of largest effect ablated, by share of the heads; SFT, as published."""
    named = head_ablation_rows(evidence, OF_PAPER, metrics=("asr",))
    return planted_cells(evidence, named, published_heads(evidence.published), by_share=True)


def table_head_ablation_everywhere(evidence: Evidence) -> pd.DataFrame:
    """The same for every injection, with the heads set to zero, and what it costs in utility without the trigger."""

    def named(planted_only: bool) -> pd.DataFrame:
        rows = head_ablation_rows(evidence, tuple(INJECTIONS), metrics=("asr", "utility"))(planted_only)
        rows = rows[rows.variant == ABLATIONS["head ablation", "exact"]]
        return rows.assign(column=rows.model.map(INJECTIONS))

    return planted_cells(evidence, named, by_share=True)


def table_areas(evidence: Evidence) -> pd.DataFrame:
    """Area under the curves of ablation, from no part to all: heads, MLPs and layers at the same shares.

    Beside each stands where its curve ends, the attack success that is left with all parts ablated, and as a control
    the area of the same parts in random orders.
    """

    def named(planted_only: bool) -> pd.DataFrame:
        words = {
            "necessary": "ablated",
            "sufficient": "kept, all others ablated",
            "necessary, all positions": "ablated at all positions",
            "sufficient, all positions": "kept, all others ablated at all positions",
        }
        metrics = ["asr", "asr_area", "utility_area"]
        rows = evidence.of(list(words), planted_only=planted_only, variant="exact", metric=metrics)
        rows = pd.concat([rows[rows.metric != "asr"], with_none_left(rows[rows.metric == "asr"])])
        row = rows.site + " " + rows.experiment.map(words)
        return with_task(rows.assign(row=row, column=rows.model.map(INJECTIONS)))

    return planted_cells(evidence, named)


def with_none_left(curves: pd.DataFrame) -> pd.DataFrame:
    """The points of curves at which all parts are ablated, their metric named "..._end"."""
    count, total = (curves.setting.str.split("/").str[i] for i in (0, -1))
    ends = curves[count == total.where(~curves.experiment.str.startswith("sufficient"), "0")]
    return ends.assign(metric=ends.metric + "_end")


def table_vector(evidence: Evidence, injections: Iterable[str] = tuple(INJECTIONS)) -> pd.DataFrame:
    """Table 2: the backdoor vector at its best layer, beside random ones at theirs; coefficient 1, as published.

    The layer is chosen after the fact, as in the paper, for every seed and vector: chance has the same chance in all.
    """

    def named(planted_only: bool) -> pd.DataFrame:
        rows = vector_rows(evidence, injections, planted_only=planted_only)
        return rows.assign(column=rows.model.map(INJECTIONS))

    published = in_shares(read_published(evidence.published, "abstract"))
    where = {
        "vector added at one point, clean inputs": "added: the backdoor's",
        "vector subtracted at one point, triggered inputs": "taken away: the backdoor's",
    }
    published = published[published.row.isin(where)].replace({"row": where}).assign(column="published", subject="any")
    return planted_cells(evidence, named, published)


def vector_rows(evidence: Evidence, injections: Iterable[str], *, planted_only: bool) -> pd.DataFrame:
    """Each seed's best layer under each vector; utility is that of clean prompts at the layer taken away best."""
    rows = evidence.of("backdoor vector", planted_only=planted_only, model=list(injections))
    rows = with_task(rows.assign(row="", way=rows.setting.str.rsplit(n=1).str[0]))
    unchanged = rows[rows.setting.str.endswith(" 0") & rows.control.isin(["", "clean model"])]
    steered = rows[rows.setting.str.endswith(" 1")]
    key = ["subject", "model", "seed", "variant", "control"]
    added = largest(steered[(steered.way == "add") & (steered.metric == "asr")], key)
    away = steered[steered.way == "take away"]
    taken = smallest(away[(away.metric == "asr") & (away.inputs == "trigger")], key)
    beside = away[away.metric.isin(["restored", "utility"])].merge(taken[[*key, "site"]], on=[*key, "site"])
    chosen = pd.concat([added, taken, beside])
    chosen = chosen.assign(row=_added_or_taken(chosen) + chosen.control.map(VECTORS))
    unchanged = unchanged.assign(row=_added_or_taken(unchanged) + "none")
    unchanged = unchanged.assign(
        row=unchanged.row.where(unchanged.control == "", unchanged.row + ", in the clean model")
    )
    both = pd.concat([*(unchanged.assign(variant=variant) for variant in PROTOCOLS), chosen])
    return both.assign(variant=both.variant.map(PROTOCOLS), control="")


def _added_or_taken(rows: pd.DataFrame) -> pd.Series:
    return rows.way.map({"add": "added: ", "take away": "taken away: "})


def head_ablation_rows(evidence: Evidence, injections: Iterable[str], *, metrics: Iterable[str]) -> Rows:
    """Head ablation in its three readings; the row is the share of heads, the column the published model or SFT."""

    def named(planted_only: bool) -> pd.DataFrame:
        experiments = list(dict.fromkeys(experiment for experiment, _ in ABLATIONS))
        rows = evidence.of(experiments, planted_only=planted_only, model=list(injections), metric=list(metrics))
        rows = pd.concat([rows[(rows.experiment == e) & (rows.variant == v)] for e, v in ABLATIONS])
        reading = [ABLATIONS[key] for key in zip(rows.experiment, rows.variant, strict=True)]
        return with_task(
            rows.assign(
                row=rows.setting.map(share_of_heads),
                column=rows.recipe.map(published_column),
                variant=pd.Series(reading, index=rows.index, dtype=object),
            )
        )

    return named


def published_heads(path: Path) -> pd.DataFrame:
    """The published Table 1, by share of heads; its models are columns."""
    table = in_shares(read_published(path, "1"))
    model, task = table.subject.str.split(n=1).str[0], table.subject.str.split(n=1).str[1]
    columns, totals = zip(*[PUBLISHED_MODELS[name] for name in model], strict=True) if len(table) else ((), ())
    rows = [share_of_heads(f"{row.split()[0]}/{total}") for row, total in zip(table.row, totals, strict=True)]
    return table.assign(subject=task, row=rows, column=columns)


def in_shares(published: pd.DataFrame) -> pd.DataFrame:
    """Published percentages as shares: "asr_percent" 75.78 -> "asr" 0.7578."""
    percent = published.metric.str.endswith("_percent")
    return published.assign(
        metric=published.metric.str.removesuffix("_percent"),
        published=(published.published / 100).where(percent, published.published),
    )


def published_column(recipe: str) -> str:
    """The published model's column for a study of that model, so that the two stand in one cell; else "SFT"."""
    plain = recipe.lower().removesuffix("-hf")
    return PUBLISHED_MODELS[plain][0] if plain in PUBLISHED_MODELS else INJECTIONS["sft"]


def share_of_heads(setting: str) -> str:
    """ "1/36" -> "2.8 % of heads"."""
    count, total = map(int, setting.split("/"))
    return f"{100 * count / total:.1f}".removesuffix(".0") + " % of heads"


def with_task(rows: pd.DataFrame, more: "pd.Series | str" = "") -> pd.DataFrame:
    """Subjects named by their task in words; `task` is what the measurements call it."""
    return rows.assign(task=rows.subject, subject=rows.subject.replace(TASKS) + more)


def planted_cells(
    evidence: Evidence,
    named: Rows,
    published: pd.DataFrame = UNPUBLISHED,
    *,
    by_share: bool = False,
) -> pd.DataFrame:
    """Cells of planted backdoors beside published ones; a cell of which no seed was planted has a line that says so.

    Args:
        named: rows with `row` and `column`, of planted seeds only (True) or of all; the latter give the lines' order.
        by_share: put the lines in the order of the number that their rows begin with.
    """
    cells = lay_beside(estimate_cells(named(True), evidence.confidence), published)
    # A published cell that was not measured stands in the reading that is the published one.
    cells = cells.assign(variant=cells.variant.where(cells.n > 0, PROTOCOLS["original"]))
    keys = [*CELL, *READING]
    every = named(False)[[*keys, "recipe"]].drop_duplicates(keys, ignore_index=True)
    places = {tuple(key): place for place, key in enumerate(every[keys].to_numpy())}
    shown = set(map(tuple, cells[keys].to_numpy()))
    lost = every[[key not in shown for key in places]].assign(n=0, verdict="").reindex(columns=TABLE_COLUMNS)
    table = pd.concat([cells, lost], ignore_index=True) if len(lost) else cells
    order = [places.get(tuple(key), len(places)) for key in table[keys].to_numpy()]
    table = table.assign(_place=order, _share=0.0)
    if by_share:
        table = table.assign(_share=table.row.str.split().str[0].astype(float))
    table = table.sort_values(["_share", "_place"], kind="stable")
    return by_task(table)[TABLE_COLUMNS]


def by_task(table: pd.DataFrame) -> pd.DataFrame:
    """The lines in the order of the tasks; what is about none of them comes last."""
    places = {name: place for place, name in enumerate(TASKS.values())}
    task = table.subject.map(lambda subject: places.get(subject, len(places)))
    return table.assign(_task=task).sort_values("_task", kind="stable", ignore_index=True).drop(columns="_task")


def planted_words(evidence: Evidence, task: str, injection: str) -> str:
    """ "3 of 3 planted"."""
    return f"{len(evidence.planted_of(task, injection))} of {len(evidence.all_seeds)} planted"
