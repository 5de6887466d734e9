"""What an audit found, and how it is shown to people and to programs."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from rich.console import Console

Verdict = Literal[
    "intact",
    "changed",  # the bytes are not those of the manifest, or of what is built from it
    "bad signature",  # of an attestation: it is not one of these bytes
    "missing",  # gone, or no file that can be read
    "withheld",  # not fetched by a restore: poisoned data and models that carry a backdoor stay where they were made
    "unrecorded",  # under results/{study}, and no record names it
    "forged record",  # its record is gone, changed, or disagrees with the manifest
    "changed input",  # a file the study read but did not make; or an artefact made from other bytes
    "missing input",
    "made by other code",  # sound, but today's code, parameters or lock differ from those that made it
    "made with other parameters",
    "made with another environment",
]


SOUND: set[Verdict] = {"intact", "withheld"}


@dataclass(frozen=True)
class Finding:
    """The verdict on one file; `rule` made it (for an input: read it) and is empty when no rule did."""

    path: str
    verdict: Verdict
    detail: str
    rule: str


@dataclass(frozen=True)
class AuditReport:
    """One finding per artefact; then one per input, crate or attestation not as it was, and per unrecorded file."""

    study: str
    findings: tuple[Finding, ...]
    artefacts: int  # lines of the manifest
    bytes: int  # hashed: artefacts, records and raw inputs
    seconds: float
    manifest_sha256: str
    unchecked: tuple[str, ...]  # what could not be compared, in words
    notes: tuple[str, ...] = ()  # on the crate, the attestations and dvc.lock, in words

    @property
    def counts(self) -> dict[str, int]:
        """Verdict -> number of files, gravest first, `intact` before all."""
        number = Counter(finding.verdict for finding in self.findings)
        return {verdict: number[verdict] for verdict in get_args(Verdict) if number[verdict]}

    @property
    def ok(self) -> bool:
        """Whether everything that is here is intact, and nothing lacks but what a restore leaves out."""
        return set(self.counts) <= SOUND


def print_report(report: AuditReport, console: "Console") -> None:
    """One line with the verdict, then a table of everything that is not intact."""
    from rich.table import Table
    from rich.text import Text

    cost = f"{_size(report.bytes)}, {report.seconds:.1f} s"
    bad = [finding for finding in report.findings if finding.verdict not in SOUND]
    withheld = report.counts.get("withheld", 0)
    if report.ok:
        number = f"{report.artefacts - withheld} of {report.artefacts}" if withheld else f"{report.artefacts}"
        rest = f"; {withheld} were not fetched (poisoned data, backdoored models)" if withheld else ""
        console.print(Text(f"intact: {number} artefacts, {cost}{rest}", style="bold green"), soft_wrap=True)
    else:
        counts = {verdict: n for verdict, n in report.counts.items() if verdict not in SOUND}
        worst = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
        intact = f"{report.counts.get('intact', 0)} of {report.artefacts} artefacts intact"
        console.print(Text(f"NOT intact: {worst} ({intact}, {cost})", style="bold red"), soft_wrap=True)
        table = Table("verdict", "file", "rule", "detail")
        for finding in bad:  # Text, not str: a bracket in a path is no markup
            words = (finding.verdict, finding.path, finding.rule, finding.detail)
            table.add_row(*(Text(word, overflow="fold") for word in words))
        console.print(table)
    for note in report.notes:
        console.print(Text(note, style="dim"), soft_wrap=True)
    for note in report.unchecked:
        console.print(Text(f"not compared: {note}", style="dim"), soft_wrap=True)


def report_json(report: AuditReport) -> str:
    """The whole report as JSON text, for programs."""
    value = {"ok": report.ok, "counts": report.counts, **asdict(report)}
    return json.dumps(value, indent=2)


def _size(n: int) -> str:
    value, unit = float(n), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}"
