"""`anatomy run --tier`: how much of an archived study is fetched and how much is computed again.

`audit` computes nothing, `render` makes tables, figures, claims and report again from the archived measurements,
`measure` makes the measurements again too, from the archived models. What came out is compared with the archive, byte
for byte.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anatomy.commands.guard import sole_run
from anatomy.commands.run import run_study
from anatomy.commands.trust import audit_study
from anatomy.provenance.audit_report import SOUND, AuditReport, Finding, print_report
from anatomy.provenance.ledger import PHASES, phase_of
from anatomy.provenance.manifest import Manifest, manifest_path, read_manifest
from anatomy.provenance.restore import restore
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

    0: all is as archived; 1: the audit objects, a job failed, or bytes differ.

    Raises:
        ArtifactError: there is nothing to restore, or results that it would write over.
        Busy: another run is in progress in this folder.
    """
    with sole_run():
        archived = restore(study)
    report = audit_study(study)
    print_report(report, console)
    rules = {entry["rule"] for entry in archived.entries if phase_of(entry["path"]) in AGAIN[tier]}
    if tier == "audit" or _objections(report, rules):
        if tier != "audit":
            console.print(
                f"nothing was made again: {tier} would rest on files that the audit does not find sound. Check out the "
                "commit of the archive, or compute everything: TIER=full",
                style="bold red",
            )
        return 0 if report.ok else 1
    remade = set(rules)
    for phase, lacking in _lacking(report).items() if tier == "measure" else ():
        makers = {finding.rule for finding in lacking}
        console.print(
            f"{len(lacking)} files of the phase {phase} are not in the archive (poisoned data and backdoored weights "
            f"stay at home); they are made again first: {', '.join(sorted(makers))}",
            soft_wrap=True,
        )
        targets = [finding.path for finding in lacking]
        if code := run_study(study, targets, profile=profile, cores=cores, only=makers):
            return code
        remade |= makers
    if code := run_study(study, profile=profile, cores=cores, only={*rules, *LAST}, again=rules):
        return code
    comparison = compare(archived, read_manifest(manifest_path(study)), remade)
    print_comparison(tier, comparison, console)
    return 1 if comparison.differing else 0


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


def _objections(report: AuditReport, rules: set[str]) -> list[Finding]:
    """What the audit found and a tier that makes the outputs of `rules` again does not mend."""
    bad = [finding for finding in report.findings if finding.verdict not in SOUND]
    return [f for f in bad if not (f.verdict in OUTDATED and f.rule and set(f.rule.split(", ")) <= rules)]


def _lacking(report: AuditReport) -> dict[str, list[Finding]]:
    """Phase -> findings of what was not fetched, in the order of the phases."""
    away = [finding for finding in report.findings if finding.verdict == "withheld"]
    by_phase = {phase: [finding for finding in away if phase_of(finding.path) == phase] for phase in PHASES}
    return {phase: findings for phase, findings in by_phase.items() if findings}
