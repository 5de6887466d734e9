"""The report: one HTML file that needs nothing else, every number beside its published value and its origin."""

import base64
import json
import os
import re
from collections.abc import Mapping
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
HEAVY = 300_000
TEXT_COLUMNS = {*CELL, *READING, "recipe", "verdict", "table"}
CLAIM_COLUMNS = ["id", "section", "says", "subject", "statistic", "expected", "measured", "ci_low", "ci_high", "n"]
CLAIM_COLUMNS += ["verdict", "published", "note"]
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
        captions: per name (file stem, with or without the paper's prefix) title, caption, section, notebook, and
            `figure` where the figure of the same name has a caption of its own; the order is the page's.
        records: run records of all jobs, the ones that rendered tables and figures included.
        planted: per subject, how many seeds cleared the planting gate, and of how many.
        parameters: per subject, parameters of one model; left out, they are estimated from the models' sizes.

    Raises:
        ArtifactError: a file is missing or is not what its name says.
    """
    judged = read_claims(claims)
    read = {path.stem: read_table(path) for path in tables if path.suffix == ".csv"}
    runs = [(path, read_record(path)) for path in records]
    link = partial(_link, out.parent)
    items = gather_items(captions, read, tables, figures, runs, link)
    of_forms = [item for item in items if item["name"].endswith("_variants")]
    cells = findings.published_cells(read)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    top_k = f"top-{study['toy']['evaluation']['top_k']}"
    environment.globals["zip"] = zip
    environment.filters |= {"number": findings.number, "slug": slug, "duration": duration, "plain": plain}
    environment.filters["metric"] = lambda name: METRICS.get(name, headword(name)).replace("top-k", top_k)
    environment.filters["headword"] = lambda name: headword(name).replace("top-k", top_k)
    page = environment.from_string(template.read_text(encoding="utf-8")).render(
        study=study,
        style=Markup(style.read_text(encoding="utf-8")),
        findings=findings.find(judged, read, planted),
        claim_counts=findings.count_claims(judged),
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
    write_text_atomic(out, page)


# --- reading ----------------------------------------------------------------------------------------------------------


def read_claims(path: Path) -> pd.DataFrame:
    """claims.csv; ArtifactError when it is missing, lacks a column or has a verdict that no claim can get."""
    table = _read_csv(path)
    if lost := [column for column in CLAIM_COLUMNS if column not in table]:
        raise ArtifactError(f"{path}: not a table of claims: the columns {', '.join(lost)} are missing")
    if strange := sorted(set(table.verdict) - set(findings.CLAIM_VERDICTS)):
        raise ArtifactError(f"{path}: unknown verdict {strange[0]!r}; one of {', '.join(findings.CLAIM_VERDICTS)}")
    numbers = ["measured", "ci_low", "ci_high", "n"]
    table[numbers] = table[numbers].apply(pd.to_numeric)
    return table.assign(ours=table.ours == "True") if "ours" in table else table


def read_table(path: Path) -> pd.DataFrame:
    """A tidy table: names stay text ("0.60"), numbers are numbers; without lines where nothing was measured."""
    table = _read_csv(path)
    is_grid = "measured" in table
    for column in table:
        if is_grid and column in TEXT_COLUMNS:
            continue
        as_number = pd.to_numeric(table[column].replace("", "nan"), errors="coerce")
        if is_grid or as_number.notna().eq(table[column] != "").all():
            table[column] = as_number
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; the rule that makes it has not run") from None
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: not a readable CSV file ({error}); delete it and run again") from None


# --- tables and figures -----------------------------------------------------------------------------------------------


def gather_items(
    captions: Mapping[str, Mapping[str, Any]],
    read: Mapping[str, pd.DataFrame],
    tables: list[Path],
    figures: list[Path],
    runs: list[tuple[Path, dict]],
    link: Any,
) -> list[Item]:
    """What stands on the page under one title: a table, a figure, or both of one name; in the captions' order."""
    pictures = {path.stem: path for path in figures if path.suffix == ".svg"}
    order = [full for name in captions for full in (name, f"lamparth_{name}") if full in {*read, *pictures}]
    makers = {file["path"]: (path, run) for path, run in runs for group in run["outputs"].values() for file in group}
    items = []
    for name in dict.fromkeys([*order, *read, *pictures]):
        said = captions.get(name) or captions.get(name.removeprefix("lamparth_")) or {}
        files = [path for path in [*tables, *figures] if path.stem == name]
        made = {path: makers[end] for path in files for end in makers if end.endswith("/".join(path.parts[-3:]))}
        maker = next(iter(made.values()), (None, {}))
        notebook = said.get("notebook") or _notebook(maker[1])
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
                "empty": table is not None and (table.empty or ("n" in table and not table.n.fillna(0).any())),
                "picture": picture(pictures[name]) if name in pictures else None,
                "links": _links(files, notebook, maker[0], link),
                "explain": [path for path in files if path.suffix == (".csv" if table is not None else ".svg")][:1],
            }
        )
    return items


