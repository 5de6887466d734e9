"""Writing tables: tidy CSV for programs, Markdown and LaTeX for people."""

from pathlib import Path

import pandas as pd

from anatomy.provenance.digest import write_text_atomic


def write_table(table: pd.DataFrame, folder: str | Path, name: str, caption: str) -> None:
    """Write <name>.csv (tidy), <name>.md and <name>.tex (cells laid out as in the paper)."""
    folder = Path(folder)
    wide = layout(table)
    write_text_atomic(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    write_text_atomic(folder / f"{name}.md", f"{caption}\n\n{wide.to_markdown(index=False)}\n")
    latex = wide.to_latex(index=False, escape=True, caption=caption, label=f"tab:{name}")
    write_text_atomic(folder / f"{name}.tex", latex)


def layout(table: pd.DataFrame) -> pd.DataFrame:
    """Rows by columns; a cell reads "measured [interval] / published: verdict"."""
    if "measured" not in table:
        return table
    order = list(dict.fromkeys(table.column))
    several = table.metric.nunique() > 1
    lines: dict[tuple, dict[str, str]] = {}
    for cell in table.to_dict("records"):
        reading = " ".join(filter(None, [cell["variant"], cell["control"]]))
        key = (cell["subject"], cell["row"], cell["metric"] if several else "", reading)
        lines.setdefault(key, {})[cell["column"] or "value"] = cell_text(cell)
    heads = [head or "value" for head in order]
    rows = [
        {"subject": s, "row": r, **({"metric": m} if several else {}), "reading": reading or "-", **cells}
        for (s, r, m, reading), cells in lines.items()
    ]
    lead = [c for c in ("subject", "row", "metric", "reading") if c in rows[0]] if rows else []
    return pd.DataFrame(rows, columns=[*lead, *heads]).fillna("")


def cell_text(cell: dict) -> str:
    """ ".35 [.20, .50] / .35 agrees": measured, its interval, published, verdict."""
    if pd.isna(cell["measured"]):
        measured = "-"
    elif pd.isna(cell["ci_low"]):
        measured = f"{cell['measured']:.2f}"
    else:
        measured = f"{cell['measured']:.2f} [{cell['ci_low']:.2f}, {cell['ci_high']:.2f}]"
    return measured if pd.isna(cell["published"]) else f"{measured} / {cell['published']:.2f} {cell['verdict']}"
