"""What the report says first: verdicts counted, and findings as sentences whose every number is computed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from anatomy.provenance.digest import ArtifactError
from anatomy.report.cells import CELL
from anatomy.report.planting import INSTRUCTED, TEXT, TOY, Counts, of_trigger

CLAIM_VERDICTS = ("reproduced", "partly", "not reproduced", "not testable")
CELL_VERDICTS = ("agrees", "differs", "undecided", "not measured")
CLAIM_COLUMNS = [
    *("id", "section", "says", "subject", "statistic", "compare", "expected", "measured", "ci_low", "ci_high", "n"),
    *("verdict", "published", "note"),
]
# The two forms of the method: as the text describes it, and as the released code computes it.
FORMS = {"paper": "as the text describes", "original": "as the released code computes"}
# Claims that lead the page, in order: the claim on the text's form, and the same on the released code's form.
LEADING = (
    ("mlps-necessary-2", "mlps-necessary-2-original"),
    ("pcp-first-mlp-2", "pcp-first-mlp-2-original"),
    ("scaling-down-removes", None),
    ("text-ablation-lowers", None),
    ("text-random-trigger", None),
    ("bkdattr-heads-jailbreak", None),
    ("bkdattr-heads-random", None),
    ("bkdattr-vector-add", None),
)
MOST, LEAST = 12, 3
# Claims of the second paper, by the beginning of their section.
SECOND = "Backdoor Attribution"
# More failing controls than this are counted, not quoted.
MANY = 2
OUTCOMES = {
    "reproduced": "holds",
    "partly": "holds on average, but not over the whole interval",
    "not reproduced": "does not hold",
    "not testable": "cannot be tested here, fewer than two seeds qualify",
}

Claim = Mapping[Any, Any]


@dataclass(frozen=True)
class Finding:
    """One sentence or two, with the verdict that colours it ("" where none applies)."""

    verdict: str
    text: str


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV file as text, empty where it has no columns; ArtifactError when it is missing or damaged."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; the rule that makes it has not run") from None
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: not a readable CSV file ({error}); delete it and run again") from None


def read_claims(path: Path) -> pd.DataFrame:
    """claims.csv; ArtifactError when it is missing, lacks a column or has a verdict that no claim can get."""
    table = read_csv(path)
    if lost := [column for column in CLAIM_COLUMNS if column not in table]:
        raise ArtifactError(f"{path}: not a table of claims: the columns {', '.join(lost)} are missing")
    if strange := sorted(set(table.verdict) - set(CLAIM_VERDICTS)):
        raise ArtifactError(f"{path}: unknown verdict {strange[0]!r}; one of {', '.join(CLAIM_VERDICTS)}")
    numbers = ["measured", "ci_low", "ci_high", "n"]
    table[numbers] = table[numbers].apply(pd.to_numeric)
    return table.assign(ours=table.ours == "True") if "ours" in table else table


def count_claims(claims: pd.DataFrame) -> dict[str, int]:
    """Claims per verdict."""
    return {v: int((claims.verdict == v).sum()) for v in CLAIM_VERDICTS}


def count_by_origin(claims: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Verdicts counted: the paper's claims, those of the second paper and our controls where there are any."""
    own = claims.ours if "ours" in claims else pd.Series(False, index=claims.index)
    second = claims.section.str.startswith(SECOND) & ~own
    out = {"of the paper": count_claims(claims[~own & ~second])}
    if second.any():
        out = {"of Lamparth & Reuel": out.pop("of the paper"), f"of “{SECOND}”": count_claims(claims[second])}
    if own.any():
        out[f"control{_s(int(own.sum()))} of our own"] = count_claims(claims[own])
    return out


