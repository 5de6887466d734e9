"""The GPUs of one machine, shared out to the jobs of a local run: one each, and never two jobs on one.

Snakemake counts GPUs but does not say which one a job has, and every job would take the first. So the driver names
them all in the environment (`ANATOMY_GPUS`), and each job takes one that no other has: it locks a file of that GPU's
name. The kernel takes the lock back when the job ends, `kill -9` included, so that no slot is ever lost. On a cluster
the scheduler does all this, and the driver names none.
"""

import fcntl
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path

SHARED = "ANATOMY_GPUS"
VISIBLE = "CUDA_VISIBLE_DEVICES"
PAUSE = 1.0  # seconds between two looks for a free GPU


def usable_gpus(environ: Mapping[str, str] | None = None) -> list[str]:
    """Names of the GPUs this process may use: those of CUDA_VISIBLE_DEVICES where it is set, else the driver's.

    They are such as CUDA_VISIBLE_DEVICES takes. Names and not numbers where the driver is asked, as CUDA counts in
    another order than nvidia-smi.
    """
    environ = os.environ if environ is None else environ
    if VISIBLE in environ:
        names = [name.strip() for name in environ[VISIBLE].split(",")]
        # CUDA, too, ends the list at the first that is none; -1 is the customary one.
        end = next((place for place, name in enumerate(names) if not name or name.startswith("-")), len(names))
        return list(dict.fromkeys(names[:end]))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_listing(listed.stdout) if listed.returncode == 0 else []


def parse_listing(text: str) -> list[str]:
    """Names in what `nvidia-smi -L` prints. A GPU that is split into parts (MIG) can be used by its parts only."""
    names: list[str] = []
    for name in re.findall(r"UUID: ((?:GPU|MIG)-[^)\s]+)", text):
        if name.startswith("MIG-") and names and names[-1].startswith("GPU-"):
            names.pop()
        names.append(name)
    return names


def take_gpu(
    environ: MutableMapping[str, str] | None = None, folder: Path | None = None, *, pause: float = PAUSE
) -> int | None:
    """Take a GPU of those in ANATOMY_GPUS for this process, and let CUDA see no other; waits while all are taken.

    Must come before the first use of CUDA, which reads the variable once.

    Returns:
        The file that holds the lock, open until the process ends; None where no GPUs are named.
    """
    environ = os.environ if environ is None else environ
    names = [name for name in environ.get(SHARED, "").split(",") if name]
    if not names:
        return None
    # Of the whole machine and not of a checkout: two studies must not meet on one GPU either. In an allocation of a
    # Slurm GPUs are often counted from 0 anew, and they are its own.
    whose = "-".join(filter(None, (str(os.getuid()), environ.get("SLURM_JOB_ID"))))
    folder = folder or Path(tempfile.gettempdir(), f"anatomy-gpus-{whose}")
    folder.mkdir(mode=0o700, exist_ok=True)
    said = False
    while True:
        for name in names:
            slot = os.open(folder / re.sub(r"[^\w.-]", "_", name), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(slot)
                continue
            environ[VISIBLE] = name
            return slot
        if not said:
            print(f"waiting for one of {len(names)} GPUs, all taken by other jobs", flush=True)
            said = True
        time.sleep(pause)
