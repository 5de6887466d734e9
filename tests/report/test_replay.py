"""Every line of every table and figure is computed again, and rests on exactly the rows that would change it."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from anatomy.metrics.measurement import read_parquet, write_parquet
from anatomy.provenance.code import rule_code
from anatomy.provenance.explain import explain
from anatomy.provenance.lines import Lines, read_lines
from anatomy.provenance.manifest import build_manifest, manifest_path, write_manifest
from anatomy.provenance.record import read_record, write_record
from anatomy.report import trace
from anatomy.report.replay import GATE, CannotTell, Origin, replay
from anatomy.report.trace import OF_COURSES, Basis, rows_behind

from .instruction_rows import as_table, cell_rows, clean_rows
from .test_figures import SEEDS, SUBJECTS, make_corpora, make_curves, make_evidence, make_states
from .test_language_tables import MAIN, judged_rows
from .test_language_tables import make_evidence as make_text_evidence

HOME = "results/toy"
LAMPARTH, YU = "data/published/lamparth_reuel_2023.csv", "data/published/yu_2025_bkdattr.csv"
NOTEBOOKS = sorted(path.stem for path in (Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
SPEC = {"confidence": 0.95, "toy": {"evaluation": {"emergence": 0.3}}}
# Show the largest of several: a change of a row that was not chosen can make it so.
CHOSEN = {"bkdattr_concentration", "bkdattr_coefficients", "bkdattr_table_02", "bkdattr_vector", "bkdattr_probe"}
COUNTS = {"lamparth_variants"}  # verdicts counted: a small change of a row need not change a count


# One every time; the others (training curves, points of a figure, ...) in `make long-test`.
QUICK = {"mean_ablation"}
PARAMS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in NOTEBOOKS]


@pytest.fixture(params=PARAMS)
def made(request: pytest.FixtureRequest, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One notebook's tables and figures, made by its own cells and recorded; the paths of their CSV files."""
    name = request.param
    for file in (f"notebooks/{name}.ipynb", published_of(name)):
        (tmp_path / file).parent.mkdir(parents=True)
        shutil.copy(root / file, tmp_path / file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: Path(path).write_bytes(b"drawn"))
    inputs = write_inputs(name)
    cells = nbformat.read(f"notebooks/{name}.ipynb", as_version=4).cells
    first, *rest = [cell.source for cell in cells if cell.cell_type == "code"]
    names: dict[str, Any] = {}
    folders = {folder: f"{HOME}/{folder}" for folder in ("tables", "figures")}
    exec(first, names)
    names |= parameters_of(name, inputs) | folders
    exec("\n".join(rest).replace("Image(", "str("), names)
    written = sorted(str(path) for folder in folders.values() for path in Path(folder).glob("*.csv"))
    record(name, inputs, written)
    return written


def parameters_of(notebook: str, inputs: list[str]) -> dict[str, Any]:
    given = {"inputs": inputs, "published": published_of(notebook), "confidence": 0.95, "emergence": 0.3}
    return given | ({"main": MAIN} if notebook.startswith("language_") else {})


def published_of(notebook: str) -> str:
    return YU if notebook.startswith("instruction_") else LAMPARTH


def write_inputs(notebook: str) -> list[str]:
    """The input files of a notebook, one of each kind and subject, with values of which no two are the same."""
    if notebook.startswith("instruction_"):
        return write_instruction_inputs()
    if notebook.startswith("language_"):
        return write_text_inputs()
    evidence, curves, states, corpora = make_evidence(planted=True), make_curves(), make_states(), make_corpora()
    evidence.measurements.loc[evidence.measurements.experiment != GATE, "value"] += np.linspace(
        0, 1e-3, (evidence.measurements.experiment != GATE).sum()
    )
    files: dict[str, pd.DataFrame] = {}
    for subject in SUBJECTS:
        home, m = f"{HOME}/toy/{subject}", evidence.measurements
        own = curves[curves.subject == subject].drop(columns="subject")
        files[f"{home}/measurements/all.parquet"] = m[m.subject == subject]
        if notebook in ("freezing", "training_amount"):
            for phase in ("clean", "backdoor"):
                main = own[(own.phase == phase) & (own.variant == "main")].drop(columns="variant")
                files[f"{home}/{'clean' if phase == 'clean' else 'backdoored'}/curve.parquet"] = main
            files[f"{home}/variants/curves.parquet"] = own[own.variant != "main"]
    if notebook == "hidden_states":
        files[f"{HOME}/toy/3-sentiment/measurements/hidden_states.parquet"] = states
    if notebook == "concept":
        files = {f"{HOME}/toy/3-sentiment/data/corpus.parquet": corpora.drop(columns="subject")}
    for path, table in files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_parquet(Path(path), table.reset_index(drop=True))
    return list(files)