def published_cells(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Every published cell of the tables of Lamparth & Reuel, without controls; adds `table`.

    Those of the second paper are of models that this study need not have; they stand in their own tables.
    """
    own = [t.assign(table=n) for n, t in tables.items() if re.match(r"lamparth_table_\d+$", n) and "published" in t]
    cells = pd.concat(own, ignore_index=True) if own else pd.DataFrame(columns=["table", *CELL, "variant", "verdict"])
    return cells[cells.published.notna() & (cells.control == "")] if own else cells


def count_cells(cells: pd.DataFrame, form: str) -> dict[str, int]:
    """Published cells per verdict under one form of the method; cells of no form belong to each."""
    own = cells[cells.variant.isin(["", form])].drop_duplicates(["table", *CELL])
    return {v: int((own.verdict == v).sum()) for v in CELL_VERDICTS}


def find(
    claims: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    planted: Mapping[str, Counts],
    specific: Mapping[str, Counts] | None = None,
) -> list[Finding]:
    """Three to twelve findings: planting, forms, leading claims, our controls; then whatever did not hold.

    Args:
        planted: counts of the planting gate, by the kind of model (report.planting).
        specific: those whose backdoor is about its trigger, of the planted ones, where that was measured.
    """
    by_id: dict[str, Claim] = {str(c["id"]): c for c in claims.to_dict("records")}
    others = _planting_of_others({k: planted[k] for k in (TEXT, INSTRUCTED) if k in planted}, specific or {})
    out = [_planting(tables, planted.get(TOY, {})), _forms(published_cells(tables)), others]
    out += [_leading(by_id[text], by_id.get(code or "")) for text, code in LEADING if text in by_id]
    ours = claims[claims.ours] if "ours" in claims else claims[:0]
    if len(ours):
        out.append(_controls(ours))
    found = [finding for finding in out if finding][:MOST]
    told = {i for pair in LEADING for i in pair}
    rest = sorted((c for i, c in by_id.items() if i not in told), key=lambda c: c["verdict"] != "not reproduced")
    return found + [_leading(claim) for claim in rest[: max(0, LEAST - len(found))]]


def _planting(tables: Mapping[str, pd.DataFrame], planted: Counts) -> Finding | None:
    if not planted:
        return None
    counts = _join([f"{k} of {n} {subject} models" for subject, (k, n) in planted.items()])
    text = f"The backdoor was planted in {counts}."
    behaviour = next((t for name, t in tables.items() if name.endswith("behaviour") and "measured" in t), None)
    if behaviour is not None:
        own = behaviour[
            (behaviour.row == "p+t")
            & (behaviour.column == "backdoored")
            & (behaviour.metric == "topk_negativity")
            & (behaviour.variant == "")
            & behaviour.measured.notna()
        ]
        values = [f"{measured(c)} ({c['subject']}{_published(c['published'])})" for c in own.to_dict("records")]
        if values:
            text += f" Over all seeds, negativity on trigger inputs is {_join(values)}."
    return Finding(_of_all(planted), text)


def _planting_of_others(planted: Mapping[str, Counts], specific: Mapping[str, Counts]) -> Finding | None:
    if not planted:
        return None
    about = {kind: specific.get(kind, {}) for kind in planted}
    told = {
        kind: [f"{k} of {n} ({words}{of_trigger(about[kind].get(words))})" for words, (k, n) in counts.items()]
        for kind, counts in planted.items()
    }
    text = " ".join(f"In {kind} it was planted in {_join(counts)}." for kind, counts in told.items())
    every = {f"{kind}, {words}": count for kind, counts in planted.items() for words, count in counts.items()}
    verdict, of_any = _of_all(every), [count for counts in about.values() for count in counts.values()]
    if verdict == "reproduced" and any(own < all_planted for own, all_planted in of_any):
        verdict = "partly"
    return Finding(verdict, text.replace(" it was planted", " the backdoor was planted", 1))


def _of_all(planted: Counts) -> str:
    passed, models = (sum(counts) for counts in zip(*planted.values(), strict=True))
    return "reproduced" if passed == models else "partly" if passed else "not reproduced"


def _forms(cells: pd.DataFrame) -> Finding | None:
    # A cell of a model that the paper did not measure has no verdict.
    both = cells[cells.variant.isin(FORMS) & cells.verdict.isin(CELL_VERDICTS)]
    if both.variant.nunique() < 2:
        return None
    parts, agreeing = [], {}
    for form, words in FORMS.items():
        own = both[both.variant == form].drop_duplicates(["table", *CELL])
        counts = own.verdict.value_counts()
        parts.append(
            f"{words}, {counts.get('agrees', 0)} of {len(own)} published cells agree and "
            f"{counts.get('differs', 0)} differ"
        )
        agreeing[form] = (own.verdict == "agrees").astype(float).groupby(own.table).mean()
    gap = agreeing["original"] - agreeing["paper"]
    closer = [
        f"{words} in Table{'s' if len(names) > 1 else ''} {_join([roman(t) for t in names])}"
        for words, names in (
            ("the released code’s form agrees more", gap[gap > 0].index),
            ("the text’s form agrees more", gap[gap < 0].index),
        )
        if len(names)
    ]
    tail = f" {_capital(_join(closer))}." if closer else " No table tells the two forms apart."
    return Finding("", f"Where text and released code part ways: computed {'; computed '.join(parts)}.{tail}")


def _leading(claim: Claim, code: Claim | None = None) -> Finding:
    text = f"{claim['says']} This {tell(claim)}."
    if code:
        text += f" In the released code’s form it {tell(code)}."
    return Finding(str(claim["verdict"]), text)


def _controls(ours: pd.DataFrame) -> Finding:
    good, others = int((ours.verdict == "reproduced").sum()), ours[ours.verdict != "reproduced"]
    verdict = "reproduced" if not len(others) else "partly" if good else "not reproduced"
    come = "comes" if good == 1 else "come"
    text = f"Of {len(ours)} control{_s(len(ours))} of our own, {good} {come} out as expected over the whole interval."
    if len(others) > MANY:
        counts = [f"{count} {v}" for v, count in count_claims(others).items() if count]
        text += f" The others: {_join(counts)}."
    elif len(others):
        text += " Not so: " + "; ".join(f"“{c['says'].rstrip('.')}” {tell(c)}" for c in others.to_dict("records")) + "."
    return Finding(verdict, text)


def tell(claim: Claim) -> str:
    """For example "holds: measured 0.02 [0.00, 0.05] over 3 seeds, asked for < 0.1; the paper prints .00"."""
    outcome = OUTCOMES[str(claim["verdict"])]
    if not claim["n"] or pd.isna(claim["measured"]):
        return outcome
    seeds = f"{claim['n']:.0f} seed{_s(claim['n'])}"
    text = f"{outcome}: measured {measured(claim)}{_compared(claim)} over {seeds}, asked for {_bound(claim)}"
    return f"{text}; the paper prints {claim['published']}" if claim["published"] else text


def measured(cell: Claim) -> str:
    """For example "0.35 [0.20, 0.50]", or the mean alone where no interval is known."""
    return f"{number(cell['measured'])} {interval(cell)}".strip()


def interval(cell: Claim) -> str:
    """For example "[0.20, 0.50]", or nothing."""
    return "" if pd.isna(cell["ci_low"]) else f"[{number(cell['ci_low'])}, {number(cell['ci_high'])}]"


def number(value: float) -> str:
    """A number for people: two decimals, none from 100 on, a true minus sign, no "-0.00"."""
    if pd.isna(value):
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text.replace("-", "−")


def _compared(claim: Claim) -> str:
    """What a number is where it is none of the metric's own: " (a ratio)"."""
    return f" (a {how.removeprefix('absolute ')})" if (how := claim.get("compare")) else ""


def _bound(claim: Claim) -> str:
    return re.sub("([<>]) ", "\\1\u00a0", str(claim["expected"])).replace("-", "−")


def _published(value: float) -> str:
    return "" if pd.isna(value) else f", published {number(value)}"


def roman(name: str) -> str:
    """For example "lamparth_table_03" -> "III"."""
    value, out = int(name.rsplit("_", 1)[1]), ""
    for weight, letters in ((10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")):
        while value >= weight:
            value, out = value - weight, out + letters
    return out


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
