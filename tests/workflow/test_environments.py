"""The conda environments: exact, level with the lock, one for every rule, and all that its stage imports is in it.

No environment was ever solved or installed here (docs/cluster.md): names and versions are checked, not that a channel
has them.
"""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rattler import MatchSpec
from snakemake.cli import parse_args
from tests.workflow.conftest import ALL_RULES, NOTEBOOKS, Checkout

from anatomy.provenance.code import HOME, PACKAGE, closure, has_module

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
# Conda's names where they are others than pip's.
NAMES = {
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "snakemake-minimal": "snakemake",
    "matplotlib-base": "matplotlib",
    "jupyter_client": "jupyter-client",
}
OWN = {PACKAGE, "snakemake_logger_plugin_anatomy"}
# Imported only where the stage itself did so before (`stages._run._device`).
ONLY_IF_LOADED = {("anatomy.stages._run", "torch")}
# Rules as Snakemake has them after reading the Snakefile: also those that a loop makes.
READER = """
import json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings
with SnakemakeApi(OutputSettings()) as api:
    workflow = api.workflow(
        resource_settings=ResourceSettings(cores=1),
        config_settings=ConfigSettings(config={"study": sys.argv[1]}),
        snakefile=Path("Snakefile"),
    )._workflow
    rules = {rule.name: rule.conda_env for rule in workflow.rules if rule.shellcmd or rule.script or rule.notebook}
    print(json.dumps(rules))
"""


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = (line.split("==") for line in lines if "==" in line)
    return {plain(name): version.split(";")[0].strip() for name, version in pins}


