"""`anatomy cost`: what a run would do, why, and about how much of a machine it needs. Nothing is run.

Snakemake's dry run says what and why, and what each rule asks for. Times and sizes come from jobs that ran
(`commands.history`), scaled by what there is to do (`commands.effort`). A rule of which nothing is known is counted
with its time limit.
"""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anatomy.commands.check import check_study
from anatomy.commands.cluster import executor_of, profile_path
from anatomy.commands.effort import Dumped, dumped_study, training_flops, volume, work
from anatomy.commands.history import History, histories
from anatomy.commands.run import PROFILE, environment, snakemake_command
from anatomy.spec.errors import SpecError
from anatomy.spec.layout import check_layout

if TYPE_CHECKING:
    from rich.console import Console

    from snakemake_logger_plugin_anatomy.dryrun import PlannedJob

LIMIT = "its time limit"
NEAR_LIMIT = 0.8  # share of a time limit from which a job is named: an estimate is no promise


@dataclass(frozen=True)
class Cost:
    """What one job is expected to need."""

    rule: str
    job: str
    why: str
    seconds: float
    threads: int
    gpus: int
    mem_mb: int  # as the rule asks
    limit_s: int
    bytes: float | None  # None: nothing is known
    flops: float  # of training
    basis: str  # where the seconds come from


def study_cost(study: str, profile: str = PROFILE) -> list[Cost]:
    """The jobs a run would start now, and what each needs.

    Raises:
        SpecError: the study cannot be run.
    """
    folder = profile_path(profile)
    check_study(study)
    check_layout(study)
    return job_costs(planned_jobs(study, folder), dumped_study(study), histories(study))


