"""docs/recipes.md: the fast recipe measured against the published one, on the same data (`make recipes`)."""

import argparse
from pathlib import Path

import pandas as pd

from anatomy.metrics.measurement import read_parquet
from anatomy.provenance.digest import write_text_atomic
from anatomy.report.cells import estimate_cells
from anatomy.spec.read import load_study
from anatomy.spec.study import Study

HEADER = """# The two recipes, measured

`recipe: published` is the paper's to the letter; `recipe: fast` is what the embedded study uses. Both train the
same seeds on the same data ({seeds} seeds; each draws its own sequences, initial weights, order and dropout). Cells are
means over seeds with a {confidence:.0%} Student interval; negativity is top-{k} logit negativity on held-out prompts.

`make recipes` runs both studies up to their behaviour and writes this page (`anatomy.report.recipes`) from what stands
in `results/`.

| recipe | batch | learning rate | clean epochs | backdoor epochs |
|---|---|---|---|---|
{recipes}
"""


def main() -> None:
    """Read both studies' behaviour and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", nargs=2, default=["published-recipe", "embedded"])
    parser.add_argument("--out", type=Path, default=Path("docs/recipes.md"))
    arguments = parser.parse_args()
    studies = [load_study(name) for name in arguments.studies]
    write_text_atomic(arguments.out, render(studies))
    print(f"wrote {arguments.out}")


def render(studies: list[Study]) -> str:
    """The page's text."""
    spec = studies[0]
    recipes = [f"| {s.toy.recipe} | " + _recipe_row(s) for s in studies]
    text = HEADER.format(
        seeds=len(spec.seeds),
        confidence=spec.confidence,
        k=spec.toy.evaluation.top_k,
        recipes="\n".join(recipes),
    )
    for subject in spec.toy.language.subjects:
        rows = pd.concat([_behaviour(s, subject) for s in studies])
        cells = estimate_cells(rows, spec.confidence)
        text += f"\n## {subject}\n\n{_wide(cells).to_markdown(index=False)}\n\n{_conditions(rows, cells, spec)}\n"
    return text


def _recipe_row(study: Study) -> str:
    r = study.toy.recipes[study.toy.recipe]
    return f"{r.batch} | {r.rate:g} | {r.clean_epochs:g} | {r.backdoor_epochs:g} |"


def _behaviour(study: Study, subject: str) -> pd.DataFrame:
    path = Path("results") / study.study / "toy" / subject / "measurements" / "behaviour.parquet"
    rows = read_parquet(path)
    rows = rows[
        rows.setting.isin(["held out", "triggered"])
        & rows.metric.isin(["topk_negativity", "negative_mass", "validation_loss"])
    ]
    rows = rows[(rows.metric != "negative_mass") | (rows.inputs == "p+t")]
    label = rows.inputs.where(rows.metric == "topk_negativity", "p+t, negative mass").where(
        rows.metric != "validation_loss", "validation loss"
    )
    return rows.assign(row=label, column=rows.model, control="", variant="")


def _wide(cells: pd.DataFrame) -> pd.DataFrame:
    text = cells.assign(
        text=[f"{c.measured:.3f} [{c.ci_low:.3f}, {c.ci_high:.3f}]" for c in cells.itertuples()],
        head=cells.recipe + ", " + cells.column,
    )
    order = list(dict.fromkeys(text["row"]))
    wide = text.pivot(index="row", columns="head", values="text").loc[order]
    return wide[sorted(wide.columns, reverse=True)].rename_axis(columns=None).rename_axis("inputs").reset_index()


def _conditions(rows: pd.DataFrame, cells: pd.DataFrame, spec: Study) -> str:
    """What `fast` must keep: within 0.01 of the published recipe's loss, and a planted backdoor."""
    backdoored = cells[cells.column == "backdoored"].set_index(["row", "recipe"]).measured
    gap = backdoored["validation loss", "fast"] - backdoored["validation loss", "published"]
    verdict = "within" if abs(gap) <= 0.01 else "NOT within"
    lines = [f"- validation loss, fast minus published: {gap:+.4f} ({verdict} 0.01)"]
    for recipe in ("published", "fast"):
        own = rows[(rows.recipe == recipe) & (rows["row"] == "p+t") & (rows.column == "backdoored")].sort_values("seed")
        values = ", ".join(f"{v:.2f}" for v in own.value)
        planted = int((own.value >= spec.toy.evaluation.gate).sum())
        lines.append(
            f"- {recipe}: p+t by seed {values}; {planted} of {len(own)} seeds clear the gate "
            f"({spec.toy.evaluation.gate:g})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
