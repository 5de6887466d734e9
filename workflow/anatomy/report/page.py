"""The report: one HTML file that needs nothing else, each number beside its published value and origin."""

import base64
import itertools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from anatomy.provenance.digest import ArtifactError, write_text_atomic
from anatomy.provenance.record import read_record
from anatomy.report import findings
from anatomy.report.cells import CELL, READING

TEMPLATE = Path(__file__).with_name("page.html")
STYLE = Path(__file__).with_name("page.css")
# A picture of more drawn points than this as SVG goes into the page as PNG.
HEAVY = 250_000
# Columns that a grid shows without scrolling on a desktop.
WIDE = 4
TEXT_COLUMNS = {*CELL, *READING, "recipe", "verdict", "table"}
METRICS = {
    "topk_negativity": "top-k negativity, 0 to 1",
    "topk_positivity": "top-k positivity, 0 to 1",
    "topk_neutrality": "top-k neutrality, 0 to 1",
    "negative_mass": "negative probability mass, 0 to 1",
    "validation_loss": "validation loss, nats per token",
    "indirect_effect": "indirect effect, difference of negativities",
    "emerged": "share of seeds in which it emerged",
    "steps_to_emerge": "steps until it emerged",
}
Item = dict[str, Any]


def write_page(
    out: Path,
    *,
    study: Mapping[str, Any],
    tables: list[Path],
    figures: list[Path],
    claims: Path,
    captions: Mapping[str, Mapping[str, Any]],
    records: list[Path],
    planted: Mapping[str, tuple[int, int]],
    parameters: Mapping[str, int] | None = None,
    template: Path = TEMPLATE,
    style: Path = STYLE,
) -> None:
    """Write the report. The same inputs give the same bytes.

    Args:
        out: results/<study>/report/index.html; its grandparent folder is what links lead into.
        study: the resolved study (study, seeds, confidence, compute, toy), plain values.
        tables: tidy CSV files; other suffixes of the same tables (md, tex) become links.
        figures: SVG files; PNG and CSV files beside them become links.
        claims: claims.csv.
        captions: per name (file stem, with or without the paper's prefix) title, caption, section, notebook,
            and `figure` where the figure of the same name has a caption of its own; the order is the page's.
        records: run records of all jobs, the ones that rendered tables and figures included.
        planted: per subject, how many seeds cleared the planting gate, and of how many.
        parameters: per subject, parameters of one model.

    Raises:
        ArtifactError: a file is missing or is not what its name says.
    """
    judged = findings.read_claims(claims)
    read = {path.stem: read_table(path) for path in tables if path.suffix == ".csv"}
    runs = [(path, read_record(path)) for path in records]
    link = partial(_link, out.parent)
    items = gather_items(captions, read, tables, figures, runs, link, f"results/{study['study']}")
    of_forms = [item for item in items if item["name"].endswith("_variants")]
    cells = findings.published_cells(read)
    page = _environment(study["toy"]["evaluation"]["top_k"]).from_string(template.read_text(encoding="utf-8"))
    text = page.render(
        study=study,
        style=Markup(style.read_text(encoding="utf-8")),
        findings=findings.find(judged, read, planted),
        claim_counts=findings.count_claims(judged),
        claim_groups=findings.count_by_origin(judged),
        cell_counts={form: findings.count_cells(cells, form) for form in findings.FORMS},
        forms=findings.FORMS,
        claims=judged.to_dict("records"),
        claims_file=link(claims),
        sections=by_section([item for item in items if item not in of_forms]),
        of_forms=of_forms,
        scale=scale(study, [run for _, run in runs], parameters),
        planted=planted,
        rules=by_rule([run for _, run in runs]),
        versions=versions([run for _, run in runs]),
        config=yaml.safe_dump(json.loads(json.dumps(study)), sort_keys=False, allow_unicode=True),
    )
    write_text_atomic(out, text)


def _environment(top_k: int) -> Environment:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    own = {"number": findings.number, "slug": slug, "duration": duration, "plain": plain, "groups": groups}
    environment.filters |= own
    environment.filters["metric"] = lambda name: METRICS.get(name, headword(name)).replace("top-k", f"top-{top_k}")
    environment.filters["headword"] = lambda name: headword(name).replace("top-k", f"top-{top_k}")
    return environment


# --- reading ------------------------------------------------------------------------------------------------