def lay_out(table: pd.DataFrame) -> list[Item]:
    """A grid of cells per reading: the text's form, the released code's, others, then controls.

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
        grids.append({**_grid(table[own]), "label": _reading(variant, control, has_forms), "control": bool(control)})
    return grids


def _reading(variant: str, control: str, has_forms: bool) -> str:
    form = findings.FORMS.get(variant, variant) if has_forms or control else ""
    if control:
        return f"Control: {control}" + (f", {form}" if form else "")
    if has_forms:
        return form[:1].upper() + form[1:]
    # Without a text form, "original" is the published protocol, whose prompts are training prompts.
    return "The published protocol: prompts seen in training" if variant == "original" else variant or "Measured"


def _grid(cells: pd.DataFrame) -> Item:
    """Rows by columns; metrics that share a row and a column stand side by side."""
    side_by_side = bool(cells.duplicated(["subject", "row", "column"]).any())
    heads = list(dict.fromkeys(zip(cells.column, cells.metric if side_by_side else [""] * len(cells), strict=True)))
    if all(_is_number(column) for column, _ in heads):
        heads.sort(key=lambda head: (float(head[0]), head[1]))
    heads.sort(key=lambda head: head[0] not in ("none", "unedited"))
    by_row = not side_by_side and not set(cells.column) & set(METRICS) and cells.metric.nunique() > 1
    counts = cells.n[cells.n > 0].astype(int)
    usual = int(counts.mode().iloc[0]) if len(counts) else 0
    bodies: dict[str, dict[str, Item]] = {}
    for cell in cells.to_dict("records"):
        rows = bodies.setdefault(cell["subject"], {})
        row = rows.setdefault(cell["row"], {"unit": cell["metric"] if by_row else "", "cells": {}})
        row["cells"][(cell["column"], cell["metric"] if side_by_side else "")] = {
            **cell,
            "n": int(cell["n"]) if cell["n"] > 0 else 0,
            "interval": "" if pd.isna(cell["ci_low"]) else f"[{findings.number(cell['ci_low'])}, {findings.number(cell['ci_high'])}]",
            "exact": cell["column"] == "perfect learner",
        }
    return {
        "heads": heads,
        "bodies": bodies,
        "usual": usual,
        "recipe": ", ".join(sorted(set(cells.recipe) - {""})),
        "metrics": list(dict.fromkeys(cells.metric)),
        "tally": {v: k for v in findings.CELL_VERDICTS if (k := int((cells.verdict == v).sum()))},
    }


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?", text))


def picture(svg: Path) -> Item:
    """The figure as a data URI with its size in pixels, if known; a heavy SVG gives way to a lighter PNG beside it.

    As an image, not as elements: matplotlib's ids would clash, and a script inside would run.
    """
    try:
        content, kind = svg.read_bytes(), "image/svg+xml"
    except FileNotFoundError:
        raise ArtifactError(f"{svg}: missing; the rule that makes it has not run") from None
    png = svg.with_suffix(".png")
    if len(content) > HEAVY and png.exists() and png.stat().st_size < len(content):
        content, kind = png.read_bytes(), "image/png"
    return {"source": Markup(f"data:{kind};base64,{base64.b64encode(content).decode()}")}


def _notebook(run: dict) -> str:
    rule = run.get("rule", "")
    name = run.get("wildcards", {}).get("notebook") or rule.removeprefix("render_")
    return name if rule.startswith("render_") else ""


def _link(start: Path, path: Path) -> str:
    return Path(os.path.relpath(path, start)).as_posix()


def _links(files: list[Path], notebook: str, record: Path | None, link: Any) -> list[tuple[str, str]]:
    words = {".md": "Markdown", ".tex": "LaTeX", ".svg": "SVG", ".png": "PNG"}
    out = []
    if notebook:
        out.append(("executed notebook", f"../notebooks/{Path(notebook).stem}.html"))
    drawn = {path.stem for path in files if path.suffix == ".svg"}
    for path in files:
        plotted = path.parent.name == "figures" and path.stem in drawn
        out.append((words.get(path.suffix) or ("plotted data" if plotted else "tidy CSV"), link(path)))
    if not any(word == "plotted data" for word, _ in out):
        out += [
            ("plotted data", link(path.with_suffix(".csv")))
            for path in files
            if path.suffix == ".svg" and path.with_suffix(".csv").exists()
        ]
    if record:
        out.append(("run record", link(record)))
    return out


def by_section(items: list[Item]) -> dict[str, list[Item]]:
    """Items under their section, sections in the order of their first item."""
    out: dict[str, list[Item]] = {}
    for item in items:
        out.setdefault(item["section"], []).append(item)
    return out


# --- scale and provenance ---------------------------------------------------------------------------------------------


def scale(study: Mapping, runs: list[dict], parameters: Mapping[str, int] | None) -> Item:
    """How large the study is: seeds, models, sequences, parameters of one model, devices, CPU time."""
    toy, seeds = study["toy"], study["seeds"]
    subjects = toy["language"]["subjects"]
    retrained = sum(len(toy[what].get(s, [])) for what in ("frozen", "amounts") for s in subjects)
    sizes = sorted(set((parameters or _estimated_parameters(runs)).values()))
    return {
        "models": len(seeds) * (2 * len(subjects) + retrained),
        "sequences": {s: sum(counts.values()) for s, counts in subjects.items()},
        "parameters": " to ".join(f"{size:,}" for size in dict.fromkeys([*sizes[:1], *sizes[-1:]])),
        "about": parameters is None,
        "devices": ", ".join(sorted({run["device"] for run in runs})),
        "cpu_s": sum(run["cpu_s"] for run in runs),
        "wall_s": sum(run["wall_s"] for run in runs),
    }


def _estimated_parameters(runs: list[dict]) -> dict[str, int]:
    """Four bytes per parameter; a safetensors file's header is small beside them. To the nearest thousand."""
    models = [f for run in runs for group in run["outputs"].values() for f in group if f["path"].endswith("/model.safetensors")]
    return {file["path"]: round(file["bytes"] / 4000) * 1000 for file in models}


