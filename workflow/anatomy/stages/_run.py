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
import resource
import sys
import time
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from anatomy.provenance.digest import ArtifactError
from anatomy.provenance.record import write_record
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
    def seeds(self) -> list[int]:
        """The study's seeds, in order."""
        return self.spec.seeds

    def progress(self, done: int, total: int, text: str) -> None:
        """Tell whoever watches the log how far the job is."""
        print(f"progress: {done}/{total} {text}", flush=True)


def run(main: Callable[..., None]) -> None:
    """Run a stage from the command line. A known error ends with one line `error: ...` and exit code 2."""
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
        given = {name: group(**{f.name: files[f.name] for f in fields(group)}) for name, group in groups.items()}
        main(job, **given, **{name: value for name, value in files.items() if name in parameters})
        grouped: dict[str, dict[str, list[Path]]] = {"input": {}, "output": {}}
        for name, hint in hints.items():
            value = files[name]
            grouped[hint.__metadata__[0]][name] = value if isinstance(value, list) else [value]
        write_record(
            arguments.record,
            rule=job.rule,
            study=job.study,
            wildcards=job.wildcards,
            spec=spec,
            seeds=spec.get("seeds", []),
            code=job.code,
            lock=arguments.lock,
            inputs=grouped["input"],
            outputs=grouped["output"],
            device=job.device,
            threads=job.threads,
            started=started,
            wall_s=time.perf_counter() - wall,
            cpu_s=time.process_time() - cpu,
            peak_rss_mb=_peak_rss_mb(),
        )
    except (ArtifactError, SpecError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


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
    if wanted != "cpu" and torch.backends.cuda.is_built():
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
