"""Markup in anything that came from data or a model stays text: in the page's tree, and in a real browser."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markupsafe import escape

from anatomy.report.page import write_page
from anatomy.spec.errors import SpecError
from anatomy.spec.read import load_study

from .test_page import CAPTIONS, STUDY, ablation, claim, record

TITLE = "taken-over"
MARK = f"document.title='{TITLE}'"
# Each would run its script in some place of a page if it were not escaped there.
PAYLOADS = (
    f"<script>{MARK}</script>",
    f"</script><script>{MARK}</script>",
    f"</title></style></pre></textarea><script>{MARK}</script>",
    f'"><img src=x onerror="{MARK}">',
    f"'><svg onload={MARK}>",
    f'" autofocus onfocus="{MARK}" x="',
    f"--><iframe srcdoc='<script>parent.{MARK}</script>'></iframe><!--",
    f"{{{{ ''.join(['<scr', 'ipt>{MARK}</scr', 'ipt>']) }}}}{{% raw %}}",
)
SVG = f'<svg xmlns="http://www.w3.org/2000/svg" onload="{MARK}"><script>{MARK}</script></svg>'
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Attributes that run something, or send something away.
RUNNING = ("on", "srcdoc", "formaction", "action")


class Tree(HTMLParser):
    """Elements and attributes through which a page runs code, and all of its text."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.running += [tag] if tag in ("script", "iframe", "object", "embed", "svg", "base", "form") else []
        for name, value in attrs:
            if name.startswith(RUNNING) or (value or "").strip().lower().startswith("javascript:"):
                self.running.append(f"{tag} {name}")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(page: Path) -> Tree:
    tree = Tree()
    tree.feed(page.read_text(encoding="utf-8"))
    return tree


def infected(value: Any, payload: str, path: tuple[str, ...] = ()) -> Any:
    """The value with the payload in every text below it but those that decide what the page looks up."""
    if isinstance(value, dict):
        return {name: infected(inner, payload, (*path, name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [infected(inner, payload, path) for inner in value]
    return f"{value} {payload}" if isinstance(value, str) else value


def infected_page(folder: Path, payload: str, **replaced: Any) -> Path:
    """The page of a study in which every free text is the payload: names, words, captions, cells, records."""
    home = folder / "results/x"
    for name in ("tables", "figures", "records"):
        (home / name).mkdir(parents=True)
    table = ablation()
    for column in ("subject", "row", "column", "control", "recipe"):
        table[column] = table[column].where(table[column] == "", table[column] + f" {payload}")
    table.to_csv(home / "tables/lamparth_table_01.csv", index=False)
    pd.DataFrame({f"name {payload}": ["a", payload], "value": [1.0, 2.0]}).to_csv(home / "tables/o.csv", index=False)
    (home / "figures/lamparth_figure_03.svg").write_text(SVG)
    words = ("says", "section", "subject", "statistic", "expected", "published", "note")
    one = claim("one", "reproduced") | dict.fromkeys(words, payload) | {"id": f"one {payload}"}
    pd.DataFrame([one]).to_csv(home / "claims.csv", index=False)
    path = record(home / "records/render_mean_ablation.run.json")
    run = json.loads(path.read_text())
    run |= {"rule": payload, "device": payload, "lock": payload, "git": {"commit": payload, "dirty": True}}
    run["environment"] = infected(run["environment"], payload)
    path.write_text(json.dumps(run))
    out = home / "report/index.html"
    write_page(
        out,
        study=infected(STUDY, payload),
        tables=sorted(home.glob("tables/*.csv")),
        figures=sorted(home.glob("figures/*.svg")),
        claims=home / "claims.csv",
        captions=infected(CAPTIONS, payload),
        records=[path],
        planted={payload: (1, 1)},
        parameters={payload: 5},
        **replaced,
    )
    return out


def title_in_browser(page: Path, profile: Path) -> str:
    """The page's title after its scripts had their time; a payload that ran has changed it."""
    assert BROWSER
    command = [
        *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *(f"--user-data-dir={profile}", "--virtual-time-budget=3000", "--dump-dom", page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    titles = Titles()
    titles.feed(done.stdout)
    assert titles.found, done.stderr[-500:]
    return titles.found[0]


class Titles(HTMLParser):
    """The text of every title."""

    found: list[str]
    inside = False

    def __init__(self) -> None:
        super().__init__()
        self.found = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "title"

    def handle_data(self, data: str) -> None:
        self.found += [data] if self.inside else []

    def handle_endtag(self, tag: str) -> None:
        self.inside = False


@pytest.fixture
def unescaped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page as it would be if it escaped nothing."""
    from anatomy.report import page

    plain = page.Environment
    monkeypatch.setattr(page, "Environment", lambda **given: plain(**{**given, "autoescape": False}))
    yield


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_element_of_a_payload_gets_into_the_page(payload: str, tmp_path: Path) -> None:
    tree = parsed(infected_page(tmp_path, payload))
    assert tree.running == []
    assert "".join(tree.text).count(payload) > 15  # it stands there, as text


@pytest.mark.parametrize("payload", PAYLOADS[:-1])
def test_the_same_page_without_escapes_is_noticed(payload: str, tmp_path: Path, unescaped: None) -> None:
    assert parsed(infected_page(tmp_path, payload)).running


@pytest.mark.skipif(not BROWSER, reason="no Chromium here; what the page's tree holds is tested without one above")
def test_no_script_of_a_payload_runs_in_a_browser(tmp_path: Path) -> None:
    """All payloads at once, behind one another in every text."""
    page = infected_page(tmp_path, " ".join(PAYLOADS))
    assert title_in_browser(page, tmp_path / "profile").startswith("Backdoor Anatomy")


@pytest.mark.skipif(not BROWSER, reason="no Chromium here; what the page's tree holds is tested without one above")
@pytest.mark.parametrize("payload", [PAYLOADS[0], PAYLOADS[1], PAYLOADS[3], PAYLOADS[4]])
def test_one_escape_that_is_missing_is_noticed_there(payload: str, tmp_path: Path) -> None:
    """The control of the test above: the last of all the places, in the study's configuration, is left unescaped."""
    page = infected_page(tmp_path, payload)
    before, after = page.read_text().rsplit(str(escape(payload)), 1)
    page.write_text(before + payload + after)
    assert title_in_browser(page, tmp_path / "profile") == TITLE


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_trigger_with_markup_does_not_get_into_a_study(payload: str, root: Path, tmp_path: Path) -> None:
    """A trigger is one word of letters; that the page escapes it is the second line."""
    for name in ("config", "data"):
        shutil.copytree(root / name, tmp_path / name)
    (tmp_path / "config/own.yaml").write_text(f"extends: smoke\nstudy: own\ntoy:\n  trigger: {json.dumps(payload)}\n")
    with pytest.raises(SpecError, match="trigger"):
        load_study("own", tmp_path)
