"""The crate says what the manifest and the records say, always in the same bytes, and in the words of its profile."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anatomy.provenance.audit import audit
from anatomy.provenance.crate import AGENT, Agent, build_crate, crate_json, given_agent, read_citation, read_records
from anatomy.provenance.crate_job import crate_id
from anatomy.provenance.digest import ArtifactError, sha256_file
from anatomy.provenance.manifest import manifest_path, read_manifest
from anatomy.provenance.record import read_record

from .documents import crate_text, write_crate, write_repository
from .studies import LOCK, finish_job, gather, write
from .test_audit import edit_record, found

HOME = "results/toy"
CRATE = f"{HOME}/ro-crate-metadata.json"
LEXICON = "data/lexicon/positive.txt"
Crate = dict[str, dict[str, Any]]

# The terms of the two contexts that the crate uses. The validator asks for them on the web; a term more in the crate
# is an error here until it is looked up there and entered.
SCHEMA_ORG = (
    *("Dataset", "CreativeWork", "SoftwareApplication", "SoftwareSourceCode", "ComputerLanguage", "Organization"),
    *("Person", "PropertyValue", "HowTo", "HowToStep", "CreateAction", "ControlAction", "OrganizeAction"),
    *(
        "about",
        "agent",
        "additionalType",
        "author",
        "contentSize",
        "datePublished",
        "description",
        "encodingFormat",
        "endTime",
    ),
    *("exampleOfWork", "hasPart", "identifier", "instrument", "isBasedOn", "license", "mainEntity", "mentions", "name"),
    *("object", "position", "programmingLanguage", "propertyID", "result", "softwareVersion", "startTime", "step"),
    *("unitCode", "url", "value", "version", "workExample"),
)
CONTEXTS = {
    "https://w3id.org/ro/crate/1.1/context": {term: f"http://schema.org/{term}" for term in SCHEMA_ORG}
    | {
        "File": "http://schema.org/MediaObject",
        "conformsTo": "http://purl.org/dc/terms/conformsTo",
        "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
        "FormalParameter": "https://bioschemas.org/FormalParameter",
        "input": "https://bioschemas.org/ComputationalWorkflow#input",
        "output": "https://bioschemas.org/ComputationalWorkflow#output",
    },
    "https://w3id.org/ro/terms/workflow-run/context": {
        term: f"https://w3id.org/ro/terms/workflow-run#{term}" for term in ("sha256", "resourceUsage")
    },
}


@pytest.fixture(autouse=True)
def repository(study: Path) -> Path:
    """The study `toy`, in a repository with a Snakefile, a lock and a citation."""
    write_repository()
    return study


def graph() -> Crate:
    """The crate's entities by their id."""
    entities = json.loads(crate_text())["@graph"]
    assert len({entity["@id"] for entity in entities}) == len(entities)
    return {entity["@id"]: entity for entity in entities}


def of_type(crate: Crate, kind: str) -> list[dict[str, Any]]:
    return [entity for entity in crate.values() if entity["@type"] == kind]


def ids(value: dict[str, str] | list[dict[str, str]]) -> set[str]:
    return {one["@id"] for one in (value if isinstance(value, list) else [value])}


def test_every_line_of_the_manifest_is_a_file_made_by_its_job() -> None:
    crate, manifest = graph(), read_manifest(manifest_path("toy"))
    for entry in manifest.entries:
        name = crate_id(entry["path"], f"{HOME}/")
        assert crate[name]["sha256"] == entry["sha256"] and crate[name]["contentSize"] == str(entry["bytes"])
        action = crate[f"#job/{entry['job']}"]
        assert name in ids(action["result"])
        assert {crate_id(used["path"], f"{HOME}/") for used in entry["inputs"]} <= ids(action["object"])
        assert action["instrument"] == {"@id": f"#tool/{entry['rule']}"}
        record = crate[crate_id(entry["record"], f"{HOME}/")]
        assert (record["sha256"], record["about"]) == (entry["record_sha256"], {"@id": action["@id"]})
    assert crate["manifest.jsonl"]["sha256"] == manifest.sha256
    assert crate["../../requirements.lock"]["sha256"] == LOCK


