"""`make bench`, the audit: beside nothing but SHA-256 of the same bytes, at a study's own size and at a gigabyte.

What the audit does besides hashing (reading records, digesting today's code, building the crate again) grows with the
number of jobs and not with their bytes, so that its share depends on the size.
"""

import contextlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from anatomy.commands.trust import LOCK, audit_study
from anatomy.provenance.code import code_digest
from anatomy.provenance.crate import CITATION, build_crate, crate_path, read_citation, read_records
from anatomy.provenance.digest import ArtifactError, sha256_file, sha256_files
from anatomy.provenance.manifest import build_manifest, manifest_path, read_manifest, recorded_digests, write_manifest
from anatomy.provenance.record import write_record
from anatomy.spec.read import load_study

JOBS, BYTES = 32, 1 << 30  # of the made-up study: one file per job
NEEDED = 3 * BYTES  # free on the disk, so that nothing else runs short of it
# What an audit reads besides results/, from the folder it runs in.
BESIDE = ("config", "data", "notebooks", "dvc.lock", str(LOCK), CITATION)


def audit_rows(study: str, repetitions: int) -> list[tuple[str, ...]]:
    """The audit of the study's results, and of a made-up study whose results are a gigabyte of random bytes."""
    try:
        rows = [_row(study, repetitions, f"audit of {study}")]
    except ArtifactError:
        rows = [("audit", "-", "-", "-", f"no results of the {study} study here")]
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < NEEDED:
            return [*rows, ("audit of 1 GB", "-", "-", "-", f"left out: under {NEEDED / 1e9:.0f} GB are free there")]
        with contextlib.chdir(folder):
            for name in BESIDE:
                if (here / name).exists():
                    Path(name).symlink_to(here / name)
            make_study(study, JOBS, BYTES)
            rows.append(_row(study, repetitions, "audit of a made-up study"))
    return rows


def make_study(study: str, jobs: int, size: int) -> None:
    """Write results/<study> in the working directory: jobs with a file of random bytes each, manifest and crate.

    `size` is that of all files together.
    """
    home = Path("results", study, "toy")
    code, lock = code_digest("anatomy.stages.train_clean"), sha256_file(LOCK)
    seeds = load_study(study).model_dump(mode="json")["seeds"]
    records = [home / f"part{job}" / "clean" / "run.json" for job in range(jobs)]
    for job, record in enumerate(records):
        file = record.with_name("model.safetensors")
        file.parent.mkdir(parents=True)
        file.write_bytes(os.urandom(size // jobs))
        write_record(
            record,
            rule="train_clean",
            study=study,
            wildcards={"subject": f"part{job}"},
            spec={"seeds": seeds},
            seeds=seeds,
            code=code,
            lock=lock,
            inputs={"before": [records[job - 1].with_name("model.safetensors")] if job else []},
            outputs={"models": [file]},
            device="cpu",
            threads=1,
            started=datetime.now(UTC),
            wall_s=1.0,
            cpu_s=1.0,
            peak_rss_mb=1.0,
        )
    write_manifest(manifest_path(study), build_manifest(records), study=study, lock=lock)
    manifest = read_manifest(manifest_path(study))
    crate_path(study).write_text(build_crate(manifest, read_records(manifest), read_citation(Path(CITATION))))


def _row(study: str, repetitions: int, what: str) -> tuple[str, ...]:
    """One audit against hashing alone, both from a warm cache and with one thread per core."""
    report = audit_study(study)  # warms the cache, and loads what is loaded once in a process
    manifest = read_manifest(manifest_path(study))
    made = recorded_digests(manifest.entries)
    inputs = {used["path"] for entry in manifest.entries for used in entry["inputs"]}
    files = [Path(name) for name in [*made, *sorted(inputs - set(made))]]
    plain, ours = [], []
    for _ in range(repetitions):  # interleaved, so that a noisy neighbour hits both
        plain.append(_seconds(lambda: sha256_files(files)))
        ours.append(_seconds(lambda: audit_study(study)))
    slow, fast = statistics.median(plain), statistics.median(ours)
    size = sum(file.stat().st_size for file in files if file.exists()) / 1e6
    return (
        f"{what}: {len(files)} files, {size:.0f} MB",
        f"{slow * 1e3:.0f} ms (SHA-256 alone, {os.cpu_count()} threads)",
        f"{fast * 1e3:.0f} ms",
        f"{slow / fast:.0%}",
        f"of the speed of hashing; {'intact' if report.ok else 'NOT intact'}",
    )


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
