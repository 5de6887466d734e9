"""The run of a study as a Workflow Run RO-Crate, for programs of others: who made what, from what, when and how.

The crate (Provenance Run Crate 0.5, on RO-Crate 1.1) holds nothing that is not in the manifest, the run records or
CITATION.cff, and no time or identifier of its own: the same three give the same bytes. The one exception is who ran
the jobs, which no record tells: that is said by whoever has the crate written, or not at all. The root of the crate is
results/{study}; a file of the repository outside of that is named from there, `../../Snakefile`.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

import yaml

from anatomy.provenance.crate_job import SNAKEFILE, Entity, Job, Slot, Value, crate_id, media_type, ref, refs
from anatomy.provenance.digest import ArtifactError, sha256_file
from anatomy.provenance.manifest import Manifest
from anatomy.provenance.record import read_record

FILE_NAME = "ro-crate-metadata.json"
CITATION = "CITATION.cff"
AGENT = "ANATOMY_AGENT"  # the environment variable that names who runs the jobs
ROR = "https://ror.org/"
IDENTIFIER = rf"https://orcid\.org/\d{{4}}-\d{{4}}-\d{{4}}-\d{{3}}[\dX]|{re.escape(ROR)}\w+"
LOCK = "requirements.lock"
LOCK_FORMAT = "https://pip.pypa.io/en/stable/reference/requirements-file-format/"
CONTEXT = "https://w3id.org/ro/terms/workflow-run/context"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}


def crate_path(study: str, root: Path = Path()) -> Path:
    """Where the metadata file of a study's crate stands."""
    return root / "results" / study / FILE_NAME


def read_citation(path: Path) -> dict[str, Any]:
    """CITATION.cff; ArtifactError when it cannot be read or has no title, licence or authors."""
    try:
        citation = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ArtifactError(f"{path} cannot be read; the crate takes authors and licence from it ({error})") from error
    if not isinstance(citation, dict) or not all(citation.get(key) for key in ("title", "license", "authors")):
        raise ArtifactError(f"{path}: the crate takes title, license and authors from it, and not all are there")
    return citation


@dataclass(frozen=True)
class Agent:
    """Who ran the jobs: a person, with an ORCID or without, or an organisation, with its identifier at ROR."""

    name: str
    url: str = ""

    @property
    def entity(self) -> Entity:
        """The agent as the crate names it: the profile asks for one of these two types, so that no program is one."""
        kind = "Organization" if self.url.startswith(ROR) else "Person"
        return {"@id": self.url or f"#agent/{quote(self.name)}", "@type": kind, "name": self.name}


def given_agent() -> Agent | None:
    """Who is to be named, from ANATOMY_AGENT: `Ada Byron <https://orcid.org/0000-0000-0000-0001>`, or a name alone.

    Nobody who did not ask for it: None where the variable is not set. Raises ArtifactError when it is neither form.
    """
    text = os.environ.get(AGENT, "").strip()
    found = re.fullmatch(rf"(?P<name>[^<>]+?)(?:\s*<(?P<url>{IDENTIFIER})>)?", text)
    if text and not found:
        raise ArtifactError(
            f"{AGENT}={text!r}: expected a name, or one with an identifier: `Name <https://orcid.org/...>`, or of an "
            f"organisation `Name <{ROR}...>`"
        )
    return Agent(found["name"], found["url"] or "") if found else None


def agent_of(crate: Any) -> Agent | None:
    """Who a crate says ran the jobs; None when it names nobody, or in a way that `build_crate` would not."""
    try:
        entities = {entity["@id"]: entity for entity in crate["@graph"]}
        named = entities[entities["#run"]["agent"]["@id"]]
        url = named["@id"] if re.fullmatch(IDENTIFIER, named["@id"]) else ""
        return Agent(named["name"], url) if isinstance(named["name"], str) else None
    except (KeyError, TypeError):
        return None