def write_text_inputs() -> list[str]:
    """Two corpora of planted seeds, as a whole study has them, and the judge's quality."""
    table = pd.concat([make_text_evidence(planted=(0, 1, 2)).measurements, judged_rows()], ignore_index=True)
    table.loc[table.experiment != GATE, "value"] += np.linspace(0, 1e-3, (table.experiment != GATE).sum())
    found = []
    for subject, own in table.groupby("subject"):
        path = Path(HOME, f"toy/{subject}/measurements/all.parquet")
        path.parent.mkdir(parents=True)
        write_parquet(path, own.reset_index(drop=True))
        found.append(str(path))
    return found


def write_instruction_inputs() -> list[str]:
    """Two seeds of two planted cells, and of one of which no seed was planted."""
    rows = [row for seed in SEEDS for row in clean_rows("label", seed)]
    for seed, (injection, planted) in product(SEEDS, (("sft", True), ("dpo", True), ("edit", False))):
        rows += cell_rows("label", injection, seed, planted=planted)
    path = Path(HOME, "toy/instruction/measurements/all.parquet")
    path.parent.mkdir(parents=True)
    write_parquet(path, as_table(rows))
    return [str(path)]


def record(name: str, inputs: list[str], written: list[str]) -> None:
    write_record(
        f"{HOME}/records/render_{name}.run.json",
        rule=f"render_{name}",
        study="toy",
        wildcards={},
        spec=SPEC | ({"language": {"main": MAIN}} if name.startswith("language_") else {}),
        seeds=[],
        code=str(rule_code(f"render_{name}")),
        lock=None,
        inputs={"notebook": [f"notebooks/{name}.ipynb"], "inputs": inputs, "published": [published_of(name)]},
        outputs={"outputs": written},
        device="cpu",
        threads=1,
        started=datetime(2026, 1, 2, tzinfo=UTC),
        wall_s=1.0,
        cpu_s=1.0,
        peak_rss_mb=1.0,
    )
    entries = build_manifest([Path(f"{HOME}/records/render_{name}.run.json")])
    write_manifest(manifest_path("toy"), entries, study="toy", lock=None)


def behind(path: str, numbers: list[int] | None = None) -> Basis:
    """The rows behind some lines of a file, counted from 1, or all."""
    every = read_lines(path)
    numbers = numbers or list(range(1, len(every) + 1))
    lines = tuple(every[number - 1] for number in numbers)
    return rows_behind(explain(path), Lines(path, "", tuple(every[0]), lines, tuple(numbers)))


def behind_each(path: str, monkeypatch: pytest.MonkeyPatch) -> list[pd.DataFrame]:
    """Per line, the rows it names: heard as they are found, since asking line by line computes all of it each time."""
    heard: list[pd.DataFrame] = []

    def listen(*given: Any) -> pd.DataFrame:
        heard.append(shown(*given))
        return heard[-1]

    shown = trace._shown
    with monkeypatch.context() as patched:
        patched.setattr(trace, "_shown", listen)
        basis = behind(path)
    assert (basis.problem, basis.differing) == ("", ()), path  # every line is computed again to every digit
    return heard