def test_a_job_has_its_times_parameters_and_environment() -> None:
    crate, record = graph(), read_record(f"{HOME}/models/clean/run.json")
    action = crate[f"#job/{record['job']}"]
    assert (action["startTime"], action["endTime"]) == ("2026-01-02T03:04:05+00:00", "2026-01-02T03:04:06+00:00")
    values = {crate[one]["name"]: crate[one]["value"] for one in ids(action["object"]) if one.startswith("#value/")}
    assert values["size.layers"] == 2 and values["size.heads"] == "[4, 4]" and values["job.wildcards.seed"] == "0"
    assert values["job.code"] == record["code"] and values["job.lock"] == LOCK and values["job.seeds.torch"] == 7
    assert values["job.environment.python"] == record["environment"]["python"]
    usage = {crate[one]["name"]: crate[one]["value"] for one in ids(action["resourceUsage"])}
    assert usage == {"wall_s": 1.25, "cpu_s": 2.5, "peak_rss_mb": 100.0}


def test_every_rule_is_a_step_with_a_tool_after_those_whose_files_it_reads() -> None:
    crate = graph()
    steps = {entity["name"]: int(entity["position"]) for entity in of_type(crate, "HowToStep")}
    assert steps == {"make_corpus": 1, "train_clean": 2, "measure_asr": 3, "render_lamparth": 4}
    workflow = crate["../../Snakefile"]
    assert crate["./"]["mainEntity"] == {"@id": "../../Snakefile"} and "HowTo" in workflow["@type"]
    assert ids(workflow["hasPart"]) == {f"#tool/{rule}" for rule in steps}
    assert ids(workflow["step"]) == {f"../../Snakefile#{rule}" for rule in steps}
    orchestrated = {one for entity in of_type(crate, "ControlAction") for one in ids(entity["object"])}
    jobs = {entity["@id"] for entity in of_type(crate, "CreateAction")} - {"#run"}
    assert orchestrated == jobs and len(jobs) == 4
    assert ids(crate["#engine"]["object"]) == {f"#control/{rule}" for rule in steps}


def test_the_run_goes_from_raw_inputs_to_final_results() -> None:
    run = graph()["#run"]
    assert {one for one in ids(run["object"]) if not one.startswith("#")} == {f"../../{LEXICON}"}
    assert ids(run["result"]) == {"tables/lamparth_table_01.csv"}


def test_authors_and_licence_are_those_of_the_citation() -> None:
    crate = graph()
    assert crate["./"]["license"] == {"@id": "https://spdx.org/licenses/MIT"}
    authors = [crate[one["@id"]] for one in crate["./"]["author"]]
    assert [(one["@type"], one["name"]) for one in authors] == [
        ("Organization", "The authors"),
        ("Person", "Ada Byron"),
    ]
    assert crate["./"]["name"] == "A study: the study toy"


def test_every_reference_to_something_in_the_crate_leads_somewhere() -> None:
    crate = graph()
    for entity in crate.values():
        for key, value in entity.items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, dict) and not one["@id"].startswith("http"):
                    assert one["@id"] in crate, f"{entity['@id']} {key}"


def test_a_file_outside_the_repository_and_odd_names() -> None:
    write(f"{HOME}/tables/50 % of #1.csv", "x")
    outside = write(Path.cwd().parent / "own words.txt", "good")
    finish_job(f"{HOME}/odd.run.json", "measure_asr", [str(outside)], [f"{HOME}/tables/50 % of #1.csv"])
    gather()
    crate = graph()
    assert crate["tables/50%20%25%20of%20%231.csv"]["sha256"] == sha256_file(f"{HOME}/tables/50 % of #1.csv")
    assert crate[outside.as_uri()]["sha256"] == sha256_file(outside)


