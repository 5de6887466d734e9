"""Where a file or a model folder comes from: the chain of jobs behind it, down to the files no job made."""

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from anatomy.provenance.audit_ledger import withheld_paths
from anatomy.provenance.code import HOME, PACKAGE, closure
from anatomy.provenance.digest import ArtifactError, Seen, sha256_files, short
from anatomy.provenance.manifest import Entry, Manifest, manifest_path, read_manifest, studies_with_manifest
from anatomy.provenance.record import job_key, read_record

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

LONGEST_VALUE = 60  # characters of one parameter that are shown


@dataclass(frozen=True)
class Job:
    """One finished job, from its run record; times in seconds."""

    name: str  # the rule with its wildcards
    rule: str
    record: str
    record_intact: bool  # the record is the one the manifest was built from
    spec: Any
    seeds: Any
    lock: str | None
    code: str
    modules: int | None  # in the import closure of the stage as it is today; None: no stage of that name
    device: str
    threads: int
    wall_s: float
    commit: str | None
    dirty: bool | None
    inputs: Mapping[str, str]  # path -> digest when it was read


@dataclass(frozen=True)
class Chain:
    """A file, or the files right in a folder, and everything they were made from.

    `files` maps what was asked for to its recorded digest. `jobs` maps an artefact to the job that made it; a
    path without one is a raw input. `seen` maps every path of the chain to what is on the disk now. `withheld` are
    files that a restore left where they were made.
    """

    target: str  # as it was asked for: the file, or the folder
    files: Mapping[str, str]
    study: str
    jobs: Mapping[str, Job]
    seen: Mapping[str, Seen]
    withheld: frozenset[str] = frozenset()

    def stays_away(self, path: str) -> bool:
        """Whether a file is not there because a restore left it out."""
        return self.seen[path].sha256 is None and path in self.withheld


def explain(path: str | Path, study: str | None = None, root: Path = Path()) -> Chain:
    """The chain behind a file, or behind a folder of files such as a model, of a study.

    Every study with a manifest is looked at when none is named. Raises ArtifactError when no manifest names the
    file, or a record of the chain cannot be read.
    """
    name = _inside(path, root)
    names = [study] if study else studies_with_manifest(root)
    manifests = [read_manifest(manifest_path(one, root)) for one in names]
    for manifest in manifests:
        entries = {entry["path"]: entry for entry in manifest.entries}
        inside = [path for path in entries if PurePosixPath(path).parent.as_posix() == name]
        if files := [name] if name in entries else inside:
            return _chain(entries, name, files, manifest.study, root)
    raise ArtifactError(_not_found(name, manifests))


def _chain(entries: Mapping[str, Entry], target: str, files: list[str], study: str, root: Path) -> Chain:
    makers = {entry["record"]: entry for entry in entries.values()} | dict(entries)  # a job may read a record
    records: dict[str, Job] = {}
    jobs: dict[str, Job] = {}
    pending, paths = list(files), set(files)
    while pending:
        path = pending.pop()
        if path not in makers:
            continue
        entry = makers[path]
        if entry["record"] not in records:
            records[entry["record"]] = _job(entry, root)
        jobs[path] = records[entry["record"]]
        pending.extend(used for used in jobs[path].inputs if used not in paths)
        paths.update(jobs[path].inputs)
    hashed = sha256_files(root / path for path in sorted(paths))
    asked = {path: entries[path]["sha256"] for path in files}
    seen = {path: hashed[root / path] for path in sorted(paths)}
    return Chain(target, asked, study, jobs, seen, withheld_paths(study, root))


def _job(entry: Entry, root: Path) -> Job:
    record = read_record(root / entry["record"])
    seen = sha256_files([root / entry["record"]])[root / entry["record"]]
    return Job(
        name=job_key(record["rule"], record["wildcards"]),
        rule=record["rule"],
        record=entry["record"],
        record_intact=seen.sha256 == entry["record_sha256"],
        spec=record["spec"],
        seeds=record["seeds"],
        lock=record["lock"],
        code=record["code"],
        modules=_modules(record["rule"], root),
        device=record["device"],
        threads=record["threads"],
        wall_s=record["wall_s"],
        commit=record["git"]["commit"],
        dirty=record["git"]["dirty"],
        inputs={used["path"]: used["sha256"] for used in entry["inputs"]},
    )


def _modules(rule: str, root: Path) -> int | None:
    home = root / "workflow" if (root / "workflow" / PACKAGE).is_dir() else HOME
    try:
        return len(closure(f"{PACKAGE}.stages.{rule}", root=home))
    except ArtifactError:  # a rule without a stage: it renders a notebook, or is no longer there
        return None