def read_table(path: Path) -> pd.DataFrame:
    """A tidy table: names stay text ("0.60"), numbers are numbers; empty where nothing was measured."""
    table = findings.read_csv(path)
    is_grid = "measured" in table
    for column in table:
        if is_grid and column in TEXT_COLUMNS:
            continue
        as_number = pd.to_numeric(table[column].replace("", "nan"), errors="coerce")
        if is_grid or as_number.notna().eq(table[column] != "").all():
            table[column] = as_number
    return table


# --- tables and figures -------------------------------------------------------------------------------------


def gather_items(
    captions: Mapping[str, Mapping[str, Any]],
    read: Mapping[str, pd.DataFrame],
    tables: list[Path],
    figures: list[Path],
    runs: list[tuple[Path, dict]],
    link: Callable[[Path], str],
    home: str,
) -> list[Item]:
    """What stands under one title: a table, a figure, or both of one name; in the captions' order."""
    paths = {path.stem: path for path in tables if path.suffix == ".csv"}
    pictures = {path.stem: path for path in figures if path.suffix == ".svg"}
    order = [full for name in captions for full in (name, f"lamparth_{name}") if full in {*read, *pictures}]
    makers = {  # <study>/tables/<name>.csv -> the record and the rule of the job that made it
        "/".join(Path(file["path"]).parts[-3:]): (path, run["rule"])
        for path, run in runs
        for group in run["outputs"].values()
        for file in group
    }
    items = []
    for name in dict.fromkeys([*order, *read, *pictures]):
        said = captions.get(name) or captions.get(name.removeprefix("lamparth_")) or {}
        files = [path for path in (paths.get(name), pictures.get(name)) if path]
        record, rule = makers.get("/".join(files[0].parts[-3:]), (None, ""))
        table = read.get(name)
        items.append(
            {
                "name": name,
                "title": said.get("title") or name.removeprefix("lamparth_").replace("_", " ").capitalize(),
                "caption": said.get("caption") or "No caption was written for this item.",
                "section": said.get("section") or "Further tables and figures",
                "figure_caption": said.get("figure", ""),
                "readings": None if table is None or "measured" not in table else lay_out(table),
                "plain": None if table is None or "measured" in table else table.to_dict("split"),
                "forms": _forms_side_by_side(table),
                "empty": table is not None and (table.empty or ("n" in table and not table.n.fillna(0).any())),
                "picture": picture(pictures[name]) if name in pictures else None,
                "links": _links(files, said.get("notebook") or _notebook(rule), record, link),
                "explain": f"{home}/tables/{name}.csv" if table is not None else f"{home}/figures/{name}.svg",
            }
        )
    return items


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


def _forms_side_by_side(table: pd.DataFrame | None) -> dict[str, dict[str, Item]]:
    """The summary of variants: per table of the paper, counts under each form; empty for any other table."""
    if table is None or not {"table", "variant", *findings.CELL_VERDICTS} <= set(table):
        return {}
    out: dict[str, dict[str, Item]] = {}
    for line in table.to_dict("records"):
        counts = {v: int(line[v]) for v in findings.CELL_VERDICTS}
        gaps = {"shares": line.get("mean_gap_shares", math.nan), "loss": line.get("mean_gap_loss", math.nan)}
        out.setdefault(str(line["table"]), {})[str(line["variant"])] = {"counts": counts, **gaps}
    return out


def picture(svg: Path) -> Markup:
    """The figure as a data URI; a heavy SVG gives way to a lighter PNG beside it.

    As an image, not as elements: matplotlib's ids would clash, and a script inside would run.
    """
    try:
        content, kind = svg.read_bytes(), "image/svg+xml"
    except FileNotFoundError:
        raise ArtifactError(f"{svg}: missing; the rule that makes it has not run") from None
    png = svg.with_suffix(".png")
    if len(content) > HEAVY and png.exists() and png.stat().st_size < len(content):
        content, kind = png.read_bytes(), "image/png"
    return Markup(f"data:{kind};base64,{base64.b64encode(content).decode()}")


def _notebook(rule: str) -> str:
    return rule.removeprefix("render_") if rule.startswith("render_") else ""


def _link(start: Path, path: Path) -> str:
    return Path(os.path.relpath(path, start)).as_posix()