def test_the_same_manifest_and_records_give_the_same_bytes() -> None:
    """In other processes, at another time, with other hashes of strings, whatever the order of the records."""
    manifest, citation = read_manifest(manifest_path("toy")), read_citation(Path("CITATION.cff"))
    backwards = dict(reversed(read_records(manifest).items()))
    here = build_crate(manifest, backwards, citation)
    package = str(Path(sys.modules["anatomy"].__path__[0]).parent)
    stage = [sys.executable, "-m", "anatomy.stages.write_crate", "--manifest", f"{HOME}/manifest.jsonl"]
    for seed in ("1", "2"):
        command = [*stage, "--citation", "CITATION.cff", "--crate", f"out/{seed}.json"]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": package})
        assert Path(f"out/{seed}.json").read_text() == here
    edit_record(f"{HOME}/corpus/run.json", wall_s=60.0)
    gather()
    assert crate_text() != here


def test_records_that_are_not_the_manifests_are_refused() -> None:
    edit_record(f"{HOME}/corpus/run.json", wall_s=60.0)
    with pytest.raises(ArtifactError, match=r"corpus/run\.json is not the run record that .*manifest\.jsonl was built"):
        crate_text()


@pytest.mark.parametrize(
    ("text", "message"), [("authors: []", "takes title, license and authors from it"), ("{", "cannot be read")]
)
def test_a_citation_without_what_the_crate_needs(text: str, message: str) -> None:
    write("CITATION.cff", text)
    with pytest.raises(ArtifactError, match=message):
        crate_text()


def test_the_audit_accepts_the_crate_and_says_so() -> None:
    assert "ro-crate-metadata.json: not there (`anatomy run toy` writes it)" in audit("toy").notes
    write_crate()
    report = audit("toy")
    assert report.ok and report.counts == {"intact": 5}
    assert "ro-crate-metadata.json: agrees with the manifest" in report.notes


def edit_crate(change: Callable[[Crate], object]) -> None:
    content = json.loads(Path(CRATE).read_text())
    change({entity["@id"]: entity for entity in content["@graph"]})
    write(CRATE, crate_json(content))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda crate: crate["models/clean/model.safetensors"].update(sha256="0" * 64), "model.safetensors"),
        (lambda crate: crate["./"].update(author=[]), "on ./"),
        (lambda crate: crate["#tool/train_clean"].update(softwareVersion="9"), "#tool/train_clean"),
    ],
    ids=["digest", "author", "version"],
)
def test_the_audit_finds_a_changed_crate_and_names_what_differs(change: Callable[[Crate], object], named: str) -> None:
    write_crate()
    edit_crate(lambda crate: None)
    assert audit("toy").ok
    edit_crate(change)
    report = audit("toy")
    assert found(report) == {CRATE: "changed"}
    detail = next(finding.detail for finding in report.findings if finding.path == CRATE)
    assert named in detail and "it differs from the manifest, the run records and CITATION.cff" in detail


