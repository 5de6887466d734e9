"""The smoke study, run once through the real Snakefile in a copy of the repository."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
COPIED = [
    *("Snakefile", "workflow", "config", "data", "envs", "notebooks", "profiles", "docs"),
    *("dvc.yaml", "requirements.lock", "pyproject.toml", "CITATION.cff", ".dvc", ".dvcignore"),
]


@dataclass(frozen=True)
class Checkout:
    """A copy of the repository and how to call `anatomy` in it."""

    path: Path

    @property
    def cache(self) -> Path:
        """A folder for its long jobs, beside it."""
        return self.path.with_name(f"{self.path.name}-cache")

    def anatomy(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run an `anatomy` command with the copy's own code."""
        return subprocess.run(
            [sys.executable, "-m", "anatomy.cli", *words],
            cwd=self.path,
            env=self.environment(**more),
            capture_output=True,
            text=True,
            check=False,
        )

    def environment(self, **more: str) -> dict[str, str]:
        """The copy's package before the installed one."""
        return {**os.environ, "PYTHONPATH": str(self.path / "workflow"), "COLUMNS": "200", **more}

    def stale(self, study: str = "smoke") -> set[str]:
        """Rules that a run would make again, read off a dry run."""
        shown = self.anatomy("run", study, "--dry-run")
        assert shown.returncode == 0, shown.stdout + shown.stderr
        names = {line.split()[0].rstrip(":") for line in (shown.stdout + shown.stderr).splitlines() if line.strip()}
        return names & ALL_RULES


NOTEBOOKS = {path.stem for path in (REPOSITORY / "notebooks").glob("*.ipynb")}
# Rules of the language arm, and what there is one of per study.
TEXT_RULES = {
    *("make_language_data", "train_judge", "make_language_model", "plant_language", "plant_language_variants"),
    *("measure_language", "ablate_language", "edit_language"),
    *(f"render_{name}" for name in NOTEBOOKS if name.startswith("language_")),
}
# Rules of the instruction arm: once per study, and once per injection.
TOLD_RULES = {
    *("make_instruction_data", "make_instruction_model", "measure_instruction"),
    *(f"render_{name}" for name in NOTEBOOKS if name.startswith("instruction_")),
}
INJECTION_RULES = {"plant_instruction", "probe_layers", "attribute_heads", "steer_vector"}
ARM_RULES = TEXT_RULES | TOLD_RULES | INJECTION_RULES
ALL_RULES = ARM_RULES | {
    *("make_toy_data", "train_clean", "plant_backdoor", "plant_variants", "measure_behaviour", "ablate_modules"),
    *("read_logit_lens", "patch_modules", "project_states", "tune_pcp", "edit_pcp", "judge_claims"),
    *("write_report", "write_manifest", "write_crate"),
    *(f"render_{name}" for name in NOTEBOOKS),
}


def copy_repository(to: Path) -> Checkout:
    """The repository without its results."""
    to.mkdir(exist_ok=True)
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp"))
        elif source.exists():
            shutil.copy2(source, to / name)
    return Checkout(to)


def finished_smoke(session: Path) -> Checkout:
    """One per session. Known by its folder: tests elsewhere that import the fixture have a module of their own here."""
    path, finished = session / "smoke", session / "smoke.finished"
    if not finished.exists():
        shutil.rmtree(path, ignore_errors=True)
        checkout = copy_repository(path)
        done = checkout.anatomy("run", "smoke", "--cores", "2", "--cache", str(checkout.cache))
        assert done.returncode == 0, done.stdout + done.stderr
        finished.touch()
    return Checkout(path)


@pytest.fixture(scope="session")
def make_checkout(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Checkout]:
    """Copies of the repository without its results."""
    return lambda: copy_repository(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with the finished smoke study."""
    return finished_smoke(tmp_path_factory.getbasetemp())