def by_rule(runs: list[dict]) -> list[Item]:
    """Jobs, wall and CPU time, peak memory per rule, in order of first appearance."""
    out: dict[str, Item] = {}
    for run in runs:
        rule = out.setdefault(
            run["rule"], {"rule": run["rule"], "jobs": 0, "wall_s": 0.0, "cpu_s": 0.0, "longest_s": 0.0, "peak_rss_mb": 0.0}
        )
        rule["jobs"] += 1
        for name in ("wall_s", "cpu_s"):
            rule[name] += run[name]
        rule["longest_s"] = max(rule["longest_s"], run["wall_s"])
        rule["peak_rss_mb"] = max(rule["peak_rss_mb"], run["peak_rss_mb"])
    return list(out.values())


def versions(runs: list[dict]) -> Item:
    """Commits (with "changed" where the tree differed from it), Python, platform, packages; several where jobs differ."""
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


# --- words ------------------------------------------------------------------------------------------------------------


def slug(text: str) -> str:
    """A text as an anchor."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def headword(name: str) -> str:
    """A column's name for people: "topk_negativity" -> "top-k negativity"."""
    return METRICS.get(name, name.replace("_", " ")).split(",")[0]


def plain(value: Any) -> str:
    """A value of a table that is not a grid of cells."""
    if isinstance(value, float):
        return "–" if pd.isna(value) else f"{value:.0f}" if value.is_integer() else findings.number(value)
    return str(value)


def duration(seconds: float) -> str:
    """"48 s", "3 min 20 s", "1 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