def read_records(manifest: Manifest, root: Path = Path()) -> dict[str, dict[str, Any]]:
    """The run records a manifest names, by path; ArtifactError when one is not what the manifest was built from."""
    records = {}
    for path, digest in sorted({entry["record"]: entry["record_sha256"] for entry in manifest.entries}.items()):
        records[path] = read_record(root / path)
        if sha256_file(root / path) != digest:
            raise ArtifactError(f"{path} is not the run record that {manifest.path} was built from")
    return records


def build_crate(
    manifest: Manifest,
    records: Mapping[str, Mapping[str, Any]],
    citation: Mapping[str, Any],
    agent: Agent | None = None,
) -> str:
    """The text of ro-crate-metadata.json; with `agent`, every action is said to be theirs."""
    from rocrate.model import ContextEntity
    from rocrate.rocrate import ROCrate

    home = f"results/{manifest.study}/"
    found = [Job(path, record, home) for path, record in records.items()]
    jobs = sorted(found, key=lambda job: (job.record["started"], job.path))
    engine = ", ".join(sorted({job.record["environment"]["packages"]["snakemake"] or "unknown" for job in jobs}))

    crate = ROCrate(version="1.1")
    crate.metadata.extra_contexts.append(CONTEXT)
    crate.metadata.extra_terms["buildInstructions"] = "https://codemeta.github.io/terms/buildInstructions"
    crate.metadata["isBasedOn"] = ref(manifest.path.name)
    for key, value in _root(manifest, jobs, citation).items():
        crate.root_dataset[key] = value
    workflow = _workflow(jobs, home)
    crate.add_workflow(None, workflow["@id"], properties=workflow, main=True, lang="snakemake", lang_version=engine)
    for entity in _files(manifest, jobs):
        web = entity["@id"] if ":" in entity["@id"] else None
        crate.add_file(web, None if web else PurePosixPath(unquote(entity["@id"])), properties=entity)
    for entity in [*_plan(jobs), *_past(jobs, home, engine), *_people(citation)]:
        crate.add(ContextEntity(crate, entity["@id"], properties=entity))
    content = crate.metadata.generate()
    if agent:
        _sign(content["@graph"], agent)
    content["@graph"].sort(key=lambda entity: (entity["@id"] not in (FILE_NAME, "./"), entity["@id"]))
    for entity in content["@graph"]:  # compact JSON-LD, as RO-Crate recommends: one value is no list
        entity |= {key: value[0] for key, value in entity.items() if isinstance(value, list) and len(value) == 1}
    return crate_json(content)


def crate_json(content: Mapping[str, Any]) -> str:
    """A crate as text, an entity per line: indented, writing it takes as long as hashing all results in the audit."""
    context, *entities = (
        json.dumps(part, sort_keys=True, ensure_ascii=False) for part in (content["@context"], *content["@graph"])
    )
    graph = ",\n".join(entities)
    return f'{{"@context": {context}, "@graph": [\n{graph}\n]}}\n'


def _sign(graph: list[Entity], agent: Agent) -> None:
    """Name the agent of every action; a person who is an author as well stands in the crate already."""
    for entity in graph:
        if entity["@type"] in ("CreateAction", "ControlAction", "OrganizeAction"):
            entity["agent"] = ref(agent.entity["@id"])
    if not any(entity["@id"] == agent.entity["@id"] for entity in graph):
        graph.append(agent.entity)


def _root(manifest: Manifest, jobs: Sequence[Job], citation: Mapping[str, Any]) -> Entity:
    actions = ["#run", "#engine", *(job.id for job in jobs), *sorted({f"#control/{job.rule}" for job in jobs})]
    return {
        "name": f"{citation['title']}: the study {manifest.study}",
        "description": f"The results of the study {manifest.study}, and how each of them was made",
        "datePublished": max(job.ended for job in jobs),
        "license": ref(_licence(citation)),
        "author": refs(_author_id(author) for author in citation["authors"]),
        "conformsTo": refs(PROFILES),
        "mentions": refs(actions),
    }


