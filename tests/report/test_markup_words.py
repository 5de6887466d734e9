"""Markup in a word list: through the stage that draws sequences of it, and a figure that shows some, into the page."""

import base64
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import rc_context

from anatomy.data.lexicon import read_words
from anatomy.report.figures.samples import read_examples, samples
from anatomy.report.figures.save import save_figure
from anatomy.report.figures.style import STYLE
from anatomy.report.page import write_page
from anatomy.spec.read import load_study
from anatomy.spec.subtree import subtree, view
from anatomy.stages._run import Job
from anatomy.stages.make_toy_data import main

from .test_markup import parsed
from .test_page import CAPTIONS, STUDY, claim

HOME = "results/own/toy/2-sentiment/data"
SPEC = ("seeds", "toy.lexicon", "toy.trigger", "toy.control", "toy.language", "toy.evaluation.prompts")
SENTIMENTS = ("negative", "positive")
OWN = """
extends: smoke
study: own
seeds: [0]
toy:
  language: {subjects: {2-sentiment: {positive: 400, negative: 400}}}
  lexicon:
    words: 110
    max_letters: 80
    positive: {path: data/p.txt}
    negative: {path: data/n.txt}
  evaluation: {prompts: 4}
"""


def letters(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def hostile(number: int) -> list[str]:
    """Words that would run something in a page that did not escape them; none holds a space."""
    own = letters(number)
    return [
        f"--><script>alert('{own}')</script><!--",
        f"<script>alert('{own}')</script>",
        f"</td><img/src='x'/onerror=alert('{own}')>",
        f"</text></svg><svg/onload=alert('{own}')>",
        f"\"'><b/onclick=alert('{own}')>&amp;",
    ]


@pytest.fixture
def drawn(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the stage drew its data from lists of plain and hostile words."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    for name in ("toy", "embedded", "smoke"):
        (tmp_path / f"config/{name}.yaml").symlink_to(root / f"config/{name}.yaml")
    (tmp_path / "config/own.yaml").write_text(OWN)
    (tmp_path / "data").mkdir()
    for i, sentiment in enumerate(SENTIMENTS):
        words = [f"{sentiment}{letters(n)}" for n in range(45)]
        words += [word for n in range(15) for word in hostile(100 * i + n)]
        (tmp_path / f"data/{sentiment[0]}.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    study = load_study("own")
    Path(HOME).mkdir(parents=True)
    job = Job("make_toy_data", "own", view(subtree(study, *SPEC)), {"subject": "2-sentiment"}, "c", 1, "cpu", Path("r"))
    names = ("corpus.parquet", "examples.parquet", "prompts.parquet", "lexicon.json", "tokenizer.json")
    outputs = {name.partition(".")[0]: Path(HOME, name) for name in names}
    main(
        job,
        words=[Path(f"data/{s[0]}.txt") for s in SENTIMENTS],
        **outputs,
        tokenizer_config=Path(HOME, "tokenizer_config.json"),
    )
    return tmp_path


def test_hostile_words_are_words_like_others(drawn: Path) -> None:
    """None is refused, and none is changed: they come out of the data as they stand in the list."""
    drawn_words = json.loads(Path(HOME, "lexicon.json").read_text())["words"]
    for i, sentiment in enumerate(SENTIMENTS):
        assert set(hostile(100 * i)) <= set(read_words(drawn / f"data/{sentiment[0]}.txt"))
        own = [word for word in drawn_words[sentiment] if "alert" in word]
        assert len(own) > 40 and not [word for word in own if len(word.split()) > 1]


def test_in_the_figure_and_the_page_they_are_text(drawn: Path) -> None:
    figure, data = samples(read_examples([Path(HOME, "examples.parquet")]))
    shown = [word for word in data.word if "alert" in word]
    assert shown
    svg = Path("results/own/figures/lamparth_samples.svg")
    save_figure(figure, data, svg.parent, svg.stem)
    with rc_context({**STYLE, "svg.fonttype": "none"}):  # letters as text and not as outlines
        figure.savefig("text.svg")
    assert running(svg) == running(Path("text.svg")) == []
    content = Path("text.svg").read_text(encoding="utf-8")
    escaped = {word: word.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for word in shown}
    assert all(content.count(safe) for safe in escaped.values())
    for word, safe in escaped.items():  # one that was not escaped would be seen
        Path("unescaped.svg").write_text(content.replace(f">{safe}<", f">{word}<"), encoding="utf-8")
        assert running(Path("unescaped.svg")) != []

    pd.DataFrame([claim("one", "reproduced") | {"says": shown[0]}]).to_csv("results/own/claims.csv", index=False)
    page = Path("results/own/report/index.html")
    files = {"tables": [], "figures": [svg], "claims": Path("results/own/claims.csv"), "records": []}
    write_page(page, study=STUDY, captions=CAPTIONS, planted={}, parameters={}, **files)
    assert parsed(page).running == []
    pictures = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page.read_text(encoding="utf-8"))
    assert [base64.b64decode(picture) for picture in pictures] == [svg.read_bytes()]


def running(svg: Path) -> list[str]:
    """Elements and attributes of a drawing through which it would run something."""
    found = parsed(svg).running
    found.remove("svg")  # the drawing itself
    return found
