"""`anatomy run --tier`: how much of an archived study is fetched and how much is computed again.

`audit` computes nothing, `render` makes tables, figures, claims and report again from the archived measurements,
`measure` makes the measurements again too, from the archived models. What came out is compared with the archive, byte
for byte. What the comparison needs is kept on the disk, so that a tier that was killed goes on when it is asked for
again.
"""

import json
import shutil
from collections.abc import Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anatomy.commands.guard import sole_run
from anatomy.commands.run import run_study
from anatomy.commands.trust import audit_study
from anatomy.provenance.archive import attestations_path
from anatomy.provenance.audit_ledger import locked_digests
from anatomy.provenance.audit_report import SOUND, AuditReport, Finding, print_report
from anatomy.provenance.digest import sha256_files, write_json_atomic
from anatomy.provenance.ledger import PHASES, phase_of
from anatomy.provenance.manifest import Manifest, manifest_path, read_manifest
from anatomy.provenance.restore import put_back_manifest, restore
from anatomy.provenance.statement import FOLDER
from anatomy.spec.errors import SpecError

if TYPE_CHECKING:
    from rich.console import Console

# Tier -> phases that are computed again; `full` is a run without a restore.
AGAIN: dict[str, tuple[str, ...]] = {"audit": (), "render": ("render",), "measure": ("localize", "control", "render")}
TIERS = (*AGAIN, "full")
# Rules that make no run record and stand in no manifest: the last ones of the graph.
LAST = ("write_manifest", "write_crate", "all")
# The page tells the times of all jobs, so that it is another one whenever any job ran.
TIMED = "write_report"
# Said of a file whose making differs from today's, and of no file that was touched: no matter where it is made again.
OUTDATED = {
    "made by other code",
    "made with other parameters",
    "made with another environment",
    "changed input",
}


@dataclass(frozen=True)
class Comparison:
    """Files made again, beside the archive's: how many, and which have other bytes or are gone."""

    made: int
    differing: tuple[str, ...]


@dataclass(frozen=True)
class Begun:
    """A tier whose making has begun and whose comparison is still to come.

    Attributes:
        tier: its name.
        archive: the digest by which dvc.lock names the archived manifest.
        lacking: phase -> file -> rule of what the archive does not hold and is made again first.
    """

    tier: str
    archive: str
    lacking: dict[str, dict[str, str]]

    @property
    def makers(self) -> set[str]:
        """The rules that make what the archive does not hold."""
        return {rule for files in self.lacking.values() for rule in files.values()}


def check_tier(tier: str, *, targets: bool, dry_run: bool, cache: bool) -> None:
    """Refuse a tier that is none, or words beside it that it would not heed.

    Raises:
        SpecError: says which.
    """
    if tier not in TIERS:
        raise SpecError(f"--tier {tier}: expected one of {', '.join(TIERS)}")
    if tier != "full" and (targets or dry_run):
        raise SpecError(f"--tier {tier} restores a whole study before it runs; give it no targets and no --dry-run")
    if tier != "full" and cache:
        raise SpecError(f"--tier {tier} makes results again to compare them; give it no --cache to take them from")


def run_tier(study: str, tier: str, console: "Console", *, profile: str, cores: str) -> int:
    """Restore a study, audit it, make again what the tier says, and compare; the exit code.

    0: all is as archived; 1: the audit objects, a job failed, or bytes differ. A tier that did not come to its
    comparison goes on where it was: nothing is fetched, and what it made again already is not made once more.

    Raises:
        ArtifactError: there is nothing to restore, or results that it would write over.
        Busy: another run is in progress in this folder.
    """
    with sole_run():
        begun = _read_begun(study, tier)
        archived = put_back_manifest(study) if begun else restore(study)
    report = audit_study(study)
    rules = {entry["rule"] for entry in archived.entries if phase_of(entry["path"]) in AGAIN[tier]}
    objections = _objections(report, rules, begun.makers | rules if begun else set())
    if begun and not objections:
        console.print(f"{tier}: going on from where it was cut short")
    else:
        print_report(report, console)
    if tier == "audit" or objections:
        if tier != "audit":
            console.print(
                f"nothing was made again: {tier} would rest on files that the audit does not find sound. Check out the "
                "commit of the archive, or compute everything: TIER=full",
                style="bold red",
            )
        return 0 if report.ok else 1
    if begun is None:
        begun = Begun(
            tier, locked_digests()[manifest_path(study).as_posix()], _lacking(report) if tier == "measure" else {}
        )
        write_json_atomic(begun_path(study), asdict(begun))
        _take_out_statements(study, console)
    for phase, files in begun.lacking.items():
        makers = set(files.values())
        console.print(
            f"{len(files)} files of the phase {phase} are not in the archive (poisoned data and backdoored weights "
            f"stay at home); they are made again first: {', '.join(sorted(makers))}",
            soft_wrap=True,
        )
        if code := run_study(study, list(files), profile=profile, cores=cores, only=makers):
            return code
    again = _as_archived(archived, rules)
    if code := run_study(study, profile=profile, cores=cores, only={*rules, *LAST}, again=again):
        return code
    comparison = compare(archived, read_manifest(manifest_path(study)), rules | begun.makers)
    print_comparison(tier, comparison, console)
    begun_path(study).unlink()
    return 1 if comparison.differing else 0


