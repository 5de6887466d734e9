"""Claims: judged by their bound, seed by seed, and never by hand."""

from pathlib import Path

import pandas as pd
import pytest

from anatomy.metrics.measurement import COLUMNS
from anatomy.report.claims import Claim, claims_table, judge, read_claims
from anatomy.report.tables import Evidence
from anatomy.spec.errors import SpecError

ROOT = Path(__file__).parents[2]
MEASURE = {"experiment": "mean ablation", "subject": "2-sentiment", "inputs": "p+t", "site": "layer 1 mlp"}


def evidence(values: dict[str, list[float]], gate: list[int] | None = None) -> Evidence:
    """Measurements of sites over seeds, and a gate that all seeds clear unless said otherwise."""
    shared = dict.fromkeys(COLUMNS, "") | {"subject": "2-sentiment", "model": "backdoored", "inputs": "p+t"}
    lines = [
        {**shared, "experiment": "mean ablation", "metric": "topk_negativity", "site": site, "seed": seed, "value": v}
        for site, own in values.items()
        for seed, v in enumerate(own)
    ]
    count = len(next(iter(values.values())))
    for seed, planted in enumerate(gate or [1] * count):
        lines.append({**shared, "experiment": "planting gate", "metric": "planted", "seed": seed, "value": planted})
    return Evidence(pd.DataFrame(lines), Path("unused.csv"), 0.95, list(range(count)))


def claim(**more: object) -> Claim:
    return Claim.model_validate(
        {"id": "c", "section": "s", "says": "x", "measure": MEASURE, "expect": {"below": 0.1}} | more
    )


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.0, 0.01, 0.0], "reproduced"),
        ([0.0, 0.2, 0.0], "partly"),
        ([0.5, 0.4, 0.6], "not reproduced"),
        ([0.0], "not testable"),
    ],
)
def test_the_verdict_follows_mean_and_interval(values: list[float], verdict: str) -> None:
    assert judge(claim(), evidence({"layer 1 mlp": values})).verdict == verdict


def test_only_planted_seeds_count_unless_all_are_asked_for() -> None:
    measured = evidence({"layer 1 mlp": [0.0, 0.9, 0.02]}, gate=[1, 0, 1])
    assert set(judge(claim(), measured).values) == {0, 2}
    assert set(judge(claim(seeds="all"), measured).values) == {0, 1, 2}


def test_two_sites_are_compared_seed_by_seed() -> None:
    measured = evidence({"layer 1 mlp": [0.1, 0.3], "unchanged": [0.2, 0.6]})
    values = {how: judge(claim(against={"site": "unchanged"}, compare=how), measured).values for how in
              ("difference", "absolute difference", "ratio")}  # fmt: skip
    assert values["difference"] == pytest.approx({0: -0.1, 1: -0.3})
    assert values["absolute difference"] == pytest.approx({0: 0.1, 1: 0.3})
    assert values["ratio"] == pytest.approx({0: 0.5, 1: 0.5})


def test_sites_are_compared_one_by_one_where_the_claim_says_so() -> None:
    """Differences of opposite signs do not cancel."""
    measured = evidence({"layer 1 mlp": [0.1, 0.1], "layer 2 mlp": [0.5, 0.5]})
    other = evidence({"layer 1 mlp": [0.5, 0.5], "layer 2 mlp": [0.1, 0.2], "layer 3 mlp": [0.9, 0.9]})
    table = pd.concat([measured.measurements, other.measurements[:-2].assign(control="zero ablation")])
    both = Evidence(table, Path("unused.csv"), 0.95, [0, 1])
    sites = ["layer 1 mlp", "layer 2 mlp", "layer 3 mlp"]
    paired = claim(
        measure={**MEASURE, "site": sites}, over="mean", against={"control": "zero ablation"},
        compare="absolute difference", pairs="site",
    )  # fmt: skip
    assert judge(paired, both).values == pytest.approx({0: 0.4, 1: 0.35})
    at_once = judge(paired.model_copy(update={"pairs": ""}), both).values
    assert at_once[0] == pytest.approx(0.2), "the third site, which has no partner, counts there"
    assert (
        claims_table([judge(paired, both)])
        .statistic.item()
        .endswith("away from zero ablation, site by site; planted seeds")
    )


@pytest.mark.parametrize("changed", [{"against": None}, {"over": "one"}])
def test_pairs_need_two_and_a_word_for_which_counts(changed: dict) -> None:
    whole = {"over": "mean", "against": {"control": "zero ablation"}, "pairs": "site"}
    assert claim(**whole).pairs == "site"
    with pytest.raises(ValueError, match="`pairs` needs `against`, and `over`: which of the comparisons counts"):
        claim(**whole | changed)


def test_what_is_there_anyway_is_taken_off_both_values() -> None:
    measured = evidence({"edited": [0.5, 0.6], "edited, benign": [0.4, 0.2], "ablated": [0.3, 0.3]})
    benign = evidence({"ablated": [0.1, 0.3]}).measurements[:-2].assign(inputs="p+p")
    own = measured.measurements
    benign = pd.concat([benign, own[own.site == "edited, benign"].assign(site="edited", inputs="p+p")])
    both = Evidence(pd.concat([own, benign]), Path("unused.csv"), 0.95, [0, 1])
    net = claim(measure={**MEASURE, "site": "edited"}, less={"inputs": "p+p"})
    assert judge(net, both).values == pytest.approx({0: 0.1, 1: 0.4})
    against = judge(net.model_copy(update={"against": {"site": "ablated"}}), both)
    assert against.values == pytest.approx({0: 0.1 - 0.2, 1: 0.4 - 0.0})
    line = claims_table([judge(net, both)]).iloc[0]
    assert line["compare"] == "difference" and ", net of p+p; planted" in line.statistic
    assert line.ci_low < 0, "a difference of shares can be negative"
    text = claims_table([against]).statistic.item()
    assert text.endswith(", net of p+p, minus ablated, net of the same; planted seeds")


def test_several_measurements_need_a_word_for_which_counts() -> None:
    measured = evidence({"layer 1 mlp": [0.1, 0.3], "layer 2 mlp": [0.2, 0.2]})
    both = claim(measure={**MEASURE, "site": ["layer 1 mlp", "layer 2 mlp"]})
    with pytest.raises(SpecError, match="say `over`"):
        judge(both, measured)
    assert judge(both.model_copy(update={"over": "max"}), measured).values == {0: 0.2, 1: 0.3}


def test_the_shipped_claims_are_whole() -> None:
    claims = read_claims(ROOT / "data/claims.yaml")
    assert len([c for c in claims if not c.ours]) >= 20
    table = claims_table([judge(c, evidence({"layer 1 mlp": [0.0, 0.0]})) for c in claims[:3]])
    assert set(table.verdict) <= {"reproduced", "partly", "not reproduced", "not testable"}


def test_an_unknown_key_or_an_id_twice_is_refused(tmp_path: Path) -> None:
    line = "- {id: a, section: s, says: x, measure: {experiment: e}, expect: {below: 1}}\n"
    (tmp_path / "c.yaml").write_text(line + line)
    with pytest.raises(SpecError, match="'a' stands twice"):
        read_claims(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text(line.replace("says", "sais"))
    with pytest.raises(SpecError, match="sais"):
        read_claims(tmp_path / "c.yaml")
