"""Made-up runs, jobs and log records for the tests of the logger plugin."""

import logging

from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_anatomy.progress import Job, Progress


def a_run(**stats: int) -> Progress:
    """A run of the given jobs by rule that began at second 0 on two cores."""
    progress = Progress(begun=0.0, cores=2)
    progress.plan({**stats, "total": sum(stats.values())})
    return progress


def start(progress: Progress, job_id: int, rule: str, now: float, **facts) -> Job:
    job = Job(id=job_id, rule=rule, message=f"Do {rule}", **facts)
    progress.start(job, now)
    return job


def record(now: float, event: LogEvent | None = None, msg: str = "", level=logging.INFO, **facts):
    made = logging.LogRecord("snakemake", level, "workflow.py", 1, msg, (), None)
    made.created = now
    vars(made).update(facts, event=event)
    return made