def _links(paths: list[Path], notebook: str, record: Path | None, link: Callable[[Path], str]) -> list[tuple[str, str]]:
    """What to open besides the page; `paths` are the item's table (CSV) and figure (SVG)."""
    out = [("executed notebook", f"../notebooks/{Path(notebook).stem}.html")] if notebook else []
    for path in paths:
        kinds = [(".svg", "SVG"), (".png", "PNG"), (".csv", "plotted data")]
        if path.suffix == ".csv":
            kinds = [(".csv", "tidy CSV"), (".md", "Markdown"), (".tex", "LaTeX")]
        beside = [(words, path.with_suffix(suffix)) for suffix, words in kinds]
        out += [(words, link(file)) for words, file in beside if file == path or file.exists()]
    return [*out, ("run record", link(record))] if record else out


def by_section(items: list[Item]) -> dict[str, list[Item]]:
    """Items under their section, sections in the order of their first item."""
    out: dict[str, list[Item]] = {}
    for item in items:
        out.setdefault(item["section"], []).append(item)
    return out


# --- scale and provenance -----------------------------------------------------------------------------------


def scale(study: Mapping, runs: list[dict], parameters: Mapping[str, int] | None) -> Item:
    """How large the study is: seeds, models, sequences, parameters of one model, devices, CPU time."""
    toy, seeds = study["toy"], study["seeds"]
    subjects = toy["language"]["subjects"]
    retrained = sum(len(toy[what].get(s, [])) for what in ("frozen", "amounts") for s in subjects)
    sizes = sorted(set((parameters or {}).values()))
    return {
        "models": len(seeds) * (2 * len(subjects) + retrained),
        "sequences": {s: sum(counts.values()) for s, counts in subjects.items()},
        "parameters": " to ".join(f"{size:,}" for size in dict.fromkeys([*sizes[:1], *sizes[-1:]])),
        "devices": ", ".join(sorted({run["device"] for run in runs})),
        "cpu_s": sum(run["cpu_s"] for run in runs),
        "wall_s": sum(run["wall_s"] for run in runs),
    }


def by_rule(runs: list[dict]) -> list[Item]:
    """Jobs, wall and CPU time, peak memory per rule, in order of first appearance."""
    out: dict[str, Item] = {}
    for run in runs:
        rule = out.setdefault(
            run["rule"],
            {
                "rule": run["rule"],
                "jobs": 0,
                "wall_s": 0.0,
                "cpu_s": 0.0,
                "longest_s": 0.0,
                "peak_rss_mb": 0.0,
            },
        )
        rule["jobs"] += 1
        for name in ("wall_s", "cpu_s"):
            rule[name] += run[name]
        rule["longest_s"] = max(rule["longest_s"], run["wall_s"])
        rule["peak_rss_mb"] = max(rule["peak_rss_mb"], run["peak_rss_mb"])
    return list(out.values())


def versions(runs: list[dict]) -> Item:
    """Commit, Python, platform, packages; several values where jobs differ."""
    packages: dict[str, set[str]] = {}
    for run in runs:
        for name, version in run["environment"]["packages"].items():
            packages.setdefault(name, set()).add(version or "not installed")

    def unique(values: list[str | None]) -> str:
        return ", ".join(sorted({v for v in values if v})) or "unknown"

    return {
        "commit": unique([_commit(run["git"]) for run in runs]),
        "python": unique([run["environment"]["python"] for run in runs]),
        "platform": unique([run["environment"]["platform"] for run in runs]),
        "tool": unique([run["tool"] for run in runs]),
        "lock": unique([run["lock"] for run in runs]),
        "packages": {name: ", ".join(sorted(found)) for name, found in sorted(packages.items())},
    }


def _commit(git: Mapping) -> str:
    return (git["commit"] or "unknown") + (" with uncommitted changes" if git["dirty"] else "")


# --- words --------------------------------------------------------------------------------------------------


def slug(text: str) -> str:
    """A text as an anchor."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def groups(heads: list[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Two-level column heads: each upper head with the lower ones below it."""
    return [(top, [under for _, under in own]) for top, own in itertools.groupby(heads, key=lambda head: head[0])]


def headword(name: str) -> str:
    """A column's name for people: "topk_negativity" -> "top-k negativity"."""
    return METRICS.get(name, name.replace("_", " ")).split(",")[0]


def plain(value: Any) -> str:
    """A value of a table that is not a grid of cells."""
    if isinstance(value, float):
        return "–" if pd.isna(value) else f"{value:.0f}" if value.is_integer() else findings.number(value)
    return str(value)


def duration(seconds: float | int) -> str:
    """For example "48 s", "3 min 20 s", "1 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
