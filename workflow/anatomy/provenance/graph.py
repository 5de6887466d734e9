"""The chain behind a result as a picture: files and jobs from left to right, plain SVG.

A box of files holds what one job made and the same jobs read, so that the weights of many seeds are one box. What
is not as it was recorded is red, and stands first in its box.
"""

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree import ElementTree

from anatomy.provenance.digest import short
from anatomy.provenance.explain import Chain

LETTER, LINE = 6.7, 16.0  # width of a letter and height of a line, in pixels, of the 11 px font
GAP, COLUMN_GAP, MARGIN = 14.0, 60.0, 20.0
MOST_FILES = 8  # files listed in a box
LONGEST = 64  # letters of a name that are shown; the tooltip has all
SOUND, BROKEN = "#555555", "#c00000"
FILLS = {"raw": "#fff4d6", "made": "#eef4fb", "job": "#e9f5e9"}
# Characters that no XML document may hold, not even escaped.
FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass
class _Box:
    kind: str  # a key of FILLS
    lines: list[tuple[str, bool]]  # text, whether it is as recorded
    tooltip: str
    column: int = 0  # 0: what was asked for; counted leftwards
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0

    @property
    def height(self) -> float:
        return LINE * len(self.lines) + 10

    @property
    def sound(self) -> bool:
        return all(sound for _, sound in self.lines)


def chain_svg(chain: Chain) -> str:
    """The chain as the text of an SVG file."""
    boxes, edges = _boxes(chain)
    width, height = _place(boxes, edges)
    svg = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width:.0f} {height:.0f}",
            "width": f"{width:.0f}",
            "height": f"{height:.0f}",
            "font-family": "monospace",
            "font-size": "11",
        },
    )
    _add(svg, "title", _clean(f"Where {chain.target} comes from"))
    _add(svg, "rect", width="100%", height="100%", fill="white")
    for start, end, sound in edges:
        _draw_edge(svg, boxes[start], boxes[end], sound)
    for box in boxes.values():
        _draw_box(svg, box)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


def _boxes(chain: Chain) -> tuple[dict[str, _Box], list[tuple[str, str, bool]]]:
    """Boxes by name, and edges (from, to, whether the link is as recorded)."""
    jobs = {job.record: job for job in chain.jobs.values()}
    readers: dict[str, list[str]] = defaultdict(list)
    for record, job in jobs.items():
        for path in job.inputs:
            readers[path].append(record)
    groups: dict[tuple[str, tuple[str, ...], bool], list[str]] = defaultdict(list)
    for path in chain.seen:
        maker = chain.jobs[path].record if path in chain.jobs else ""
        groups[maker, tuple(readers[path]), path in chain.files].append(path)
    boxes, edges = {}, []
    for record, job in jobs.items():
        kept = "" if job.record_intact else " (NOT the record of the manifest)"
        lines = [(job.name, True), (f"code {short(job.code)}", True), (f"record{kept}", not kept)]
        boxes[f"job {record}"] = _Box("job", lines[: 3 if kept else 2], f"{job.name}\n{record}\ncode {job.code}")
    for number, ((maker, used_by, _), paths) in enumerate(groups.items()):
        name = f"files {number}"
        boxes[name] = _files_box(chain, paths, {path: _recorded(chain, path) for path in paths}, bool(maker))
        if maker:
            edges.append((f"job {maker}", name, boxes[name].sound and jobs[maker].record_intact))
        for reader in used_by:
            inputs = jobs[reader].inputs
            same = all(chain.seen[path].sha256 == inputs[path] or chain.stays_away(path) for path in paths)
            edges.append((name, f"job {reader}", same))
    return boxes, edges


def _recorded(chain: Chain, path: str) -> str:
    """The digest a path of the chain was recorded with."""
    read = (job.inputs[path] for job in chain.jobs.values() if path in job.inputs)
    return chain.files[path] if path in chain.files else next(read)


