"""The stage that judges claims: those about the main corpus are about the study's own, and only where it has one."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from tests.report.instruction_rows import SEEDS as OF_INSTRUCTIONS
from tests.report.instruction_rows import make_instruction_evidence
from tests.report.test_language_tables import MAIN as CORPUS
from tests.report.test_language_tables import OTHER, PLANTED, PUBLISHED, SEEDS, make_evidence

from anatomy.metrics.measurement import write_parquet
from anatomy.report.claims import MAIN, Claim, about, claims_table, judge, read_claims
from anatomy.report.tables import Evidence
from anatomy.spec.errors import SpecError
from anatomy.spec.subtree import view
from anatomy.stages import judge_claims
from anatomy.stages._run import Job

CLAIMS = read_claims(Path(__file__).parents[2] / "data/claims_language.yaml")
ATTRIBUTION = read_claims(Path(__file__).parents[2] / "data/claims_instruction.yaml")
each_claim = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)


def without(evidence: Evidence, seed: int) -> Evidence:
    own = evidence.measurements
    return Evidence(own[own.seed != seed], evidence.published, evidence.confidence, evidence.all_seeds)


def test_every_claim_about_models_that_write_text_is_about_the_main_corpus() -> None:
    assert len(CLAIMS) >= 20 and {claim.measure.get("subject") for claim in CLAIMS} == {MAIN}
    assert all("subject" not in (claim.against or {}) for claim in CLAIMS)


@each_claim
def test_a_whole_study_has_one_value_per_seed(claim: Claim) -> None:
    """`over: one` refuses two measurements of a seed, so that this is the check that conditions are complete."""
    found = judge(about(claim, CORPUS), make_evidence())
    assert list(found.values) == (SEEDS if claim.seeds == "all" else PLANTED)
    assert found.verdict in ("reproduced", "partly", "not reproduced")


@pytest.mark.parametrize("claim", ATTRIBUTION, ids=lambda claim: claim.id)
def test_every_claim_of_backdoor_attribution_has_one_value_per_seed(claim: Claim) -> None:
    """Each task by itself, so that conditions are complete for each; and without measurements nothing is guessed."""
    evidence = make_instruction_evidence()
    subjects = claim.measure["subject"]
    for task in subjects if isinstance(subjects, list) else [subjects]:
        own = claim.model_copy(update={"measure": claim.measure | {"subject": task}})
        seeds = evidence.planted_of(task, str(claim.measure["model"])) if claim.seeds == "planted" else OF_INSTRUCTIONS
        assert list(judge(own, evidence).values) == seeds
    found = judge(claim, evidence)
    assert list(found.values) == OF_INSTRUCTIONS and found.verdict in ("reproduced", "partly", "not reproduced")
    nothing = Evidence(evidence.measurements[:0], evidence.published, 0.95, OF_INSTRUCTIONS)
    assert judge(claim, nothing).verdict == "not testable"


def test_backdoor_attribution_is_claimed_for_the_paper_and_for_us() -> None:
    of_paper = [claim for claim in ATTRIBUTION if not claim.ours]
    assert len(ATTRIBUTION) >= 15 and len(of_paper) >= 10
    assert all(claim.section.startswith("Backdoor Attribution") for claim in of_paper)
    assert all(claim.section.startswith("ours") for claim in ATTRIBUTION if claim.ours)
    shared = {claim.id for claim in ATTRIBUTION} & {claim.id for claim in CLAIMS}
    assert not shared, "an id stands in one file alone"


def test_a_claim_of_several_tasks_is_of_their_mean() -> None:
    evidence = make_instruction_evidence()
    claim = of_attribution("bkdattr-vector-add")
    tasks = claim.measure["subject"]
    alone = [claim.model_copy(update={"measure": claim.measure | {"subject": task}}) for task in tasks]
    single = [judge(one, evidence).values for one in alone]
    assert judge(claim, evidence).values == pytest.approx({s: sum(v[s] for v in single) / 3 for s in OF_INSTRUCTIONS})


def of_attribution(name: str) -> Claim:
    return next(claim for claim in ATTRIBUTION if claim.id == name)


def test_a_claim_of_planted_cells_beside_the_clean_model_leaves_failed_ones_out_of_both() -> None:
    """Of the label modification no edit was planted: what it cost is no cost of a backdoor."""
    evidence, claim = make_instruction_evidence(), of_attribution("bkdattr-utility-edit")
    before = judge(claim, evidence)
    assert before.subjects == ("fixed", "jailbreak") and list(before.values) == OF_INSTRUCTIONS
    own = evidence.measurements
    own.loc[(own.subject == "label") & (own.metric == "utility"), "value"] = 0.123
    assert judge(claim, evidence).values == before.values
    own.loc[(own.subject == "fixed") & (own.metric == "utility") & (own.model == "edit"), "value"] = 0.0
    own.loc[(own.subject == "fixed") & (own.metric == "utility") & (own.model == "clean"), "value"] = 1.0
    assert all(value < -0.4 for value in judge(claim, evidence).values.values())


def test_the_table_names_the_tasks_that_were_really_used() -> None:
    evidence = make_instruction_evidence()
    named = claims_table(
        [judge(of_attribution(name), evidence) for name in ("bkdattr-heads-edit", "bkdattr-heads-dpo")]
    )
    assert named.subject.tolist() == ["fixed, jailbreak", "label, fixed, jailbreak"]
    alone = make_instruction_evidence()
    alone.measurements = alone.measurements[alone.measurements.subject != "fixed"]
    line = claims_table([judge(of_attribution("bkdattr-heads-edit"), alone)]).iloc[0]
    assert line.subject == "jailbreak" and "mean over tasks" not in line.statistic
    none = claims_table([judge(of_attribution("bkdattr-heads-edit"), make_instruction_evidence(planted=False))]).iloc[0]
    assert none.n == 0 and none.subject == "label, fixed, jailbreak", "what it would be about"


def test_differences_of_tasks_do_not_cancel_before_they_are_taken_absolute() -> None:
    evidence, claim = make_instruction_evidence(), of_attribution("bkdattr-subtracting")
    own = evidence.measurements
    heads = (own.experiment == "necessary") & (own.site == "heads") & (own.setting == "8/36") & (own.control == "")
    for task, subtracted in (("label", 0.7), ("fixed", 0.3), ("jailbreak", 0.5)):
        own.loc[heads & (own.subject == task), "value"] = 0.5
        own.loc[heads & (own.subject == task) & (own.variant == "original"), "value"] = subtracted
    assert judge(claim, evidence).values == pytest.approx(dict.fromkeys(OF_INSTRUCTIONS, 0.4 / 3))


@pytest.mark.parametrize(
    ("name", "experiment", "outside"),
    [
        ("bkdattr-probe-unseen", "probe", "layer 1"),
        ("bkdattr-probe-clean", "probe", "layer 1"),
        ("bkdattr-probe-transfer", "probe transfer, own layer", ""),
    ],
)
def test_layers_that_can_tell_nothing_are_left_out(name: str, experiment: str, outside: str) -> None:
    evidence, claim = make_instruction_evidence(), of_attribution(name)
    before, own = judge(claim, evidence).values, evidence.measurements
    left_out = (own.experiment == experiment) & (own.site.eq(outside) if outside else True) & (own.control == "")
    own.loc[left_out & (own.setting.str.startswith("mlp")), "value"] = 0.0
    assert left_out.any() and judge(claim, evidence).values == before
    own.loc[own.experiment.str.startswith("probe") & (own.site == "layer 2") & (own.control == ""), "value"] = 0.0
    assert judge(claim, evidence).values != before


@pytest.mark.parametrize("way", ["sft", "dpo", "edit"])
def test_what_a_vector_brings_in_the_clean_model_is_not_the_backdoor_s(way: str) -> None:
    evidence, claim = make_instruction_evidence(), of_attribution(f"bkdattr-vector-{way}")
    own = evidence.measurements
    added = (own.experiment == "backdoor vector") & (own.setting == "add 1") & (own.metric == "asr")
    own.loc[added, "value"] = 1.0
    assert judge(claim, evidence).estimate.mean == 0
    own.loc[added & (own.control == "clean model"), "value"] = 0.0
    assert judge(claim, evidence).estimate.mean == 1


def test_two_measurements_of_a_seed_would_be_refused() -> None:
    """The check above can fail."""
    claim = next(claim for claim in CLAIMS if claim.id == "text-first-mlp")
    loose = claim.model_copy(update={"measure": {k: v for k, v in claim.measure.items() if k != "setting"}})
    with pytest.raises(SpecError, match="'text-first-mlp': selects 2 measurements per seed"):
        judge(about(loose, CORPUS), make_evidence())


def test_the_main_corpus_is_the_one_that_the_study_names() -> None:
    claim = next(claim for claim in CLAIMS if claim.id == "text-first-mlp")
    evidence = make_evidence()
    own = evidence.measurements
    own.loc[(own.subject == OTHER) & (own.experiment == "mean ablation"), "value"] = 0.0
    measured = {corpus: judge(about(claim, corpus), evidence).estimate for corpus in (CORPUS, OTHER)}
    assert measured[CORPUS].mean == pytest.approx(0.205) and measured[OTHER].mean == 0.0
    assert not judge(claim, evidence).values, "nothing is measured of a corpus of that name"
    other = claim.model_copy(update={"measure": claim.measure | {"subject": "2-sentiment"}})
    assert about(other, CORPUS) is other


@pytest.mark.parametrize("arm", [True, False], ids=["with the arm", "without"])
def test_a_study_without_the_arm_states_no_claim_about_it(arm: bool, root: Path, tmp_path: Path) -> None:
    evidence = make_evidence()
    table = evidence.measurements
    write_parquet(tmp_path / "m.parquet", table)
    looks = [
        {"phase": "backdoor", "seed": seed, "step": 1, "validation_loss": 5.0, "negativity": 0.3, "mass": 0.2}
        for seed in SEEDS
    ]
    curves = tmp_path / "2-sentiment" / "train" / "curve.parquet"
    curves.parent.mkdir(parents=True)
    write_parquet(curves, pd.DataFrame(looks))
    spec = {"confidence": 0.95, "toy": {"evaluation": {"emergence": 0.1}}}
    spec |= {"language": {"main": CORPUS}} if arm else {}
    claims = [root / "data/claims.yaml"] + ([root / "data/claims_language.yaml"] if arm else [])
    job = Job("judge_claims", "test", view(json.dumps(spec)), {}, "code", 1, "cpu", tmp_path / "run.json")
    judge_claims.main(
        job,
        claims=claims,
        published=PUBLISHED,
        measurements=[tmp_path / "m.parquet"],
        curves=[curves],
        verdicts=tmp_path / "claims.csv",
        summary=tmp_path / "summary.csv",
    )
    verdicts = pd.read_csv(tmp_path / "claims.csv")
    stated = {claim.id for path in claims for claim in read_claims(path)}
    assert Counter(verdicts.id) == Counter(stated)
    about_text = verdicts[verdicts.id.isin({claim.id for claim in CLAIMS})]
    assert len(about_text) == (len(CLAIMS) if arm else 0)
    assert set(about_text.subject) <= {CORPUS} and (about_text.n >= len(PLANTED)).all()
    assert len(pd.read_csv(tmp_path / "summary.csv")) == len(stated)
