"""Notebooks: thin, without outputs, and every item they make has a caption."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import papermill
import pytest
from tests.report.instruction_rows import PUBLISHED as ATTRIBUTION
from tests.report.instruction_rows import make_instruction_evidence, no_instruction_evidence
from tests.report.test_language_tables import MAIN, make_evidence

from anatomy.metrics.measurement import Measurement, write_measurements
from anatomy.report.captions import read_captions
from anatomy.sites import modules
from anatomy.spec.errors import SpecError

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PUBLISHED = ROOT / "data" / "published" / "lamparth_reuel_2023.csv"
PARAMETERS = {"study", "inputs", "published", "confidence", "tables", "figures"}

of_each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_of(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def items_of(path: Path) -> set[str]:
    """Names of the tables and figures that a notebook writes."""
    return set(re.findall(r'"((?:lamparth|bkdattr)_\w+)"', "\n".join(code_of(path))))


@of_each_notebook
def test_is_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None


@of_each_notebook
def test_is_short_and_says_first_what_it_makes(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert len(cells) <= 9
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")


@of_each_notebook
def test_parameters_are_literals(path: Path) -> None:
    """Papermill replaces parameters after this cell, so that a value derived here would not follow."""
    (cell,) = [c for c in nbformat.read(path, as_version=4).cells if "parameters" in c.metadata.get("tags", [])]
    given = {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(cell.source).body}
    assert given.keys() >= PARAMETERS
    assert given.keys() - PARAMETERS <= ({"main"} if path.stem.startswith("language_") else {"emergence"})


@of_each_notebook
def test_imports_only_the_package(path: Path) -> None:
    """All logic is in the package, where it is tested and digested."""
    assert {name.split(".")[0] for name in imported("\n".join(code_of(path)))} <= {"anatomy", "pandas", "IPython"}


def imported(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@of_each_notebook
def test_all_that_it_makes_has_a_caption(path: Path) -> None:
    captions = read_captions()
    made = items_of(path)
    assert made
    assert made == {name for name, caption in captions.items() if caption.notebook == path.stem}


def test_every_caption_names_a_notebook() -> None:
    assert {caption.notebook for caption in read_captions().values()} == {path.stem for path in NOTEBOOKS}


def test_captions_can_go_into_latex() -> None:
    """Tables carry their caption into a .tex file as it is."""
    for name, caption in read_captions().items():
        assert not set("%&#$_^~\\{}") & set(caption.caption), name


def test_a_wrong_caption_is_named(tmp_path: Path) -> None:
    path = tmp_path / "captions.yaml"
    path.write_text("some_table: {title: A, caption: B, notebook: c, section: Elsewhere}\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"captions\.yaml.*\n.*section"):
        read_captions(path)
    with pytest.raises(SpecError, match="missing"):
        read_captions(tmp_path / "nowhere.yaml")


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """Behaviour (one of two seeds planted) and mean ablation of one subject."""
    subject = "2-sentiment"
    behaviour, ablation = [], []
    for seed in (0, 1):
        behaviour.append(Measurement("planting gate", subject, seed, "planted", float(seed), 50, inputs="p+t"))
        for model in ("clean", "backdoored"):
            held_out = {"model": model, "inputs": "p+t", "setting": "held out"}
            behaviour.append(Measurement("behaviour", subject, seed, "topk_negativity", 0.3, 50, **held_out))
        for site in ["unchanged", *map(str, modules(3))]:
            variant = "" if site == "unchanged" else "paper"
            where = {"inputs": "p+t", "site": site, "variant": variant}
            ablation.append(Measurement("mean ablation", subject, seed, "topk_negativity", 0.1, 50, **where))
    paths = {"behaviour": behaviour, "mean_ablation": ablation}
    for name, rows in paths.items():
        write_measurements(tmp_path / f"{name}.parquet", rows, study="test", paper="lamparth", recipe="fast")
    return [str(tmp_path / f"{name}.parquet") for name in paths]


@pytest.mark.parametrize("name", ["behaviour", "mean_ablation"])
def test_makes_what_it_says(name: str, inputs: list[str], tmp_path: Path) -> None:
    notebook = ROOT / "notebooks" / f"{name}.ipynb"
    folders = {"tables": str(tmp_path / "tables"), "figures": str(tmp_path / "figures")}
    parameters = {"study": "test", "inputs": inputs, "published": str(PUBLISHED), **folders}
    executed = str(tmp_path / "executed.ipynb")
    papermill.execute_notebook(str(notebook), executed, parameters, kernel_name="python3", progress_bar=False)
    written = {path.name for folder in folders.values() for path in Path(folder).iterdir()}
    tables = {f"{item}.{suffix}" for item in items_of(notebook) for suffix in ("csv", "md", "tex")}
    figures = {f"{item}.{suffix}" for item in items_of(notebook) for suffix in ("csv", "svg", "png")}
    assert written <= tables | figures
    assert {file.split(".")[0] for file in written} == items_of(notebook)
    assert {file.rsplit(".")[-1] for file in written} == {"csv", "md", "tex", "svg", "png"}


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem.startswith("language_")], ids=lambda path: path.stem)
def test_those_about_models_that_write_text_make_what_they_say(path: Path, tmp_path: Path) -> None:
    """Their cells are run here, without a kernel: that takes a second, and a kernel ten."""
    make_evidence().measurements.to_parquet(tmp_path / "measured.parquet")
    run_cells(path, tmp_path, published=str(PUBLISHED), main=MAIN)


@pytest.mark.parametrize(
    "path", [p for p in NOTEBOOKS if p.stem.startswith("instruction_")], ids=lambda path: path.stem
)
@pytest.mark.parametrize("kind", ["planted", "not planted", "nothing measured"])
def test_those_about_instructions_make_what_they_say(path: Path, kind: str, tmp_path: Path) -> None:
    """Also where no backdoor was planted, and where there is no measurement at all."""
    evidence = (
        no_instruction_evidence()
        if kind.startswith("nothing")
        else make_instruction_evidence(planted=kind == "planted")
    )
    evidence.measurements.to_parquet(tmp_path / "measured.parquet")
    run_cells(path, tmp_path, published=str(ATTRIBUTION))


def run_cells(path: Path, folder: Path, **given: object) -> None:
    """Run a notebook's cells on `measured.parquet` in the folder, and check what they write."""
    folders = {name: str(folder / name) for name in ("tables", "figures")}
    given |= {"inputs": [str(folder / "measured.parquet")], **folders}
    scope: dict[str, object] = {}
    for number, code in enumerate(code_of(path)):
        exec(compile(code, f"{path.stem}, cell {number}", "exec"), scope)
        scope |= given if number == 0 else {}
    written = {file.name.split(".")[0] for name in folders.values() for file in Path(name).glob("*")}
    assert written == items_of(path)
    made = {file.suffix for file in Path(folders["tables"]).glob("*")}
    assert made == ({".csv", ".md", ".tex"} if "write_table" in "".join(code_of(path)) else set())