def begun_path(study: str) -> Path:
    """Where it is written that a tier has begun; among the logs, as no result rests on it."""
    return Path("results", study, "logs", "tier.json")


def _read_begun(study: str, tier: str) -> Begun | None:
    """The tier of this name that has begun from the archive that dvc.lock names, if one did."""
    try:
        begun = Begun(**json.loads(begun_path(study).read_text(encoding="utf-8")))
        archive = locked_digests()[manifest_path(study).as_posix()]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return begun if (begun.tier, begun.archive) == (tier, archive) else None


def _as_archived(archived: Manifest, rules: Set[str]) -> set[str]:
    """Of some rules, those with a job that was not made again: its record is still the archive's, or is gone."""
    records = {entry["record"]: entry for entry in archived.entries if entry["rule"] in rules}
    seen = sha256_files(Path(record) for record in records)
    return {e["rule"] for path, e in records.items() if seen[Path(path)].sha256 in (None, e["record_sha256"])}


def _take_out_statements(study: str, console: "Console") -> None:
    """Remove the restored attestations: they are about the archived run, and the audit has judged them."""
    folder = Path("results", study, FOLDER)
    if folder.exists():
        shutil.rmtree(folder)
        console.print(f"{folder}: taken out, as they are about the archived run; {attestations_path(study)} has them")


def compare(archived: Manifest, now: Manifest, rules: set[str]) -> Comparison:
    """The outputs of some rules in two manifests of a study; the page with the times of the jobs is left out."""
    digests = {entry["path"]: entry["sha256"] for entry in now.entries}
    made = {e["path"]: e["sha256"] for e in archived.entries if e["rule"] in rules and e["rule"] != TIMED}
    return Comparison(len(made), tuple(path for path, digest in made.items() if digests.get(path) != digest))


def print_comparison(tier: str, comparison: Comparison, console: "Console") -> None:
    """How many files came out as archived, and the names of the others."""
    from rich.text import Text

    differing = comparison.differing
    equal = f"{comparison.made - len(differing)} of {comparison.made} files made again equal the archived ones"
    console.print(Text(f"{tier}: {equal}, byte for byte", style="bold red" if differing else "bold green"))
    for path in differing:
        console.print(Text(f"  differs: {path}"), soft_wrap=True)
    console.print("not compared: the report's page and the run records, which tell times", style="dim")


def _objections(report: AuditReport, rules: Set[str], unfinished: Set[str]) -> list[Finding]:
    """What the audit found and a tier that makes the outputs of `rules` again does not mend.

    `unfinished`: rules that were at it when the tier was cut short, so that their files may be anything.
    """
    bad = [finding for finding in report.findings if finding.verdict not in SOUND]
    mended = {finding: rules if finding.verdict in OUTDATED else unfinished for finding in bad}
    return [finding for finding in bad if not (finding.rule and set(finding.rule.split(", ")) <= mended[finding])]


def _lacking(report: AuditReport) -> dict[str, dict[str, str]]:
    """Phase -> file -> rule of what was not fetched, in the order of the phases."""
    away = [finding for finding in report.findings if finding.verdict == "withheld"]
    by_phase = {phase: {f.path: f.rule for f in away if phase_of(f.path) == phase} for phase in PHASES}
    return {phase: files for phase, files in by_phase.items() if files}