def _inside(path: str | Path, root: Path) -> str:
    """The path as a manifest spells it: from the repository root."""
    home, absolute = Path(os.path.normpath(root.absolute())), Path(os.path.normpath(root.absolute() / path))
    return (absolute.relative_to(home) if absolute.is_relative_to(home) else absolute).as_posix()


def _not_found(name: str, manifests: list[Manifest]) -> str:
    looked = ", ".join(manifest.study for manifest in manifests) or "none (no study has run to its end)"
    entries = [entry for manifest in manifests for entry in manifest.entries]
    first = f"{name} is in no manifest. Studies looked at: {looked}."
    if made := [entry for entry in entries if entry["record"] == name]:
        return f"{first} It is a run record; ask for what it records: {made[0]['path']}"
    if readers := {entry["rule"] for entry in entries for used in entry["inputs"] if used["path"] == name}:
        return f"{first} No rule made it: it is a raw input, read by {', '.join(sorted(readers))}."
    if inside := [entry["path"] for entry in entries if entry["path"].startswith(f"{name}/")]:
        return f"{first} It is a folder of folders; ask for a file or folder in it: {', '.join(inside[:5])}"
    near = difflib.get_close_matches(name, [entry["path"] for entry in entries], n=1, cutoff=0.3)
    return f"{first} The nearest name there is {near[0]}" if near else first


def print_chain(chain: Chain, console: "Console") -> None:
    """Print the chain as a tree: each artefact, how it was made, and below it what it was made from.

    Every job is written out once; later mentions of its results say so.
    """
    from rich.text import Text
    from rich.tree import Tree

    shown: dict[str, str] = {}
    whole = chain.target in chain.files
    tree = Tree(_heading(chain, chain.target, chain.files[chain.target]) if whole else Text(chain.target, style="bold"))
    for path, digest in chain.files.items():
        _grow(tree if whole else tree.add(_heading(chain, path, digest)), chain, path, shown)
    console.print(tree)


def _grow(tree: "Tree", chain: Chain, path: str, shown: dict[str, str]) -> None:
    """Write the job behind `path` under its heading; `shown`: record -> the artefact it stands under."""
    from rich.text import Text

    job = chain.jobs.get(path)
    if job is None:
        return
    if job.record in shown:
        where = "" if shown[job.record] == path else f" at {shown[job.record]} (same job)"
        tree.add(Text(f"made by {job.name}: see above{where}", style="dim"))
        return
    shown[job.record] = path
    for line in _facts(job):
        tree.add(Text(line))
    for used, digest in job.inputs.items():
        _grow(tree.add(_heading(chain, used, digest)), chain, used, shown)


def _heading(chain: Chain, path: str, digest: str) -> "Text":
    """A path with its recorded digest, and whether the bytes of today agree."""
    from rich.text import Text

    seen = chain.seen[path]
    if seen.sha256 == digest:
        state, style = "as recorded", "green"
    elif chain.stays_away(path):
        state, style = "withheld: it stayed where it was made", "yellow"
    elif seen.sha256 is None:
        state, style = f"NOT THERE: {seen.problem}", "bold red"
    else:
        state, style = f"CHANGED, now {short(seen.sha256)}", "bold red"
    origin = "" if path in chain.jobs else ", raw input (no rule made it)"
    return Text.assemble((path, "bold"), f"  {short(digest)}  ", (state, style), (origin, "dim"))


def _facts(job: Job) -> list[str]:
    record = "" if job.record_intact else " (NOT the record of the manifest)"
    modules = "" if job.modules is None else f" ({job.modules} modules)"
    dirty = {True: " with uncommitted changes", False: "", None: ""}[job.dirty]
    return [
        f"made by {job.name}, record {job.record}{record}",
        f"parameters: {_compact(job.spec)}",
        f"seeds: {_compact(job.seeds)}",
        f"code {short(job.code)}{modules}, commit {short(job.commit)}{dirty}",
        f"environment lock {short(job.lock)}, device {job.device}, threads {job.threads}, {job.wall_s:.1f} s",
    ]


def _compact(value: Any) -> str:
    """`a.b=1, c=[1, 2]`: nested keys joined by dots, long values cut."""
    pairs = [
        (key, text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…") for key, text in flatten(value)
    ]
    return ", ".join(f"{key}={text}" if key else text for key, text in pairs) or "none"


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Parameters as (key, value) pairs: nested keys joined by dots, values as JSON."""
    if isinstance(value, dict) and (value or not prefix):
        inner = [(f"{prefix}.{key}" if prefix else str(key), item) for key, item in value.items()]
        return [pair for key, item in inner for pair in flatten(item, key)]
    return [(prefix, json.dumps(value, ensure_ascii=False))]
