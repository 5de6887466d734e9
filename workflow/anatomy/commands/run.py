"""`anatomy run`: check the study, take the folder's lock, and hand over to Snakemake."""

import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from anatomy import start
from anatomy.commands.check import check_study
from anatomy.commands.cluster import executor_of, job_prefix, profile_path, require_slurm, stop_jobs_left_behind
from anatomy.commands.guard import drive, sole_run
from anatomy.provenance.cache import VARIABLE
from anatomy.provenance.code import HOME
from anatomy.provenance.digest import remove_unfinished
from anatomy.spec.errors import SpecError
from anatomy.spec.gpus import SHARED, usable_gpus
from anatomy.spec.layout import check_layout, claim_layout
from anatomy.spec.offline import OFFLINE

PROFILE = "default"

# Always: what keeps bytes equal between runs, and libraries quiet.
ALWAYS = {
    "PYTHONHASHSEED": "0",
    "MPLBACKEND": "Agg",
    "TOKENIZERS_PARALLELISM": "false",
    "DVC_NO_ANALYTICS": "1",
    # glibc else returns large blocks to the kernel as soon as they are free, and a training step gets them back page
    # by page: up to a third of its time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    # Jobs run side by side; and NumPy's threads and torch's in one job wait for each other in turns.
    "OPENBLAS_NUM_THREADS": "1",
}
# Never: by these a shell makes a library round differently on the same machine. Run records name the kernels used.
NEVER = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY"}


def run_study(
    study: str,
    targets: Sequence[str] = (),
    *,
    profile: str = PROFILE,
    cores: str = "all",
    cache: Path | None = None,
    dry_run: bool = False,
    only: Iterable[str] = (),
    again: Iterable[str] = (),
) -> int:
    """Make the results of a study that are missing or out of date; Snakemake's exit code.

    `cache` is a folder from which finished long jobs are taken, and where they are put (`provenance.cache`).
    `only`: the rules that may run; the files of the others are taken as they are. `again`: rules that run in any case,
    and really run: no cache is asked.

    Raises:
        SpecError: the study cannot be run, or its results have another layout, or the profile or the cache cannot be
            used. Nothing was touched.
        Busy: another run is in progress in this folder. Nothing was touched.
    """
    folder = profile_path(profile)
    executor = executor_of(folder)
    check_study(study)
    check_layout(study)
    gpus = usable_gpus() if executor == "local" and not dry_run else []
    command = snakemake_command(
        study,
        targets,
        profile=folder,
        executor=executor,
        cores=usable_cores(cores, executor),
        dry_run=dry_run,
        gpus=len(gpus),
    )
    for option, rules in (("--allowed-rules", sorted(only)), ("--forcerun", sorted(again))):
        command += [option, *rules] if rules else []
    variables = environment(gpus)
    if dry_run:  # changes nothing, so it may be asked for while a run is in progress
        return drive(command, variables)
    if again:
        variables.pop(VARIABLE, None)
    elif cache or variables.get(VARIABLE):
        variables[VARIABLE] = str(usable_cache(cache or Path(variables[VARIABLE])))
    if executor == "slurm":
        require_slurm()
    with sole_run() as lock:
        if executor == "slurm" and (stopped := stop_jobs_left_behind(job_prefix())):
            print(f"stopped Slurm jobs that an earlier run left in the queue: {', '.join(stopped)}", file=sys.stderr)
        claim_layout(study)
        _tidy(study)
        if executor != "local" or sys.platform != "linux":  # elsewhere libraries may not survive a fork
            code = drive(command, variables, lock)
        else:
            with tempfile.TemporaryDirectory(prefix="anatomy-") as sockets:
                code = drive(command, {**variables, start.VARIABLE: sockets}, lock)
        if code == 0:  # else jobs may still be about to end on a cluster
            _tidy(study)
    return code


def _tidy(study: str) -> None:
    """Remove what killed jobs left half-written, which may be whole models; only while no job runs."""
    count, written = remove_unfinished(Path("results", study))
    if count:
        print(f"half-written files of killed jobs removed: {count} ({written / 1e6:.1f} MB)", file=sys.stderr)


def snakemake_command(
    study: str,
    targets: Sequence[str],
    *,
    profile: str,
    executor: str,
    cores: int | None,
    dry_run: bool,
    gpus: int = 0,
) -> list[str]:
    """The command line: targets first, as several options take any number of words."""
    return [
        *(sys.executable, "-m", "snakemake", *targets),
        *("--workflow-profile", profile),
        # Quoted, as Snakemake reads the value as YAML: a study may be named 2026 or off.
        *("--config", f'study="{study}"'),
        *(["--cores", str(cores)] if cores else []),
        # Else Snakemake starts any number of jobs that ask for one. Without a GPU there is no limit: they use the CPU.
        *(["--resources", f"gpu={gpus}"] if gpus else []),
        *("--logger", "anatomy"),
        # Our own lock does this: the kernel takes it back after kill -9, where Snakemake's stays.
        "--nolock",
        # The name by which the next run finds jobs that this one could not stop.
        *(["--slurm-jobname-prefix", job_prefix()] if executor == "slurm" else []),
        *(["--dry-run"] if dry_run else []),
    ]


def environment(gpus: Sequence[str] = ()) -> dict[str, str]:
    """The environment of Snakemake and its jobs, who share `gpus`, one each.

    Rules call `python`, which must be this one, and find this package also where conda gives them another.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    given = {name: value for name, value in os.environ.items() if name not in NEVER}
    return {**OFFLINE, **given, **ALWAYS, "PATH": path, "PYTHONPATH": package_path(), SHARED: ",".join(gpus)}


def package_path() -> str:
    """PYTHONPATH with this package's folder before what stands there already."""
    above = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry not in ("", str(HOME))]
    return os.pathsep.join([str(HOME), *above])


def usable_cache(folder: Path) -> Path:
    """The cache's absolute path, after it was made where it is not there.

    Raises:
        SpecError: it lies in results/, which Snakemake and DVC own, or cannot be written to.
    """
    absolute = folder.expanduser().resolve()
    if absolute.is_relative_to(Path("results").resolve()):
        raise SpecError(f"the cache {folder} lies in results/; give it a folder of its own, best outside the project")
    try:
        absolute.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"the cache {folder} cannot be made: {error.strerror}") from error
    if not os.access(absolute, os.W_OK | os.X_OK):
        raise SpecError(f"the cache {folder} cannot be written to by this user")
    return absolute


def usable_cores(cores: str, executor: str = "local") -> int | None:
    """A number of cores; `all` are those this process may use, in a batch job fewer than the machine has.

    On a cluster `all` sets no limit (None): how many cores a login node has says nothing about its nodes.

    Raises:
        SpecError: neither a positive number nor `all`.
    """
    if cores == "all":
        if executor != "local":
            return None
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not cores.isascii() or not cores.isdigit() or int(cores) < 1:
        raise SpecError(f"--cores {cores}: expected a number of at least 1, or all")
    return int(cores)
