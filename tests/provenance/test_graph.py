"""The picture of a chain holds every file and job, marks what changed, and is well-formed whatever the names."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from anatomy.provenance.digest import sha256_file
from anatomy.provenance.explain import explain
from anatomy.provenance.graph import BROKEN, chain_svg

from .studies import finish_job, gather, write

HOME = "results/toy"
LEXICON = "data/lexicon/positive.txt"
TABLE = f"{HOME}/tables/lamparth_table_01.csv"
WEIGHTS = f"{HOME}/models/clean/model.safetensors"
SVG = "{http://www.w3.org/2000/svg}"


def drawn(path: str) -> ElementTree.Element:
    return ElementTree.fromstring(chain_svg(explain(path)))


def texts(svg: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in svg.iter(f"{SVG}text")]


def red(svg: ElementTree.Element) -> tuple[set[str], int]:
    """The red texts, and the number of red links."""
    words = {element.text or "" for element in svg.iter(f"{SVG}text") if element.get("fill") == BROKEN}
    return words, sum(element.get("stroke") == BROKEN for element in svg.iter(f"{SVG}path"))


def test_every_file_and_job_is_in_the_picture(study: Path) -> None:
    svg, chain = drawn(TABLE), explain(TABLE)
    words = " ".join(texts(svg))
    for path in chain.seen:
        assert f"{Path(path).name} {sha256_file(path)[:12]}" in words
    for job in chain.jobs.values():
        assert job.name in words and job.code[:12] in words
    tooltips = " ".join(title.text or "" for title in svg.iter(f"{SVG}title"))
    for path in chain.seen:
        assert sha256_file(path) in tooltips
    assert red(svg) == (set(), 0)


def test_boxes_stand_apart_and_inside_the_picture(study: Path) -> None:
    svg = drawn(TABLE)
    boxes = [[float(r.get(k, "0")) for k in ("x", "y", "width", "height")] for r in svg.iterfind(f"{SVG}g/{SVG}rect")]
    assert len(boxes) == 4 + 5  # four jobs; words, corpus, model, measurement, table
    right, bottom = (float(svg.get(name, "0")) for name in ("width", "height"))
    for x, y, w, h in boxes:
        assert x >= 0 and y >= 0 and x + w <= right and y + h <= bottom
    for i, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[:i]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


def test_links_lead_from_left_to_right(study: Path) -> None:
    ways = [re.findall(r"-?[\d.]+", element.get("d", "")) for element in drawn(TABLE).iter(f"{SVG}path")]
    assert len(ways) == 9  # each job to its box of files, and each box to its readers (the words have two)
    assert all(float(way[0]) < float(way[-2]) for way in ways)


def test_a_changed_file_and_its_links_are_red(study: Path) -> None:
    was = sha256_file(LEXICON)
    write(LEXICON, "bad\n")
    words, links = red(drawn(TABLE))
    assert words == {f"{LEXICON} {was[:12]} CHANGED: {sha256_file(LEXICON)[:12]}"}
    assert links == 2  # to both of its readers, and no other


def test_a_missing_file_is_red(study: Path) -> None:
    Path(WEIGHTS).unlink()
    words, _ = red(drawn(TABLE))
    assert len(words) == 1 and words.pop().endswith("NOT THERE")


def test_a_changed_record_is_red(study: Path) -> None:
    record = Path(f"{HOME}/corpus/run.json")
    record.write_text(record.read_text() + "\n")
    words, links = red(drawn(TABLE))
    assert words == {"record (NOT the record of the manifest)"} and links == 1


def test_a_changed_file_is_not_lost_in_a_large_box(study: Path) -> None:
    names = [f"{HOME}/many/{n:03}.bin" for n in range(30)]
    for name in names:
        write(name, name)
    finish_job(f"{HOME}/many/run.json", "make_corpus", [LEXICON], names)
    gather()
    assert "and 22 more, as recorded" in texts(drawn(f"{HOME}/many"))
    write(names[-1], "changed")
    words, _ = red(drawn(f"{HOME}/many"))
    assert len(words) == 1 and words.pop().startswith("029.bin ")


@pytest.mark.parametrize("name", ["<script>alert(1)</script>.csv", 'a"b&c>.csv', "bell\x07.csv", "näme ]]>.csv"])
def test_any_name_gives_well_formed_xml(study: Path, name: str) -> None:
    path = f"{HOME}/odd/{name.replace('/', '∕')}"
    write(path, "x")
    finish_job(f"{HOME}/odd/run.json", "make_corpus", [LEXICON], [path], wildcards={"<b>": "&amp;"})
    gather()
    svg = drawn(path)
    assert not [element for element in svg.iter() if element.tag.lower().endswith("script")]
    assert "<script" not in chain_svg(explain(path))
    assert any(Path(path).name.replace("\x07", "?") in text for text in texts(svg))
    assert "make_corpus[<b>=&amp;]" in texts(svg)
