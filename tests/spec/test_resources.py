"""What a job asks a cluster for."""

from itertools import product

import pytest

from anatomy.spec.resources import CLASSES, job_resources


def asked(compute_class: str, *, attempt: int = 1, gpu: bool = True, **environ: str) -> dict:
    """The resources of a rule of 3000 MB and 60 minutes, as Snakemake evaluates them at an attempt."""
    return evaluated(compute_class, 3000, 60, attempt=attempt, gpu=gpu, **environ)


def evaluated(compute_class: str, mem_mb: int, runtime: int, *, attempt: int = 1, gpu: bool = True, **environ: str):
    resources = job_resources(compute_class, mem_mb=mem_mb, runtime=runtime, gpu=gpu, environ=environ)
    return {name: value(None, attempt=attempt) if callable(value) else value for name, value in resources.items()}


def test_a_cpu_study_asks_for_no_gpu_and_leaves_the_place_to_slurm():
    assert asked("cpu") == {"mem_mb": 3000, "runtime": 60}


@pytest.mark.parametrize("compute_class", ["gpu-small", "gpu-large"])
def test_a_gpu_class_asks_for_one_where_the_rule_can_use_it(compute_class):
    assert asked(compute_class)["gpu"] == 1
    assert asked(compute_class)["mem_mb"] == CLASSES[compute_class].least_mem_mb
    assert asked(compute_class, gpu=False) == asked("cpu")


@pytest.mark.parametrize("compute_class", CLASSES)
def test_a_class_raises_memory_and_time_and_never_lowers_them(compute_class):
    kind = CLASSES[compute_class]
    for mem_mb, runtime in product([1, 3000, 64_000], [1, 60, 480]):
        resources = evaluated(compute_class, mem_mb, runtime)
        assert resources["mem_mb"] == max(mem_mb, kind.least_mem_mb)
        assert resources["runtime"] == max(runtime, kind.least_runtime)
        assert evaluated(compute_class, mem_mb, runtime, gpu=False) == evaluated("cpu", mem_mb, runtime)


def test_gres_stands_nowhere_as_slurm_would_be_given_both():
    for compute_class, gpu in product(CLASSES, [True, False]):
        assert "gres" not in asked(compute_class, gpu=gpu, ANATOMY_GPU_MODEL="h200", ANATOMY_PARTITION="long")


def test_each_attempt_asks_for_twice_the_memory_and_time():
    first, second, third = (asked("gpu-small", attempt=attempt) for attempt in (1, 2, 3))
    for name in ("mem_mb", "runtime"):
        assert (second[name], third[name]) == (2 * first[name], 4 * first[name])
    assert first["gpu"] == third["gpu"] == 1


def test_the_environment_says_where_to():
    place = {"ANATOMY_ACCOUNT": "lab", "ANATOMY_PARTITION": "long", "ANATOMY_GPU_PARTITION": "a100"}
    assert asked("cpu", **place) | {"slurm_account": "lab", "slurm_partition": "long"} == asked("cpu", **place)
    assert asked("gpu-small", **place, ANATOMY_GPU_MODEL="h200") == asked("gpu-small") | {
        "slurm_account": "lab",
        "slurm_partition": "a100",
        "gpu_model": "h200",
    }
    assert asked("gpu-small", ANATOMY_PARTITION="long")["slurm_partition"] == "long"
    assert asked("cpu", ANATOMY_PARTITION="", ANATOMY_ACCOUNT="") == asked("cpu")