def _files_box(chain: Chain, paths: list[str], recorded: dict[str, str], made: bool) -> _Box:
    state = {path: chain.seen[path].sha256 == recorded[path] or chain.stays_away(path) for path in paths}
    home = os.path.commonpath([PurePosixPath(path).parent.as_posix() for path in paths]) if len(paths) > 1 else ""
    lines = [(f"{_cut(home)}/", True)] if home else []
    for path in sorted(paths, key=lambda path: (state[path], path))[:MOST_FILES]:
        name = path.removeprefix(f"{home}/") if home else path
        now = chain.seen[path].sha256
        change = (
            " withheld"
            if chain.stays_away(path)
            else ""
            if state[path]
            else f" CHANGED: {short(now)}"
            if now
            else " NOT THERE"
        )
        lines.append((f"{_cut(name)} {short(recorded[path])}{change}", state[path]))
    if len(paths) > MOST_FILES:
        rest = sorted(paths, key=lambda path: (state[path], path))[MOST_FILES:]
        wrong = sum(not state[path] for path in rest)
        lines.append((f"and {len(rest)} more, {f'{wrong} CHANGED' if wrong else 'as recorded'}", not wrong))
    tooltip = "\n".join(f"{path} {recorded[path]}" for path in paths)
    return _Box("made" if made else "raw", lines, tooltip)


def _place(boxes: dict[str, _Box], edges: list[tuple[str, str, bool]]) -> tuple[float, float]:
    """Give every box its column (the longest way to what was asked for) and its place; width and height of all."""
    moved = True
    while moved:  # the chain has no circle: a manifest whose jobs read their own results cannot be written
        moved = False
        for start, end, _ in edges:
            if boxes[start].column <= boxes[end].column < len(boxes):
                boxes[start].column, moved = boxes[end].column + 1, True
    columns: dict[int, list[str]] = defaultdict(list)
    for name, box in boxes.items():
        box.width = LETTER * max(len(text) for text, _ in box.lines) + 16
        columns[box.column].append(name)
    tallest = max(sum(boxes[n].height + GAP for n in names) for names in columns.values())
    x = MARGIN
    for column in sorted(columns, reverse=True):
        for name in columns[column]:
            boxes[name].x = x
        x += max(boxes[name].width for name in columns[column]) + COLUMN_GAP
    for column in sorted(columns):  # from the right: a box stands at the height of what it leads to
        names = sorted(columns[column], key=lambda name: _height_of_readers(name, boxes, edges))
        y = MARGIN + (tallest - sum(boxes[name].height + GAP for name in names)) / 2
        for name in names:
            boxes[name].y = y
            y += boxes[name].height + GAP
    return x - COLUMN_GAP + MARGIN, tallest + 2 * MARGIN


def _height_of_readers(name: str, boxes: dict[str, _Box], edges: list[tuple[str, str, bool]]) -> float:
    heights = [boxes[end].y + boxes[end].height / 2 for start, end, _ in edges if start == name]
    return sum(heights) / len(heights) if heights else 0.0


def _draw_edge(svg: ElementTree.Element, start: _Box, end: _Box, sound: bool) -> None:
    x1, y1 = start.x + start.width, start.y + start.height / 2
    x2, y2 = end.x, end.y + end.height / 2
    bend = (x2 - x1) / 2
    path = f"M {x1:.1f} {y1:.1f} C {x1 + bend:.1f} {y1:.1f}, {x2 - bend:.1f} {y2:.1f}, {x2:.1f} {y2:.1f}"
    _add(svg, "path", d=path, fill="none", stroke=SOUND if sound else BROKEN, stroke_width="1" if sound else "2.5")


def _draw_box(svg: ElementTree.Element, box: _Box) -> None:
    group = _add(svg, "g")
    _add(group, "title", _clean(box.tooltip))
    colour = SOUND if box.sound else BROKEN
    size = {"x": f"{box.x:.1f}", "y": f"{box.y:.1f}", "width": f"{box.width:.1f}", "height": f"{box.height:.1f}"}
    _add(group, "rect", **size, rx="8" if box.kind == "job" else "1", fill=FILLS[box.kind], stroke=colour)
    for number, (text, sound) in enumerate(box.lines, start=1):
        place = {"x": f"{box.x + 8:.1f}", "y": f"{box.y + LINE * number:.1f}"}
        _add(group, "text", _clean(text), **place, fill="black" if sound else BROKEN)


def _add(parent: ElementTree.Element, tag: str, text: str = "", **attributes: str) -> ElementTree.Element:
    """A new element; ElementTree escapes every text and value. `stroke_width` stands for stroke-width."""
    element = ElementTree.SubElement(parent, tag, {name.replace("_", "-"): v for name, v in attributes.items()})
    element.text = text or None
    return element


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"


def _clean(text: str) -> str:
    return FORBIDDEN.sub("?", text)