def _people(citation: Mapping[str, Any]) -> Iterable[Entity]:
    """Authors, licence, and the profiles the crate conforms to."""
    for author in citation["authors"]:
        kind = "Organization" if "name" in author else "Person"
        yield {"@id": _author_id(author), "@type": kind, "name": _name(author)}
    yield {"@id": _licence(citation), "@type": "CreativeWork", "name": citation["license"]}
    yield {"@id": LOCK_FORMAT, "@type": "CreativeWork", "name": "Requirements file of pip"}
    for profile, name in PROFILES.items():
        yield {"@id": profile, "@type": "CreativeWork", "name": name, "version": profile.rpartition("/")[2]}


def _name(author: Mapping[str, str]) -> str:
    return author.get("name") or " ".join(author[key] for key in ("given-names", "family-names") if key in author)


def _author_id(author: Mapping[str, str]) -> str:
    return author.get("orcid") or f"#author/{quote(_name(author))}"


def _licence(citation: Mapping[str, Any]) -> str:
    return f"https://spdx.org/licenses/{citation['license']}"


def _workflow(jobs: Sequence[Job], home: str) -> Entity:
    """The Snakefile. Its digest is in no record, so none is given; the code of every job is (`job.code`)."""
    keys = sorted({value.slot.id for job in jobs for value in job.values() if not value.slot.name.startswith("job.")})
    return {
        "@id": crate_id(SNAKEFILE, home),
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
        "name": "Backdoor Anatomy, the whole study as one graph",
        "encodingFormat": "text/plain",
        "input": refs(keys),
        "hasPart": refs(sorted({job.tool for job in jobs})),
        "step": refs(sorted({job.step for job in jobs})),
        "buildInstructions": ref(crate_id(LOCK, home)),
    }


def _files(manifest: Manifest, jobs: Sequence[Job]) -> Iterable[Entity]:
    """Every file that a job read or made, the run records, the manifest and the lock, each once, sorted."""
    home = jobs[0].home
    slots: dict[str, set[str]] = defaultdict(set)
    files: dict[str, Entity] = {}
    for job in jobs:
        for side in ("inputs", "outputs"):
            for slot, file in job.files(side):
                slots[file["path"]].add(slot.id)
                files[file["path"]] = {"sha256": file["sha256"], "contentSize": str(file["bytes"])}
    for entry in manifest.entries:
        files[entry["record"]] = files.get(entry["record"], {}) | {"sha256": entry["record_sha256"]}
    for job in jobs:
        files[job.path] |= {"about": ref(job.id), "description": "run record"}
    files[f"{home}{manifest.path.name}"] = {"sha256": manifest.sha256, "description": "the digests of every result"}
    files[LOCK] = files.get(LOCK, {}) | {"conformsTo": ref(LOCK_FORMAT), "description": "the environment, locked"}
    if manifest.lock:
        files[LOCK]["sha256"] = manifest.lock
    for path, known in sorted(files.items()):
        entity = {
            "@id": crate_id(path, home),
            "@type": "File",
            "name": path,
            "encodingFormat": media_type(path),
            **known,
        }
        yield entity | ({"exampleOfWork": refs(sorted(slots[path]))} if slots[path] else {})


