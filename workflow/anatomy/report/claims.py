"""Claims: written down with their test before anything is measured (data/claims.yaml), judged by computation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from anatomy.metrics.intervals import Estimate, student
from anatomy.report.cells import possible
from anatomy.report.tables import Evidence
from anatomy.report.wording import in_the_words_of
from anatomy.spec.errors import SpecError

# Conditions a claim may leave out: then it means the experiment itself, on the backdoored model.
DEFAULTS: dict[str, str] = {"model": "backdoored", "control": "", "metric": "topk_negativity"}
# The subject that a study names itself: the corpus on which all experiments about models that write text run.
MAIN = "main corpus"
Select = dict[str, str | list[str]]


class Expectation(BaseModel):
    """The bound the statistic must keep: below, above, or between the two."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    below: float | None = None
    above: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> "Expectation":
        if self.below is None and self.above is None:
            raise ValueError("needs `below` or `above`")
        return self

    def holds(self, value: float) -> bool:
        """Whether a value keeps the bound."""
        return bool((self.below is None or value < self.below) and (self.above is None or value > self.above))

    def __str__(self) -> str:
        bounds = [
            f"> {self.above:g}" if self.above is not None else "",
            f"< {self.below:g}" if self.below is not None else "",
        ]
        return " and ".join(filter(None, bounds))


class Claim(BaseModel):
    """One claim with its test.

    `measure` selects measurements, one per seed; where it selects several, `over` says which counts (max, min, mean).
    Of several subjects each has its own, and their mean counts. Some conditions can be said in words (report.wording).
    `against` selects a second value per seed (keys left out are those of `measure`), and `compare` says how the two are
    put together, subject by subject; a second value of other subjects is compared with the mean. `pairs: site` compares
    site by site, and of these comparisons `over` says which counts. `less` is taken from each of the two values first
    (keys left out are theirs), as the rate without the trigger from that with. `expect` is the bound.
    `seeds: planted` tests the seeds that cleared the planting gate; beside them, those of a model that has no gate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    section: str
    says: str
    published: str = ""
    measure: Select
    over: Literal["one", "max", "min", "mean"] = "one"
    less: Select | None = None
    against: Select | None = None
    compare: Literal["difference", "absolute difference", "ratio"] = "difference"
    pairs: Literal["", "site"] = ""
    seeds: Literal["planted", "all"] = "planted"
    expect: Expectation
    note: str = ""
    ours: bool = Field(False, description="a control of ours rather than a sentence of the paper")

    @model_validator(mode="after")
    def _pairs_of_two(self) -> "Claim":
        if self.pairs and (self.against is None or self.over == "one"):
            raise ValueError("`pairs` needs `against`, and `over`: which of the comparisons counts")
        return self

    @property
    def compared(self) -> str:
        """What the statistic is, where it is no plain metric: "difference", "ratio"; else ""."""
        return self.compare if self.against is not None else "difference" if self.less is not None else ""


@dataclass(frozen=True)
class Judged:
    """A claim with what was measured."""

    claim: Claim
    values: dict[int, float]
    confidence: float
    subjects: tuple[str, ...]  # that the values are of: those of the claim, but for what was not planted or measured

    @property
    def estimate(self) -> Estimate | None:
        """Mean and interval over seeds; the interval of a plain metric is cut to what the metric can be."""
        if not self.values:
            return None
        estimate = student(np.array(list(self.values.values())), self.confidence)
        if self.claim.compared:
            return estimate
        lowest, highest = possible(str(self.claim.measure.get("metric", DEFAULTS["metric"])))
        return replace(
            estimate,
            low=float(np.clip(estimate.low, lowest, highest)),
            high=float(np.clip(estimate.high, lowest, highest)),
        )

    @property
    def verdict(self) -> str:
        """reproduced: the whole interval keeps the bound; partly: the mean does; not testable: fewer than two seeds."""
        estimate = self.estimate
        if estimate is None or estimate.n < 2:
            return "not testable"
        if not self.claim.expect.holds(estimate.mean):
            return "not reproduced"
        whole = self.claim.expect.holds(estimate.low) and self.claim.expect.holds(estimate.high)
        return "reproduced" if whole else "partly"


def read_claims(path: Path) -> list[Claim]:
    """The claims file.

    Raises:
        SpecError: not YAML, a claim with an unknown or missing key, or an id twice.
    """
    try:
        claims = [Claim.model_validate(raw) for raw in yaml.safe_load(path.read_text(encoding="utf-8"))]
    except (yaml.YAMLError, ValidationError) as error:
        raise SpecError(f"{path}: {error}") from None
    ids = [claim.id for claim in claims]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise SpecError(f"{path}: the id {twice[0]!r} stands twice")
    return claims


def about(claim: Claim, corpus: str) -> Claim:
    """The claim with the study's corpus in place of "main corpus"."""
    if claim.measure.get("subject") != MAIN:
        return claim
    return claim.model_copy(update={"measure": claim.measure | {"subject": corpus}})


