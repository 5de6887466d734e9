"""What a run on a cluster needs besides Snakemake: its profile, and an end to jobs a killed run left behind.

Jobs of a cluster are no children of the driver, and `kill -9` of the driver does not end them. The next run in
the folder would submit them once more, and two jobs would write the same results. So it stops them first, which
is safe: it holds the folder's lock, the jobs bear the folder's name, results are renamed into place only when
they are whole, and training goes on from its checkpoint.
"""

import getpass
import shutil
import subprocess
import time
from pathlib import Path

import yaml

from anatomy.provenance.digest import sha256_json
from anatomy.spec.errors import SpecError

PROFILES = Path("profiles")
PROFILE_FILE = "profile.yaml"
PATIENCE = 120.0  # seconds for cancelled jobs to be gone; Slurm itself kills after KillWait (30 by default)


def profile_path(name: str, root: Path = Path()) -> str:
    """The folder of a profile: `default` and `slurm` are those in profiles/, anything else is a path.

    Raises:
        SpecError: there is none.
    """
    for folder in (PROFILES / name, Path(name)):
        if (root / folder / PROFILE_FILE).is_file():
            return str(folder)
    known = ", ".join(sorted(path.parent.name for path in (root / PROFILES).glob(f"*/{PROFILE_FILE}")))
    raise SpecError(f"--profile {name}: no {PROFILES / name / PROFILE_FILE}; expected one of {known}, or a folder")


def executor_of(profile: str, root: Path = Path()) -> str:
    """Which executor a profile names: `local` where it names none.

    Raises:
        SpecError: the profile is not YAML, or no mapping.
    """
    path = root / profile / PROFILE_FILE
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not a Snakemake profile: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise SpecError(f"{path}: not a Snakemake profile: expected keys with values")
    return str(settings.get("executor", "local"))


def job_prefix(root: Path = Path()) -> str:
    """How the names of all Slurm jobs of this folder begin."""
    return f"anatomy-{sha256_json(str(root.resolve()))[:12]}"


def require_slurm() -> None:
    """Refuse to start where nothing could be submitted.

    Raises:
        SpecError: a command of Slurm is missing.
    """
    missing = [command for command in ("sbatch", "squeue", "scancel") if shutil.which(command) is None]
    if missing:
        raise SpecError(
            f"the profile submits to Slurm, and {', '.join(missing)} is not to be found; "
            "start it on a login node of the cluster, or leave --profile out"
        )


def jobs_left_behind(prefix: str) -> list[str]:
    """Numbers of this person's jobs in the queue whose name begins so.

    Raises:
        SpecError: the queue cannot be read.
    """
    table = _slurm("squeue", "--noheader", "--user", getpass.getuser(), "--format", "%i %j")
    jobs = [line.split(maxsplit=1) for line in table.splitlines() if line.strip()]
    return [job[0] for job in jobs if len(job) == 2 and job[1].startswith(prefix)]


def stop_jobs_left_behind(prefix: str, *, patience: float = PATIENCE, pause: float = 1.0) -> list[str]:
    """Cancel the jobs of an earlier run in this folder, wait until they are gone, and return their numbers.

    Only for who holds the folder's lock.

    Raises:
        SpecError: they do not end, or Slurm does not answer.
    """
    found = jobs_left_behind(prefix)
    if not found:
        return []
    _slurm("scancel", *found)
    deadline = time.monotonic() + patience
    while left := jobs_left_behind(prefix):
        if time.monotonic() > deadline:
            raise SpecError(
                f"Slurm jobs {', '.join(left)} of an earlier run in this folder do not end; they could write into "
                "its results. Wait until squeue shows them no more, then give the same command again"
            )
        time.sleep(pause)
    return found


def _slurm(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SpecError(f"{command[0]}: Slurm does not answer ({error})") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise SpecError(f"{command[0]}: Slurm does not answer ({said})")
    return done.stdout