def _plan(jobs: Sequence[Job]) -> Iterable[Entity]:
    """What was to be done: a tool and a step for every rule, and the slots that their files and values fill."""
    inputs: dict[str, set[str]] = defaultdict(set)
    outputs: dict[str, set[str]] = defaultdict(set)
    examples: dict[str, set[str]] = defaultdict(set)
    slots: dict[str, set[Slot]] = defaultdict(set)  # by id: a parameter may have held values of two types
    values: dict[str, Value] = {}
    for job in jobs:
        for side, of_rule in (("inputs", inputs), ("outputs", outputs)):
            for slot, file in job.files(side):
                of_rule[job.rule].add(slot.id)
                slots[slot.id].add(slot)
                examples[slot.id].add(crate_id(file["path"], job.home))
        for value in job.values():
            inputs[job.rule].add(value.slot.id)
            slots[value.slot.id].add(value.slot)
            examples[value.slot.id].add(value.id)
            values[value.id] = value
    position = _positions(jobs)
    for job in {job.rule: job for job in jobs}.values():
        yield {
            "@id": job.tool,
            "@type": "SoftwareApplication",
            "name": f"the program of the rule {job.rule}",
            "softwareVersion": job.record["tool"],
            "input": refs(sorted(inputs[job.rule])),
            "output": refs(sorted(outputs[job.rule])),
        }
        step = {"@id": job.step, "@type": "HowToStep", "name": job.rule, "position": str(position[job.rule])}
        yield step | {"workExample": ref(job.tool)}
    for name, of_name in slots.items():
        formal = {"@id": name, "@type": "FormalParameter", "name": next(iter(of_name)).name}
        kinds = sorted(slot.kind for slot in of_name)
        yield formal | {"additionalType": kinds, "workExample": refs(sorted(examples[name]))}
    for value in values.values():
        known = {"@id": value.id, "@type": "PropertyValue", "name": value.slot.name, "value": value.value}
        yield known | {"exampleOfWork": ref(value.slot.id)}


def _past(jobs: Sequence[Job], home: str, engine: str) -> Iterable[Entity]:
    """What was done: every job, the steps they belong to, and the run of the workflow as a whole."""
    made = {crate_id(file["path"], home) for job in jobs for _, file in job.files("outputs")}
    read = {crate_id(file["path"], home) for job in jobs for _, file in job.files("inputs")}
    told = {value.id for job in jobs for value in job.values() if not value.slot.name.startswith("job.")}
    for job in jobs:
        yield job.action()
        yield from job.usage()
    for rule in sorted({job.rule for job in jobs}):
        own = [job for job in jobs if job.rule == rule]
        step = {"@id": f"#control/{rule}", "@type": "ControlAction", "name": f"orchestrate {rule}"}
        yield step | {"instrument": ref(own[0].step), "object": refs(job.id for job in own)}
    times = {"startTime": min(job.record["started"] for job in jobs), "endTime": max(job.ended for job in jobs)}
    yield {
        "@id": "#run",
        "@type": "CreateAction",
        "name": "run of the workflow",
        "description": "from the first job to the last; what needed no new job was kept",
        "instrument": ref(crate_id(SNAKEFILE, home)),
        "object": refs([*sorted(read - made - {crate_id(job.path, home) for job in jobs}), *sorted(told)]),
        "result": refs(sorted(made - read)),
    } | times
    yield {"@id": "#snakemake", "@type": "SoftwareApplication", "name": "Snakemake", "softwareVersion": engine}
    yield {
        "@id": "#engine",
        "@type": "OrganizeAction",
        "name": f"run of Snakemake {engine}",
        "instrument": ref("#snakemake"),
        "object": refs(sorted({f"#control/{job.rule}" for job in jobs})),
        "result": ref("#run"),
    } | times


def _positions(jobs: Sequence[Job]) -> dict[str, int]:
    """Rule -> number of its step: greater than that of every rule whose files it reads."""
    maker = {file["path"]: job.rule for job in jobs for _, file in job.files("outputs")}
    maker |= {job.path: job.rule for job in jobs}
    before: dict[str, set[str]] = {job.rule: set() for job in jobs}
    for job in jobs:
        before[job.rule] |= {maker[f["path"]] for _, f in job.files("inputs") if f["path"] in maker} - {job.rule}
    position: dict[str, int] = {}
    for _ in before:
        position = {rule: 1 + max((position.get(one, 0) for one in needs), default=0) for rule, needs in before.items()}
    return position
