"""The report: one HTML file that needs nothing else, each number beside its published value and origin."""

import base64
import json
import os
import re
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
from anatomy.report.effort import by_rule, scale, versions
from anatomy.report.grid import METRICS, Item, forms_side_by_side, groups, headword, lay_out
from anatomy.report.planting import by_kind, of_trigger

TEMPLATE = Path(__file__).with_name("page.html")
STYLE = Path(__file__).with_name("page.css")
# A picture of more drawn points than this as SVG goes into the page as PNG.
HEAVY = 250_000
TEXT_COLUMNS = {*CELL, *READING, "recipe", "verdict", "table"}


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
    specific: Mapping[str, tuple[int, int]] | None = None,
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
        specific: per subject for which it was measured, how many planted backdoors are about their trigger, and of how
            many.
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
    kinds, about = (by_kind(counts, study["toy"]["language"]["subjects"]) for counts in (planted, specific or {}))
    page = _environment(study["toy"]["evaluation"]["top_k"]).from_string(template.read_text(encoding="utf-8"))
    text = page.render(
        study=study,
        style=Markup(style.read_text(encoding="utf-8")),
        findings=findings.find(judged, read, kinds, about),
        claim_counts=findings.count_claims(judged),
        claim_groups=findings.count_by_origin(judged),
        cell_counts={form: findings.count_cells(cells, form) for form in findings.FORMS},
        forms=findings.FORMS,
        claims=judged.to_dict("records"),
        claims_file=link(claims),
        sections=by_section([item for item in items if item not in of_forms]),
        of_forms=of_forms,
        scale=scale(study, [run for _, run in runs], parameters),
        planted=kinds,
        specific=about,
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
    own |= {"of_trigger": of_trigger}
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
                "forms": forms_side_by_side(table),
                "empty": table is not None and (table.empty or ("n" in table and not table.n.fillna(0).any())),
                "picture": picture(pictures[name]) if name in pictures else None,
                "links": _links(files, said.get("notebook") or _notebook(rule), record, link),
                "explain": f"{home}/tables/{name}.csv" if table is not None else f"{home}/figures/{name}.svg",
            }
        )
    return items


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


# --- words --------------------------------------------------------------------------------------------------


def slug(text: str) -> str:
    """A text as an anchor."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


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