def planned_jobs(study: str, profile: str) -> list["PlannedJob"]:
    """What Snakemake's dry run lists.

    Raises:
        SpecError: it failed.
    """
    from snakemake_logger_plugin_anatomy.dryrun import read_plan

    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.json"
        command = snakemake_command(study, [], profile=profile, executor=executor_of(profile), cores=None, dry_run=True)
        command += ["--logger-anatomy-plan", str(plan)]
        done = subprocess.run(
            command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode or not plan.exists():
            raise SpecError(f"the dry run of {study} failed:\n{(done.stderr or done.stdout).strip()}")
        return read_plan(plan)


def job_costs(jobs: Sequence["PlannedJob"], spec: Dumped, known: Sequence[History]) -> list[Cost]:
    """What each planned job is expected to need, from the nearest origin that knows its rule."""
    from snakemake_logger_plugin_anatomy.dryrun import short_reason

    costs = []
    for job in jobs:
        todo, written = work(job.rule, job.wildcards, spec), volume(job.rule, job.wildcards, spec)
        limit = int(job.resources.get("runtime", 0)) * 60
        seconds, basis = float(limit), LIMIT
        for history in known:
            expected = history.seconds(job.rule, job.wildcards, todo)
            if expected is not None:
                seconds, basis = expected, history.origin
                break
        sizes = [history.bytes(job.rule, job.wildcards, written) for history in known]
        # Models are as large as their parameters.
        own = [written] if job.rule in ("train_clean", "plant_backdoor") else []
        subject = job.wildcards.get("subject")
        costs.append(
            Cost(
                rule=job.rule,
                job=job.message,
                why=short_reason(job.reason),
                seconds=seconds,
                threads=job.threads,
                gpus=int(job.resources.get("gpu", 0)),
                mem_mb=int(job.resources.get("mem_mb", 0)),
                limit_s=limit,
                bytes=next((size for size in [*sizes, *own] if size is not None), None),
                flops=training_flops(job.rule, spec, subject) if subject else 0.0,
                basis=basis,
            )
        )
    return costs


def totals(costs: Sequence[Cost]) -> dict[str, Any]:
    """Sums over jobs; memory and time limit are those of the largest job, as jobs come one after another."""
    return {
        "jobs": len(costs),
        "cpu_hours": sum(cost.seconds * cost.threads for cost in costs) / 3600,
        "gpu_hours": sum(cost.seconds * cost.gpus for cost in costs) / 3600,
        "mem_mb": max((cost.mem_mb for cost in costs), default=0),
        "limit_s": max((cost.limit_s for cost in costs), default=0),
        "disk_bytes": sum(cost.bytes or 0 for cost in costs),
        "disk_unknown_jobs": sum(cost.bytes is None for cost in costs),
        "training_flops": sum(cost.flops for cost in costs),
    }


def cost_json(study: str, costs: Sequence[Cost]) -> str:
    """Every job, the sum per rule, and the total."""
    rules = {rule: totals(of_rule) for rule, of_rule in by_rule(costs).items()}
    report = {"study": study, "total": totals(costs), "rules": rules, "jobs": [asdict(cost) for cost in costs]}
    return json.dumps(report, indent=1)


def by_rule(costs: Sequence[Cost]) -> dict[str, list[Cost]]:
    """The jobs of each rule, in the order of the dry run."""
    rules: dict[str, list[Cost]] = {}
    for cost in costs:
        rules.setdefault(cost.rule, []).append(cost)
    return rules


def near_limit(costs: Sequence[Cost]) -> list[Cost]:
    """Jobs that may not end in the time their rule asks for."""
    return [cost for cost in costs if cost.basis != LIMIT and 0 < cost.limit_s * NEAR_LIMIT < cost.seconds]


def print_cost(study: str, costs: Sequence[Cost], console: "Console") -> None:
    """A row per rule, the total, and what to know before it is submitted."""
    from rich.table import Table
    from rich.text import Text

    if not costs:
        console.print(Text(f"Study {study} is up to date: nothing would run."))
        return
    table = Table(title=f"Study {study}: what a run would need", title_justify="left")
    for name in ("rule", "why"):
        table.add_column(name)
    for name in ("jobs", "CPU h", "GPU h", "MB per job", "limit h", "disk MB"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("time judged by")
    rows = [(rule, _whys(of_rule), of_rule) for rule, of_rule in by_rule(costs).items()]
    for rule, why, of_rule in rows:
        table.add_row(Text(rule), Text(why), *_numbers(of_rule), Text(", ".join(sorted({c.basis for c in of_rule}))))
    table.add_section()
    table.add_row(Text("total"), "", *_numbers(costs), "")
    console.print(table)
    if flops := totals(costs)["training_flops"]:
        seconds = sum(cost.seconds for cost in costs if cost.flops)
        console.print(Text(f"Training: {flops:.2g} floating-point operations at {flops / seconds / 1e9:.2g} GFLOP/s."))
    for cost in near_limit(costs):
        hours, limit = cost.seconds / 3600, cost.limit_s / 3600
        console.print(
            Text(f"{cost.rule} ({cost.job}): about {hours:.1f} h, and it asks for {limit:.1f} h: raise its runtime.")
        )


def _whys(costs: Sequence[Cost]) -> str:
    """Reasons without the files they name."""
    return "; ".join(dict.fromkeys(cost.why.partition(":")[0].partition(" (")[0] for cost in costs))


def _numbers(costs: Sequence[Cost]) -> list[str]:
    sums = totals(costs)
    disk = "?" if sums["disk_unknown_jobs"] == len(costs) else f"{sums['disk_bytes'] / 1e6:.1f}"
    some = "> " if 0 < sums["disk_unknown_jobs"] < len(costs) else ""
    return [
        str(sums["jobs"]),
        _hours(sums["cpu_hours"]),
        _hours(sums["gpu_hours"]),
        str(sums["mem_mb"]),
        _hours(sums["limit_s"] / 3600),
        some + disk,
    ]


def _hours(value: float) -> str:
    return f"{value:.2f}" if value >= 0.005 or value == 0 else "< 0.01"