def judge(claim: Claim, evidence: Evidence) -> Judged:
    """Measure a claim's statistic, seed by seed."""
    values = _net(claim, claim.measure, evidence)
    if claim.against is not None:
        other = _net(claim, {**claim.measure, **claim.against}, evidence)
        if "subject" in claim.against:
            means = _by_seed(claim, other)
            values = {key: value for key, value in values.items() if key[0] in means}
            joint = {seed: _compare(mean, means[seed], claim.compare) for seed, mean in _by_seed(claim, values).items()}
            return _judged(claim, joint, values, evidence)
        values = {key: _compare(own, other[key], claim.compare) for key, own in values.items() if key in other}
    values = {key: value for key, value in values.items() if np.isfinite(value)}
    return _judged(claim, _by_seed(claim, values), values, evidence)


Values = dict[tuple[int, str, str], float]  # of a seed, a subject and, where sites are compared one by one, a site


def _judged(claim: Claim, by_seed: dict[int, float], values: Values, evidence: Evidence) -> Judged:
    used = {subject for _, subject, _ in values}
    stated = [name for name in _several(claim.measure.get("subject", "")) if name in used]
    finite = {seed: value for seed, value in by_seed.items() if np.isfinite(value)}
    return Judged(claim, finite, evidence.confidence, tuple(stated))


def _by_seed(claim: Claim, values: Values) -> dict[int, float]:
    """Each seed's value: of its sites the one that counts, and of its subjects the mean."""
    over = "mean" if claim.over == "one" else claim.over  # without pairs a subject has one value
    of_subject: dict[tuple[int, str], list[float]] = {}
    for (seed, subject, _), value in values.items():
        of_subject.setdefault((seed, subject), []).append(value)
    of_seed: dict[int, list[float]] = {}
    for (seed, _), own in of_subject.items():
        of_seed.setdefault(seed, []).append(float(pd.Series(own).agg(over)))
    return {seed: float(np.mean(own)) for seed, own in of_seed.items()}


def _net(claim: Claim, select: Select, evidence: Evidence) -> Values:
    values = _selected(claim, select, evidence)
    if claim.less is None:
        return values
    taken = _selected(claim, {**select, **claim.less}, evidence)
    return {key: values[key] - taken[key] for key in values if key in taken}


def _selected(claim: Claim, select: Select, evidence: Evidence) -> Values:
    conditions = in_the_words_of(evidence.measurements, {**DEFAULTS, **select})
    experiment, model = str(conditions.pop("experiment")), claim.measure.get("model", DEFAULTS["model"])
    rows = evidence.of(
        experiment,
        planted_only=claim.seeds == "planted",
        beside=model if isinstance(model, str) else "",
        **conditions,  # type: ignore[arg-type]
    )
    rows = rows.assign(pair=rows[claim.pairs] if claim.pairs else "")
    over = "one" if claim.pairs else claim.over
    out = {}
    for (seed, subject, pair), own in rows.groupby(["seed", "subject", "pair"]):
        if over == "one" and len(own) > 1:
            raise SpecError(f"claim {claim.id!r}: selects {len(own)} measurements per seed; say `over`, or select more")
        value = own.value.iloc[0] if over == "one" else own.value.agg(over)
        out[int(str(seed)), str(subject), str(pair)] = float(value)
    return out


def _compare(a: float, b: float, how: str) -> float:
    match how:
        case "ratio":
            return a / b if b else float("nan")
        case "absolute difference":
            return abs(a - b)
    return a - b


def claims_table(judged: list[Judged]) -> pd.DataFrame:
    """One line per claim, as in results/<study>/claims.csv."""
    lines = []
    for j in judged:
        estimate = j.estimate
        lines.append(
            {
                "id": j.claim.id,
                "section": j.claim.section,
                "says": j.claim.says,
                # A claim of which nothing qualifies keeps the subjects that it is about.
                "subject": ", ".join(j.subjects or _several(j.claim.measure.get("subject", ""))),
                "statistic": describe(j.claim, j.subjects),
                "compare": j.claim.compared,
                "expected": str(j.claim.expect),
                "published": j.claim.published,
                "measured": estimate.mean if estimate else np.nan,
                "ci_low": estimate.low if estimate else np.nan,
                "ci_high": estimate.high if estimate else np.nan,
                "n": len(j.values),
                "verdict": j.verdict,
                "ours": j.claim.ours,
                "note": j.claim.note,
            }
        )
    return pd.DataFrame(lines)


def describe(claim: Claim, subjects: Sequence[str] = ()) -> str:
    """The statistic in words; `subjects` are those that it is of, all of the claim's if none are given."""
    text = _words({"metric": DEFAULTS["metric"], **claim.measure, "subject": ""})
    if claim.over != "one":
        text = f"{claim.over} over {text}"
    if len(subjects or _several(claim.measure.get("subject", ""))) > 1:
        text += ", mean over tasks"
    net = f", net of {_words(claim.less)}" if claim.less is not None else ""
    text += net
    if claim.against is not None:
        joint = {"difference": "minus", "absolute difference": "away from", "ratio": "divided by"}[claim.compare]
        text += f", {joint} {_words(claim.against)}" + (net and ", net of the same")
        text += f", {claim.pairs} by {claim.pairs}" if claim.pairs else ""
    return f"{text}; {claim.seeds} seeds"


def _several(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


def _words(select: dict[str, Any]) -> str:
    order = ["subject", "metric", "inputs", "site", "setting", "variant", "control", "model", "experiment"]
    parts = [select[key] for key in order if select.get(key)]
    return ", ".join(" / ".join(p) if isinstance(p, list) else str(p) for p in parts).replace("topk_", "top-k ")