def test_a_mean_is_that_of_its_rows_and_a_point_is_its_row(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for path in made:
        for line, rows in zip(read_lines(path), behind_each(path, monkeypatch), strict=True):
            if not line.get("measured") or line.get("panel") == "published":
                assert "measured" not in line or not len(rows), (path, line)
            elif line["metric"] not in OF_COURSES:
                assert f"{rows.value.mean():.6g}" == line["measured"], (path, line)
                assert not line.get("seed") or {str(seed) for seed in rows.seed} == {line["seed"]}


def changed_inputs(inputs: list[str]) -> Iterator[tuple[str, int]]:
    """Change one row of an input file after the other, a few of each; afterwards it is as before."""
    rng = np.random.default_rng(1)
    for path in inputs:
        plain = read_parquet(Path(path))
        rows = plain.index[plain.experiment != GATE] if "experiment" in plain else plain.index
        for line in rng.choice(rows, size=min(3, len(rows)), replace=False):
            table = plain.copy()
            for column in {"value", "negativity", "mass", "validation_loss", "x", "y"} & set(table):
                table.loc[line, column] = table.loc[line, column] + 0.0123
            for column in {"clean", "triggered"} & set(table):
                table.loc[line, column] = " ".join(f"other{word}" for word in table.loc[line, column].split())
            write_parquet(Path(path), table)
            yield path, int(line)
        write_parquet(Path(path), plain)


def test_a_changed_row_changes_exactly_the_lines_that_name_it(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = [path.stem for path in Path("notebooks").iterdir()]
    inputs = sorted(str(path) for path in Path(HOME, "toy").rglob("*.parquet"))
    order = [file["path"] for file in read_record(explain(made[0]).jobs[made[0]].record)["inputs"]["inputs"]]
    parameters = parameters_of(name, order)
    before = {path: read_lines(path) for path in made}
    named = {
        path: [set(zip(rows.file, rows.line, strict=True)) for rows in behind_each(path, monkeypatch)] for path in made
    }
    for row in changed_inputs(inputs):
        for path in made:
            table = replay(Path(f"notebooks/{name}.ipynb"), Path(path), parameters)
            table.to_csv("again.csv", index=False, float_format="%.6g")
            now = read_lines("again.csv")
            assert len(now) == len(before[path])
            changed = {i for i, (a, b) in enumerate(zip(before[path], now, strict=True)) if a != b}
            naming = {i for i, rows in enumerate(named[path]) if row in rows}
            assert changed <= naming or Path(path).stem in CHOSEN, (path, row)
            counted = {i for i in naming if not _follows(path, before[path][i], row)}
            assert naming - counted <= changed, (path, row)


def gates_behind_each(path: str, monkeypatch: pytest.MonkeyPatch) -> list[list[Origin]]:
    """Per line, the rows named for the planting gate, heard as they are found."""
    heard: list[list[Origin]] = []

    def listen(*given: Any, **options: Any) -> list[Origin]:
        heard.append(named(*given, **options))
        return heard[-1]

    named = trace.gate_behind
    with monkeypatch.context() as patched:
        patched.setattr(trace, "gate_behind", listen)
        behind(path)
    return heard


def test_a_verdict_of_the_gate_changes_exactly_the_lines_that_name_it(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every seed is planted; then one is not."""
    (name,) = [path.stem for path in Path("notebooks").iterdir()]
    home = {"instruction": "instruction", "language": MAIN}.get(name.split("_")[0], "3-sentiment")
    file = Path(HOME, f"toy/{home}/measurements/all.parquet")
    if not file.exists():
        pytest.skip("the notebook reads no measurements")
    order = [file["path"] for file in read_record(explain(made[0]).jobs[made[0]].record)["inputs"]["inputs"]]
    parameters = parameters_of(name, order)
    before = {path: read_lines(path) for path in made}
    gates = {path: gates_behind_each(path, monkeypatch) for path in made}
    plain = read_parquet(file)
    verdict = plain.index[(plain.experiment == GATE) & (plain.seed == 0)][0]
    write_parquet(file, plain.assign(value=plain.value.where(plain.index != verdict, 0.0)))
    for path in made:
        table = replay(Path(f"notebooks/{name}.ipynb"), Path(path), parameters)
        table.to_csv("again.csv", index=False, float_format="%.6g")
        now = read_lines("again.csv")
        changed = {i for i, line in enumerate(before[path]) if line not in now}
        naming = {i for i, gate in enumerate(gates[path]) if Origin(str(file), int(verdict), "value") in gate}
        assert changed <= naming, path
        assert naming <= changed or Path(path).stem in COUNTS, path


def _follows(path: str, line: dict[str, str], row: tuple[str, int]) -> bool:
    """Whether a line must show any change of a row it names: not where verdicts or looks are only counted."""
    if Path(path).stem in COUNTS or line.get("metric") in OF_COURSES:
        return False
    return "emerged_at" not in line or f"{read_parquet(Path(row[0])).step[row[1]]:g}" == line["step"]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import os\nwrite_table(os.system('x'), tables, 'made', '')", "makes made with `os.system('x')`"),
        ("from os import system\nwrite_table(system('x'), tables, 'made', '')", "makes made with `system('x')`"),
        ("table = eval('1')\nwrite_table(table, tables, 'made', '')", "makes made with `eval('1')`"),
        ("write_table(table, tables, 'other', '')", "does not write made in a way that is understood"),
    ],
)
def test_only_functions_of_the_report_are_called(source: str, problem: str, tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(notebook, tmp_path / "one.ipynb")
    with pytest.raises(CannotTell, match=r"one\.ipynb") as caught:
        replay(tmp_path / "one.ipynb", Path("results/toy/tables/made.csv"), {})
    assert problem in str(caught.value)