def pins(path: Path) -> dict[str, str | None]:
    """Package, by pip's name -> its exact version, in an environment; None for python and pip, which no lock names."""
    found: dict[str, str | None] = {}
    for entry in yaml.safe_load(path.read_text())["dependencies"]:
        if isinstance(entry, dict):
            for requirement in map(Requirement, entry["pip"]):
                (version,) = requirement.specifier
                assert version.operator == "==", requirement
                found[plain(requirement.name)] = version.version
            continue
        spec = MatchSpec(entry, strict=True)
        assert spec.name is not None
        name = spec.name.normalized
        if name in ("python", "pip"):
            found[name] = None
            continue
        version = str(spec.version)
        assert version.startswith("=="), f"{entry}: {version} is a range"
        found[plain(NAMES.get(name, name))] = version.removeprefix("==")
    return found


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_every_pin_is_exact_and_equals_the_lock(path: Path) -> None:
    lock, pinned = locked(), pins(path)
    assert len(pinned) > 10
    assert {name: lock.get(name) for name, version in pinned.items() if version} == {
        name: version for name, version in pinned.items() if version
    }


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_channels_are_named_and_no_others_are_searched(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert set(content) == {"channels", "dependencies"}
    assert content["channels"][0] == "conda-forge" and content["channels"][-1] == "nodefaults"


def test_torch_for_cpu_and_cuda_differ_in_torch_alone() -> None:
    cpu, cuda = (yaml.safe_load((ROOT / f"envs/torch-{kind}.yaml").read_text()) for kind in ("cpu", "cuda"))
    differing = set(cpu["dependencies"]) ^ set(cuda["dependencies"])
    assert {pin.partition("==")[0] for pin in differing} == {"pytorch-cpu", "pytorch-gpu"}


def test_no_cuda_library_is_locked() -> None:
    assert not [name for name in locked() if name.startswith(("nvidia", "triton", "cuda"))]


def test_every_pin_installs_on_the_oldest_python_that_is_promised() -> None:
    """A release may ask for a later patch level of the same Python than a distribution ships."""
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = promised.removeprefix(">=") + ".0"
    asked = {plain(own.name): own.metadata["Requires-Python"] for own in distributions() if plain(own.name) in locked()}
    assert len(asked) > 200
    too_new = {name: python for name, python in asked.items() if python and oldest not in SpecifierSet(python)}
    assert not too_new


# --- rules and their environments ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["cpu", "gpu-large"])
def checkout(request: pytest.FixtureRequest, make_checkout: Callable[[], Checkout]) -> Checkout:
    """With a study `other` of each kind of compute class."""
    made = make_checkout()
    text = f"extends: smoke\nstudy: other\ncompute: {{compute_class: {request.param}}}\n"
    (made.path / "config/other.yaml").write_text(text)
    return made


@pytest.fixture(scope="module")
def rules(checkout: Checkout) -> dict[str, str]:
    """Rule -> the environment it names."""
    done = subprocess.run(
        [sys.executable, "-c", READER, "other"],
        cwd=checkout.path,
        env=checkout.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_compute_class_chooses_torch_and_cost_shows_what_a_job_asks_for(
    checkout: Checkout, rules: dict[str, str]
) -> None:
    gpu = "gpu-large" in (checkout.path / "config/other.yaml").read_text()
    assert Path(rules["train_clean"]).stem == ("torch-cuda" if gpu else "torch-cpu")
    cost = json.loads(checkout.anatomy("cost", "other", "--profile", "slurm", "--json").stdout)
    asked = {job["rule"]: (job["gpus"], job["mem_mb"], job["limit_s"] // 60) for job in cost["jobs"]}
    assert asked["measure_behaviour"] == ((1, 32_000, 120) if gpu else (0, 2000, 20))
    assert asked["train_clean"] == ((1, 32_000, 240) if gpu else (0, 3000, 240))
    assert asked["make_toy_data"] == (0, 2000, 10)


def test_every_rule_names_an_environment_that_is_there(rules: dict[str, str]) -> None:
    assert {f"render_{name}" for name in NOTEBOOKS} < rules.keys()
    assert rules.keys() == ALL_RULES
    for rule, named in rules.items():
        assert named, f"{rule} names no environment"
        assert (ROOT / "workflow/rules" / named).resolve() in ENVIRONMENTS, (rule, named)


def test_all_that_a_stage_and_its_notebook_import_is_in_its_environment(rules: dict[str, str]) -> None:
    for rule, named in rules.items():
        # The variants of planting are the same stage.
        own = rule.replace("language_variants", "language")
        stage = own if has_module(f"anatomy.stages.{own}") else "render_notebook"
        have = pins((ROOT / "workflow/rules" / named).resolve())
        wanted = third_party(closure(f"anatomy.stages.{stage}"))
        if stage == "render_notebook":
            cells = notebook_trees(ROOT / f"notebooks/{rule.removeprefix('render_')}.ipynb")
            modules = {name for tree in cells for name in imported(tree)}
            wanted |= packages(modules) | third_party(m for name in modules if has_module(name) for m in closure(name))
        assert wanted <= have.keys(), f"{rule} ({named}) lacks {sorted(wanted - have.keys())}"


def test_all_that_the_command_and_the_snakefile_import_is_in_the_drivers_environment() -> None:
    sources = [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]
    lines = [line for source in sources for line in source.read_text().splitlines()]
    used = {name for line in lines if line.startswith(("from ", "import ")) for name in imported(ast.parse(line))}
    ours = {"anatomy.cli", *(name for name in used if has_module(name))}
    wanted = third_party(module for name in ours for module in closure(name)) | packages(used)
    lacking = wanted - pins(ROOT / "envs/driver.yaml").keys()
    assert not lacking, sorted(lacking)


def third_party(modules: Iterable[str]) -> set[str]:
    """Packages of others that these modules import, wherever in a module it is done."""
    return {package for module in modules for package in packages_of(module)}


@cache
def packages_of(module: str) -> set[str]:
    path = HOME / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names = imported(ast.parse(path.read_text()))
    return packages(name for name in names if (module, name.partition(".")[0]) not in ONLY_IF_LOADED)


def packages(modules: Iterable[str]) -> set[str]:
    """Who distributes these modules, but for Python and this package."""
    tops = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - OWN
    return {plain(distributors()[top][0]) for top in tops}


distributors = cache(packages_distributions)  # reads the records of all that is installed


def imported(tree: ast.AST) -> Iterator[str]:
    """Names of the modules that code imports; what stands under `if TYPE_CHECKING:` is imported by no run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
        yield from imported(node)


def notebook_trees(path: Path) -> list[ast.Module]:
    cells = json.loads(path.read_text())["cells"]
    return [ast.parse("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]


# --- the profile ----------------------------------------------------------------------------------------------------


def test_conda_in_the_slurm_profile_reaches_snakemake_with_the_packages_path(tmp_path: Path) -> None:
    """The lines that docs/cluster.md says to take the `#` from."""
    text = (ROOT / "profiles/slurm/profile.yaml").read_text()
    for profile, conda in {text: False, re.sub(r"^# (?=(software|conda)-)", "", text, flags=re.M): True}.items():
        (tmp_path / "profile.yaml").write_text(profile)
        _, arguments = parse_args(["--workflow-profile", str(tmp_path)])
        assert [str(method) for method in arguments.software_deployment_method] == (["conda"] if conda else [])
        # Without it Snakemake takes PYTHONPATH from jobs in conda environments, and they would not find this package.
        assert arguments.conda_not_block_search_path_envvars is conda
        assert arguments.executor == "slurm"
