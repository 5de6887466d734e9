"""The page stands alone, shows all that it was given, and says what is missing."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from anatomy.provenance.digest import ArtifactError
from anatomy.report.cells import CELL, TABLE_COLUMNS, estimate_cells, lay_beside
from anatomy.report.findings import CELL_VERDICTS, CLAIM_VERDICTS, count_cells, find, published_cells, read_claims
from anatomy.report.grid import lay_out
from anatomy.report.page import duration, read_table, write_page

STUDY = {
    "study": "embedded",
    "seeds": [0, 1, 2],
    "confidence": 0.95,
    "compute": {"device": "auto"},
    "toy": {
        "recipe": "fast",
        "trigger": "love",
        "control": "good",
        "language": {"subjects": {"2-sentiment": {"positive": 13200, "negative": 13200}}},
        "amounts": {"2-sentiment": [0.5]},
        "frozen": {},
        "evaluation": {"prompts": 50, "top_k": 10, "gate": 0.2},
    },
}
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><script>alert(1)</script></svg>'
CAPTIONS = {
    "lamparth_table_01": {
        "title": "Mean ablation (Table I)",
        "caption": "Replaced by its mean <script>alert(2)</script>.",
        "section": "Where it lives",
        "notebook": "mean_ablation",
    },
    "lamparth_behaviour": {
        "title": "Unedited models",
        "caption": "What they say.",
        "figure": "The same, drawn.",
        "section": "Behaviour",
        "notebook": "behaviour",
    },
}
PUBLISHED = pd.DataFrame(
    [
        ("2-sentiment", "layer 1", "attn", "topk_negativity", 0.0),
        ("2-sentiment", "layer 1", "mlp", "topk_negativity", 0.9),
        ("2-sentiment", "layer 2", "mlp", "topk_negativity", 0.5),
        ("2-sentiment", "unchanged", "", "topk_negativity", 0.35),
    ],
    columns=[*CELL, "published"],
)


def ablation() -> pd.DataFrame:
    """Two forms and a control; the code's form agrees with the second published cell, the text's does not."""
    rows = []
    for variant, control, column, row, centre in [
        ("paper", "", "attn", "layer 1", 0.0),
        ("paper", "", "mlp", "layer 1", 0.1),
        ("original", "", "attn", "layer 1", 0.0),
        ("original", "", "mlp", "layer 1", 0.9),
        ("", "zero ablation", "mlp", "layer 1", 0.2),
        ("", "", "", "unchanged", 0.34),
    ]:
        for seed in range(3):
            rows.append(
                {
                    **dict(zip(CELL, ("2-sentiment", row, column, "topk_negativity"), strict=True)),
                    "variant": variant,
                    "control": control,
                    "recipe": "fast",
                    "seed": seed,
                    "value": centre + 0.01 * seed,
                }
            )
    return lay_beside(estimate_cells(pd.DataFrame(rows), 0.95), PUBLISHED)


def behaviour() -> pd.DataFrame:
    rows = [
        {
            **dict(zip(CELL, ("2-sentiment", "p+t", "backdoored", "topk_negativity"), strict=True)),
            **{"variant": "", "control": "", "recipe": "fast", "seed": seed, "value": 0.3 + 0.05 * seed},
        }
        for seed in range(3)
    ]
    return lay_beside(estimate_cells(pd.DataFrame(rows), 0.95), pd.DataFrame(columns=[*CELL, "published"]))


def claim(name: str, verdict: str, **more: object) -> dict[str, object]:
    nothing = verdict == "not testable"
    return {
        "id": name,
        "section": "IV",
        "says": f"The claim {name} & more.",
        "subject": "2-sentiment",
        "statistic": "topk_negativity, p+t",
        "compare": "",
        "expected": "< 0.1",
        "published": ".00",
        "measured": np.nan if nothing else 0.04,
        "ci_low": np.nan if nothing else 0.01,
        "ci_high": np.nan if nothing else 0.07,
        "n": 0 if nothing else 3,
        "verdict": verdict,
        "ours": False,
        "note": "",
        **more,
    }


@pytest.fixture
def given(tmp_path: Path) -> dict:
    """Files of a small study and the arguments of the page."""
    root = tmp_path / "results" / "embedded"
    for folder in ("tables", "figures", "records"):
        (root / folder).mkdir(parents=True)
    tables = {
        "lamparth_behaviour": behaviour(),
        "lamparth_table_01": ablation(),
        "lamparth_table_05": pd.DataFrame(columns=TABLE_COLUMNS),
        "lamparth_variants": pd.DataFrame(
            [
                {"table": "I", "variant": v, "cells": 2, "agrees": k, "differs": 2 - k}
                | {"undecided": 0, "not measured": 0, "mean_gap_shares": 0.1, "mean_gap_loss": np.nan}
                for v, k in (("paper", 1), ("original", 2))
            ]
        ),
        "other": pd.DataFrame({"name": ["0.60", "x<y"], "value": [1.0, 0.123456]}),
    }
    for name, table in tables.items():
        table.to_csv(root / f"tables/{name}.csv", index=False, float_format="%.6g")
    for name in ("lamparth_behaviour", "lamparth_figure_03"):
        (root / f"figures/{name}.svg").write_text(SVG)
    (root / "figures/lamparth_behaviour.csv").write_text("a\n1\n")
    claims = [claim(v, v) for v in CLAIM_VERDICTS] + [claim("control", "reproduced", ours=True)]
    pd.DataFrame(claims).to_csv(root / "claims.csv", index=False)
    return {
        "out": root / "report/index.html",
        "study": STUDY,
        "tables": [root / f"tables/{name}.csv" for name in tables],
        "figures": sorted(root.glob("figures/*.svg")),
        "claims": root / "claims.csv",
        "captions": CAPTIONS,
        "records": [record(root / "records/render_mean_ablation.run.json")],
        "planted": {"2-sentiment": (2, 3)},
        "parameters": {"2-sentiment": 338304},
    }


def record(path: Path) -> Path:
    content = {
        **{"schema": 1, "tool": "backdoor-anatomy 0.1.0", "job": "1", "rule": "render_mean_ablation"},
        **{"study": "embedded", "wildcards": {}, "spec": {}, "seeds": [], "code": "c", "lock": "l", "inputs": {}},
        "outputs": {"outputs": [{"path": "results/embedded/tables/lamparth_table_01.csv", "sha256": "0", "bytes": 1}]},
        **{"device": "cpu", "threads": 1, "started": "2020-01-01T00:00:00+00:00"},
        **{"wall_s": 70.0, "cpu_s": 65.0, "peak_rss_mb": 512.3},
        "environment": {
            **{"python": "3.11.2", "implementation": "CPython", "platform": "Linux", "machine": "x86_64"},
            "packages": {"torch": "2.13.0", "dvc": None},
        },
        "git": {"commit": "abc123", "dirty": True},
    }
    path.write_text(json.dumps(content))
    return path


def page(given: dict) -> str:
    write_page(**given)
    return given["out"].read_text(encoding="utf-8")


def words(html: str) -> str:
    """The text of a page without tags, spaces evened out."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_the_page_asks_for_nothing_from_elsewhere(given: dict) -> None:
    html = page(given)
    links = re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']([^"']*)""", html)
    assert links
    assert not [link for link in links if re.match(r"(?i)(https?:)?//", link)]
    assert not re.search(r"(?i)url\(|@import|<script|<link(?! rel=\"icon\" href=\"data:,\")", html)


def test_the_same_inputs_give_the_same_bytes(given: dict) -> None:
    first = page(given)
    given["out"].unlink()
    assert page(given) == first


def test_every_table_and_figure_is_there_with_its_caption(given: dict) -> None:
    html = page(given)
    for path in given["tables"]:
        assert f'href="../tables/{path.name}"' in html
    for path in given["figures"]:
        assert f'href="../figures/{path.name}"' in html
    assert html.count("data:image/svg+xml;base64,") == len(given["figures"])
    for said in CAPTIONS.values():
        assert said["title"] in html
        assert f'href="../notebooks/{said["notebook"]}.html"' in html
    assert "What they say." in html
    assert "The same, drawn." in html
    assert html.count("No caption was written for this item.") >= 3
    assert html.index("Mean ablation (Table I)") < html.index("Unedited models"), "the captions' order"
    assert 'href="../records/render_mean_ablation.run.json"' in html
    assert "anatomy explain results/embedded/tables/lamparth_table_01.csv" in html


def test_text_from_files_stays_text(given: dict) -> None:
    html = page(given)
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in html
    assert "The claim partly &amp; more." in html
    assert "x&lt;y" in html
    assert "<script" not in html, "neither a caption's nor a figure's"


def test_measured_published_and_verdict_stand_in_one_cell(given: dict) -> None:
    html = page(given)
    cell = re.search(r'<td class="v-differs">(.*?)</td>', html, re.S)
    assert cell
    text = words(cell[1])
    assert text.startswith("0.11")
    assert "differs" in text
    assert text.endswith("published 0.90")


def test_readings_stand_apart_and_controls_are_folded(given: dict) -> None:
    grids = lay_out(read_table(given["tables"][1]))
    assert [(g["label"].split(" (")[0], g["folded"]) for g in grids] == [
        ("As the text describes", False),
        ("As the released code computes", False),
        ("Control: zero ablation", True),
    ]
    for grid in grids[:2]:
        unchanged = next(row for row in grid["rows"]["2-sentiment"] if row["name"] == "unchanged")
        assert unchanged["whole"]["measured"] == pytest.approx(0.35), "a cell of no form stands in both"
        assert grid["heads"] == [("attn", ""), ("mlp", "")]
    assert re.search(r"<details class=\"folded\">\s*<summary>Control: zero ablation", page(given))


def test_a_row_with_a_metric_of_its_own_names_it() -> None:
    rows = [("p+t", "topk_negativity"), ("p+p", "topk_negativity"), ("val loss", "validation_loss")]
    table = pd.DataFrame(
        [
            {**dict.fromkeys(TABLE_COLUMNS, ""), "row": row, "column": column, "metric": metric}
            | {"measured": 1.0, "ci_low": np.nan, "ci_high": np.nan, "n": 1, "published": np.nan}
            for row, metric in rows
            for column in ("mlp 1", "none")
        ]
    )
    (grid,) = lay_out(table)
    assert grid["heads"] == [("none", ""), ("mlp 1", "")], "the unedited model first"
    assert [row["unit"] for row in grid["rows"][""]] == ["", "", "validation_loss"]


def test_a_table_without_planted_seeds_says_so(given: dict) -> None:
    html = page(given)
    block = html[html.index('id="lamparth-table-05"') :]
    assert "no seed’s backdoor cleared the planting gate" in block[: block.index("</article>")]


def test_a_published_cell_that_was_not_measured_is_shown(given: dict) -> None:
    lost = re.search(r'<td class="v-not-measured">(.*?)</td>', page(given), re.S)
    assert lost
    assert words(lost[1]) == "not measured published 0.50"


def test_the_first_screen_counts(given: dict) -> None:
    text = words(page(given))
    assert "5 claims, each with its test" in text
    assert "4 of the paper" in text
    assert "1 control of our own" in text
    assert "4 published cells" in text
    assert "2-sentiment: 2 of 3" in text
    assert "models 9" in text, "three seeds: clean, backdoored, one amount"
    assert "338,304" in text
    assert "26,400" in text
    assert "abc123 with uncommitted changes" in text
    assert "dvc not installed" in text


def test_models_that_follow_instructions_have_their_chapter_gate_and_claims(given: dict) -> None:
    """What is replication and what is new is said; the gate is counted by injection, claims by paper."""
    given["planted"] |= {"label, sft": (3, 3), "fixed, sft": (2, 3), "label, edit": (0, 3), "stories": (1, 3)}
    sections = {"bkdattr_table_01": "replicated", "bkdattr_areas": "beyond the paper"}
    for name, section in sections.items():
        ablation().to_csv(given["out"].parents[1] / f"tables/{name}.csv", index=False)
        given["tables"].append(given["out"].parents[1] / f"tables/{name}.csv")
        said = {"title": name, "caption": "Method.", "notebook": "n", "section": f"Backdoor Attribution, {section}"}
        given["captions"] = {**given["captions"], name: said}
    claims = [claim("few", "partly", section="Backdoor Attribution, abstract"), claim("other", "reproduced")]
    claims += [claim("control", "reproduced", ours=True, section="ours")]
    pd.DataFrame(claims).to_csv(given["claims"], index=False)
    text = words(page(given))
    assert "Yu et al. (2025), “Backdoor Attribution" in text and "New, nobody measured it before" in text
    assert "SFT: 5 of 6 BadEdit: 0 of 3" in text and "label, sft" not in text
    assert "In models that write text the backdoor was planted in 1 of 3 (stories)." in text
    assert "In models that follow instructions it was planted in 5 of 6 (SFT) and 0 of 3 (BadEdit)." in text
    assert (
        "1 of Lamparth &amp; Reuel" in text and "1 of “Backdoor Attribution”" in text and "1 control of our own" in text
    )
    assert "4 published cells of Lamparth &amp; Reuel" in text, "those of the other paper are counted apart"


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((0, 2), "2 of 3, but not specific to the trigger"),
        ((1, 2), "2 of 3, specific to the trigger in 1 of the 2"),
        ((2, 2), "2 of 3, specific to the trigger"),
        ((0, 0), "0 of 3"),
        (None, "2 of 3"),
    ],
)
def test_planted_is_not_yet_specific(given: dict, counts: tuple[int, int] | None, said: str) -> None:
    given["planted"] |= {"stories": (counts[1] if counts else 2, 3), "prose": (3, 3)}
    html = page(given | {"specific": {"stories": counts} if counts else {}})
    text = words(html)
    assert f"stories: {said} prose: 3 of 3" in text
    assert ("it is called specific where" in text) == (counts is not None)
    told, _, further = said.partition(",")
    assert f"was planted in {told} (stories{',' if further else ''}{further}) and 3 of 3 (prose)." in text


def test_without_models_that_follow_instructions_nothing_is_said_of_them(given: dict) -> None:
    assert "instructions" not in words(page(given))


def test_cells_are_counted_once_per_form(given: dict) -> None:
    cells = published_cells({"lamparth_table_01": read_table(given["tables"][1])})
    assert count_cells(cells, "paper") == dict(zip(CELL_VERDICTS, (2, 1, 0, 1), strict=True))
    assert count_cells(cells, "original") == dict(zip(CELL_VERDICTS, (3, 0, 0, 1), strict=True))


def test_findings_are_told_from_the_numbers_also_when_they_did_not_hold(given: dict) -> None:
    claims = pd.DataFrame(
        [
            claim("mlps-necessary-2", "not reproduced", expected="< -0.1", compare="absolute difference"),
            claim("mlps-necessary-2-original", "reproduced"),
            claim("clean", "partly", ours=True),
        ]
    )
    tables = {path.stem: read_table(path) for path in given["tables"]}
    planting, forms, leading, controls = find(claims, tables, {"toy models": {"2-sentiment": (2, 3)}})
    assert planting.verdict == "partly"
    assert "2 of 3 2-sentiment models" in planting.text
    assert "0.35 [0.23, 0.47]" in planting.text
    assert "as the text describes, 1 of 2 published cells agree and 1 differ" in forms.text
    assert "The released code’s form agrees more in Table I." in forms.text
    assert leading.verdict == "not reproduced"
    assert "measured 0.04 [0.01, 0.07] (a difference) over 3 seeds, asked for <\u00a0−0.1" in leading.text
    assert "In the released code’s form it holds" in leading.text
    assert "Of 1 control of our own, 0 come out" in controls.text


def test_an_unknown_claims_file_still_gives_findings(given: dict) -> None:
    found = find(read_claims(given["claims"]), {}, {})
    assert len(found) >= 3
    assert found[1].verdict == "not reproduced", "what did not hold comes first"


def test_missing_claims_are_one_clear_error(given: dict) -> None:
    given["claims"].unlink()
    with pytest.raises(ArtifactError, match=r"claims\.csv: missing; the rule that makes it has not run"):
        write_page(**given)
    assert not given["out"].exists()


def test_claims_without_a_column_or_with_a_strange_verdict_are_refused(given: dict) -> None:
    pd.DataFrame([claim("a", "splendid")]).to_csv(given["claims"], index=False)
    with pytest.raises(ArtifactError, match="unknown verdict 'splendid'; one of reproduced"):
        write_page(**given)
    pd.DataFrame([claim("a", "partly")]).drop(columns="n").to_csv(given["claims"], index=False)
    with pytest.raises(ArtifactError, match="the columns n are missing"):
        write_page(**given)


def test_names_that_look_like_numbers_keep_their_letters(given: dict) -> None:
    given["tables"][1].write_text(
        ",".join(TABLE_COLUMNS) + "\n2-sentiment,p+t,0.60,topk_negativity,,,fast,0.1,,,1,,,,\n"
    )
    table = read_table(given["tables"][1])
    assert table.column.tolist() == ["0.60"]
    assert table.measured.tolist() == [0.1]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (48.2, "48 s"), (200, "3 min 20 s"), (3900, "1 h 5 min")]
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_study_without_records_captions_or_tables_still_has_a_page(given: dict) -> None:
    given |= {"tables": [], "figures": [], "records": [], "captions": {}, "planted": {}, "parameters": None}
    text = words(page(given))
    assert "0 published cells" in text
    assert "No table of the two forms was given to this page." in text
