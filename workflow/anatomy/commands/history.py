"""What finished jobs took, for `anatomy cost`: run records, and where there are none docs/timings.json."""

from dataclasses import dataclass
from pathlib import Path

from anatomy.commands.effort import Dumped, as_it_was, dumped_study, volume, work
from anatomy.commands.effort_instruction import INSTRUCTION_RULES
from anatomy.commands.effort_language import TEXT_RULES
from anatomy.provenance.digest import ArtifactError
from anatomy.provenance.record import RECORD_SUFFIX, read_record
from anatomy.spec.errors import SpecError

REFERENCE = "embedded"  # the study that docs/timings.json was taken from


@dataclass(frozen=True)
class Past:
    """A finished job, or the typical one of a rule."""

    rule: str
    wildcards: dict[str, str]
    seconds: float
    bytes: float | None
    work: float
    volume: float


@dataclass(frozen=True)
class History:
    """Finished jobs of one origin."""

    origin: str
    jobs: list[Past]

    def seconds(self, rule: str, wildcards: dict[str, str], todo: float) -> float | None:
        """Expected seconds of a job: the rate of its own earlier run, else of all runs of the rule."""
        jobs = [job for job in self._alike(rule, wildcards) if job.work > 0]
        return todo * sum(job.seconds for job in jobs) / sum(job.work for job in jobs) if jobs else None

    def bytes(self, rule: str, wildcards: dict[str, str], todo: float) -> float | None:
        """Expected bytes of its outputs."""
        jobs = [job for job in self._alike(rule, wildcards) if job.bytes is not None and job.volume > 0]
        return todo * sum(job.bytes or 0 for job in jobs) / sum(job.volume for job in jobs) if jobs else None

    def _alike(self, rule: str, wildcards: dict[str, str]) -> list[Past]:
        """The job itself; else those of its rule that, like it, have a subject or none."""
        jobs = [job for job in self.jobs if job.rule == rule and bool(job.wildcards) == bool(wildcards)]
        return [job for job in jobs if job.wildcards == wildcards and job.work > 0] or jobs


def histories(study: str) -> list[History]:
    """What is known of finished jobs, the nearest origin first."""
    from snakemake_logger_plugin_anatomy import DEFAULT_TIMINGS
    from snakemake_logger_plugin_anatomy.estimate import Timings

    found = [History("this study", past_jobs(study))]
    if study != REFERENCE:
        found.append(History(REFERENCE, past_jobs(REFERENCE)))
    if DEFAULT_TIMINGS.exists():
        try:
            timings = Timings.read(DEFAULT_TIMINGS)
        except ValueError as error:
            raise SpecError(f"{DEFAULT_TIMINGS}: {error}") from None
        found.append(History(str(DEFAULT_TIMINGS), typical_jobs(timings.seconds, dumped_study(REFERENCE))))
    return found


def past_jobs(study: str) -> list[Past]:
    """The jobs of which results/{study} has a run record, with the sizes the study had then."""
    records = []
    for path in sorted(Path("results", study).rglob(f"*{RECORD_SUFFIX}")):
        try:
            records.append(read_record(path))
        except ArtifactError:
            continue  # the audit says so
    if not records:
        return []
    spec: Dumped = dumped_study(study)
    for record in records:
        spec = as_it_was(spec, record["spec"]) if isinstance(record["spec"], dict) else spec
    jobs = []
    for record in records:
        rule, wildcards = record["rule"], record["wildcards"]
        own = as_it_was(spec, record["spec"]) if isinstance(record["spec"], dict) else spec
        try:
            todo, written = work(rule, wildcards, own), volume(rule, wildcards, own)
        except (KeyError, TypeError):
            continue  # of a study file that had other keys
        size = sum(file["bytes"] for files in record["outputs"].values() for file in files)
        jobs.append(Past(rule, wildcards, float(record["wall_s"]), float(size), todo, written))
    return jobs


def typical_jobs(seconds: dict[str, float], spec: Dumped) -> list[Past]:
    """Typical seconds by rule as jobs: each stands for the mean job of its rule in the study `spec`."""
    jobs = []
    for rule, typical in seconds.items():
        if rule in TEXT_RULES:
            kind, names = "corpus", spec["language"]["corpora"]
        elif rule in INSTRUCTION_RULES:
            kind, names = "injection", spec["instruction"]["injections"]
        else:
            kind, names = "subject", spec["toy"]["language"]["subjects"]
        each = [work(rule, {kind: name}, spec) for name in names]
        jobs.append(Past(rule, {}, typical, None, work(rule, {}, spec), 1.0))  # for the rules without one of these
        jobs.append(Past(rule, {kind: "*"}, typical, None, sum(each) / len(each), 1.0))
    return jobs