@pytest.mark.parametrize(
    ("given", "entity"),
    [
        ("Ada Lovelace", {"@id": "#agent/Ada%20Lovelace", "@type": "Person", "name": "Ada Lovelace"}),
        (
            "A Lab <https://ror.org/012abc>",
            {"@id": "https://ror.org/012abc", "@type": "Organization", "name": "A Lab"},
        ),
        (
            "Grace Hopper <https://orcid.org/0000-0000-0000-002X>",
            {"@id": "https://orcid.org/0000-0000-0000-002X", "@type": "Person", "name": "Grace Hopper"},
        ),
        (  # an author of the citation: one entity for both
            "Ada Byron <https://orcid.org/0000-0000-0000-0001>",
            {"@id": "https://orcid.org/0000-0000-0000-0001", "@type": "Person", "name": "Ada Byron"},
        ),
    ],
)
def test_an_agent_who_asked_to_be_named(given: str, entity: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Named once, the agent of every action; the audit accepts it and says where it is from; it needs no variable."""
    monkeypatch.setenv(AGENT, given)
    text = crate_text(given_agent())
    write(CRATE, text)
    monkeypatch.delenv(AGENT)
    crate = {one["@id"]: one for one in json.loads(text)["@graph"]}
    assert crate[entity["@id"]] == entity
    actions = [one for one in crate.values() if str(one["@type"]).endswith("Action")]
    assert len(actions) == 10 and all(one["agent"] == {"@id": entity["@id"]} for one in actions)
    report = audit("toy")
    assert report.ok
    assert f"agrees with the manifest; that {entity['name']} ran the jobs is said there alone" in " ".join(report.notes)
    edit_crate(lambda entities: entities["#engine"].update(agent={"@id": "#agent/another"}))
    assert found(audit("toy")) == {CRATE: "changed"}


def test_nobody_is_named_without_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(AGENT, raising=False)
    assert given_agent() is None and "agent" not in crate_text()
    monkeypatch.setenv(AGENT, "Ada <ada@example.org>")
    with pytest.raises(ArtifactError, match=r"ANATOMY_AGENT='Ada <ada@example\.org>': expected a name"):
        given_agent()


def test_the_audit_finds_a_space_more_and_a_crate_cut_short() -> None:
    path = write_crate()
    text = path.read_text()
    write(path, text.replace("\n", "\n ", 1))
    assert found(audit("toy")) == {CRATE: "changed"}
    write(path, text[:-200])
    assert found(audit("toy")) == {CRATE: "changed"}


def test_the_crate_of_an_earlier_manifest_is_found() -> None:
    write_crate()
    write(f"{HOME}/late.csv", "x")
    finish_job(f"{HOME}/late.run.json", "measure_asr", [], [f"{HOME}/late.csv"])
    gather()
    assert found(audit("toy")) == {CRATE: "changed"}
    write_crate()
    assert audit("toy").ok


def test_a_damaged_record_is_told_once_and_not_as_a_changed_crate() -> None:
    write_crate()
    edit_record(f"{HOME}/corpus/run.json", seeds={})
    report = audit("toy")
    assert set(found(report).values()) == {"forged record"}
    assert "ro-crate-metadata.json: not compared, as not all run records are intact" in report.notes


def recommended(monkeypatch: pytest.MonkeyPatch, cache: Path) -> str:
    """What the profile recommends and the crate has not."""
    return " ".join(problems(monkeypatch, cache, severity="RECOMMENDED"))


def problems(monkeypatch: pytest.MonkeyPatch, cache: Path, severity: str = "REQUIRED") -> list[str]:
    """What roc-validator has to say about the crate on the disk, without the web."""
    requests, models = pytest.importorskip("requests"), pytest.importorskip("rocrate_validator.models")
    from rocrate_validator import services
    from rocrate_validator.utils.http import HttpRequester

    class Web:
        """Answers for the two contexts; anything else is out of reach."""

        def get(self, url: str, **_: object) -> Any:
            answer = requests.Response()
            answer.status_code = 200 if url in CONTEXTS else 504
            answer.headers["Content-Type"] = "application/ld+json"
            answer._content = json.dumps({"@context": CONTEXTS.get(url)}).encode()
            return answer

    settings = services.ValidationSettings(
        rocrate_uri=Path(HOME).resolve(),
        profile_identifier="provenance-run-crate",
        requirement_severity=models.Severity[severity],
        cache_path=cache,
        offline=True,
    )
    monkeypatch.setattr(HttpRequester(), "session", Web())
    result = services.validate(settings)
    assert len(result.executed_checks) > 80 and not result.skipped_checks
    return [str(issue.message) for issue in result.get_issues()]


def test_the_crate_meets_every_requirement_of_its_profile(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Provenance Run Crate 0.5 and all it builds on; roc-validator is told of three mistakes, which it must find."""
    cache = tmp_path_factory.mktemp("cache") / "web"
    write_crate()
    assert problems(monkeypatch, cache) == []
    write(CRATE, crate_text(Agent("Ada Byron", "https://orcid.org/0000-0000-0000-0001")))
    assert problems(monkeypatch, cache) == []
    assert "The Action SHOULD have an agent that is a Person or Organization" not in recommended(monkeypatch, cache)
    write_crate()
    assert "The Action SHOULD have an agent that is a Person or Organization" in recommended(monkeypatch, cache)
    edit_crate(lambda crate: crate["#control/train_clean"].pop("instrument"))
    edit_crate(lambda crate: crate["#parameter/size.layers"].pop("additionalType"))
    edit_crate(lambda crate: crate["./"].update(madeUp="x"))
    said = " ".join(problems(monkeypatch, cache))
    assert "A ControlAction must reference a HowToStep instance" in said
    assert "FormalParameter MUST have an additionalType" in said
    assert "madeUp" in said
