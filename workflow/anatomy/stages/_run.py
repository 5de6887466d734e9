"""What every stage has in common: arguments from its signature, one clear error, a run record at the end.

A stage is a function whose keyword arguments say what it reads and writes::

    def main(job: Job, *, corpus: In, models: Outs) -> None: ...

    if __name__ == "__main__":
        run(main)

Files that several stages read together may stand in a dataclass, whose fields then are the arguments.
"""

import argparse
import inspect
import json
import os
import resource
import sys
import time
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from anatomy.provenance.cache import VARIABLE, fetch, store
from anatomy.provenance.digest import ArtifactError
from anatomy.provenance.record import describe, from_root, write_record
from anatomy.spec.errors import SpecError
from anatomy.spec.gpus import take_gpu
from anatomy.spec.subtree import View, view

In = Annotated[Path, "input", None]
Ins = Annotated[list[Path], "input", "+"]
Out = Annotated[Path, "output", None]
Outs = Annotated[list[Path], "output", "+"]


@dataclass
class Job:
    """What a stage knows besides its files. `spec` has the keys the rule asked for and no others."""

    rule: str
    study: str
    spec: View
    wildcards: dict[str, str]
    code: str
    threads: int
    device: str
    record: Path

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes results, of the several that a job may have (accelerate launch)."""
        return os.environ.get("RANK", "0") == "0"

    @property
    def seeds(self) -> list[int]:
        """The study's seeds, in order."""
        return self.spec.seeds

    def progress(self, done: int, total: int, text: str) -> None:
        """Tell whoever watches the log how far the job is."""
        if self.leads:
            print(f"progress: {done}/{total} {text}", flush=True)


def run(main: Callable[..., None], *, shared: bool = False) -> None:
    """Run a stage from the command line. A known error ends with one line `error: ...` and exit code 2.

    The results of a `shared` stage, a long one, are taken from the cache that the environment names, and put there.
    """
    started, wall, cpu = datetime.now(UTC), time.perf_counter(), time.process_time()
    parameters = _parameters(main)
    groups: dict[str, Any] = {name: hint for name, hint in parameters.items() if inspect.isclass(hint)}
    hints = {name: hint for name, hint in parameters.items() if name not in groups}
    for group in groups.values():
        hints |= _parameters(group)
    try:
        arguments = _parse(main, hints)
        spec = view(arguments.spec)
        job = Job(
            rule=arguments.rule,
            study=arguments.study,
            spec=spec,
            wildcards=json.loads(arguments.wildcards),
            code=arguments.code,
            threads=arguments.threads,
            device=_device(spec.get("compute", {}).get("device", "cpu"), arguments.threads),
            record=arguments.record,
        )
        files = {name: getattr(arguments, name) for name in hints}
        grouped: dict[str, dict[str, list[Path]]] = {"input": {}, "output": {}}
        for name, hint in hints.items():
            value = files[name]
            grouped[hint.__metadata__[0]][name] = value if isinstance(value, list) else [value]
        known = {name: getattr(job, name) for name in ("rule", "study", "wildcards", "code", "threads", "device")}
        known |= {"spec": spec, "lock": arguments.lock}
        cache = Path(os.environ[VARIABLE]) if shared and os.environ.get(VARIABLE) else None
        if cache and _served(cache, job.record, known, grouped):
            return
        given = {name: group(**{f.name: files[f.name] for f in fields(group)}) for name, group in groups.items()}
        main(job, **given, **{name: value for name, value in files.items() if name in parameters})
        if not job.leads:
            return
        write_record(
            job.record,
            **known,
            seeds=spec.get("seeds", []),
            inputs=grouped["input"],
            outputs=grouped["output"],
            started=started,
            wall_s=time.perf_counter() - wall,
            cpu_s=time.process_time() - cpu,
            peak_rss_mb=_peak_rss_mb(),
        )
        if cache:
            _shared(cache, job.record)
    except (ArtifactError, SpecError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


def _served(cache: Path, record: Path, known: dict[str, Any], files: dict[str, dict[str, list[Path]]]) -> bool:
    """Whether the cache had the job; a broken entry is told of and counts as none."""
    inputs = {name: describe(paths) for name, paths in files["input"].items()}
    outputs = {name: [{"path": from_root(path)} for path in paths] for name, paths in files["output"].items()}
    try:
        found = fetch(cache, {**known, "inputs": inputs, "outputs": outputs}, record)
    except ArtifactError as error:
        print(f"warning: {error}; the job is run", file=sys.stderr, flush=True)
        return False
    if found:
        print(f"taken from the cache {cache}: made by job {found['job']}, begun {found['started']}", flush=True)
    return found is not None


def _shared(cache: Path, record: Path) -> None:
    """Put the job into the cache; that this fails costs others time, and the job nothing."""
    try:
        store(cache, record)
    except (ArtifactError, OSError) as error:
        print(f"warning: not put into the cache {cache}: {error}", file=sys.stderr, flush=True)


def _parameters(of: Callable) -> dict[str, Any]:
    return {k: v for k, v in typing.get_type_hints(of, include_extras=True).items() if k not in ("job", "return")}


def _parse(main: Callable, hints: dict[str, Any]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=inspect.getdoc(main))
    for name in ("rule", "study", "spec", "code", "lock"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--wildcards", default="{}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", type=Path, required=True)
    for name, hint in hints.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, required=True, nargs=hint.__metadata__[1])
    return parser.parse_args()


def _device(wanted: str, threads: int) -> str:
    """The device of the job; imports torch only where a stage already did or asks for one."""
    if "torch" not in sys.modules:
        return "cpu"
    import torch

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Several processes of one job have all the GPUs that it was given, and accelerate gives one to each.
    if wanted != "cpu" and torch.backends.cuda.is_built() and "RANK" not in os.environ:
        take_gpu()
    if wanted == "cpu" or not torch.cuda.is_available():
        if wanted == "cuda":
            raise SpecError("compute.device: cuda was asked for and this job has no CUDA device; use auto or cpu")
        return "cpu"
    return "cuda"


def _peak_rss_mb() -> float:
    """Peak memory of this process and its children in MiB (ru_maxrss counts KiB on Linux, bytes on macOS)."""
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(w).ru_maxrss for w in who) / unit


def remove_quietly(path: Path) -> None:
    """Delete a file that may be gone already."""
    path.unlink(missing_ok=True)
