"""What a job asks a cluster for: memory, time, a GPU, and where it is sent. The one place that says so.

Nothing of this changes a result, so none of it is a parameter of a rule: other memory or another partition
makes nothing run again. On one machine these numbers limit nothing.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Where jobs are sent is a matter of the cluster and not of the study, hence of the environment.
ACCOUNT = "ANATOMY_ACCOUNT"
PARTITION = "ANATOMY_PARTITION"
GPU_PARTITION = "ANATOMY_GPU_PARTITION"
GPU_MODEL = "ANATOMY_GPU_MODEL"


@dataclass(frozen=True)
class ComputeClass:
    """What a class of jobs gets at least, whatever its rule asks for."""

    gpus: int
    least_mem_mb: int  # of the host: the CUDA libraries alone fill some GB
    least_runtime: int  # minutes: those libraries may come over a network, and kernels are compiled at the first use


# By the study's `compute.compute_class`.
CLASSES = {
    "cpu": ComputeClass(gpus=0, least_mem_mb=0, least_runtime=0),
    "gpu-small": ComputeClass(gpus=1, least_mem_mb=8_000, least_runtime=30),
    "gpu-large": ComputeClass(gpus=1, least_mem_mb=32_000, least_runtime=120),
}


def job_resources(
    compute_class: str,
    *,
    mem_mb: int,
    runtime: int,
    gpu: bool = False,
    processes: int = 1,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The `resources:` of a rule.

    A GPU is asked for by `gpu` and never by `gres` as well: Slurm would be given both, and they exclude each other.

    Args:
        compute_class: the study's; only rules that can use a GPU (`gpu=True`) heed it, the others are of class cpu.
        mem_mb: memory in MB; runtime: minutes. A job that failed gets twice as much of both at each new attempt.
        processes: of the job; each has the class's GPUs.
        environ: the environment; `ANATOMY_ACCOUNT`, `ANATOMY_PARTITION`, `ANATOMY_GPU_PARTITION` and
            `ANATOMY_GPU_MODEL` say where the job is sent. What is not set is left to Slurm.
    """
    environ = os.environ if environ is None else environ
    kind = CLASSES[compute_class if gpu else "cpu"]
    partition = environ.get(PARTITION)
    asked: dict[str, Any] = {
        "mem_mb": growing(max(mem_mb, kind.least_mem_mb)),
        "runtime": growing(max(runtime, kind.least_runtime)),
    }
    if kind.gpus:
        asked["gpu"] = kind.gpus * processes
        partition = environ.get(GPU_PARTITION) or partition
        if model := environ.get(GPU_MODEL):
            asked["gpu_model"] = model
    if partition:
        asked["slurm_partition"] = partition
    if account := environ.get(ACCOUNT):
        asked["slurm_account"] = account
    return asked


def growing(amount: int) -> Callable[[Any, int], int]:
    """A resource as Snakemake calls it: `amount` at the first attempt, twice as much at each further one."""

    def at_attempt(wildcards: Any, attempt: int) -> int:
        return amount * 2 ** (attempt - 1)

    return at_attempt
