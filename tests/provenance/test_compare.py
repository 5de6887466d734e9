"""What moved between two runs, and only the differences on its way are named as causes."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from anatomy.provenance.compare import Comparison, Result, compare
from anatomy.provenance.compare_report import comparison_json, print_comparison
from anatomy.provenance.digest import ArtifactError, sha256_json

from .studies import LOCK, finish_job, gather, write

WORDS = "data/words.txt"
HEADER = "row,column,metric,measured,ci_low,ci_high,n,verdict\n"
# Job -> its inputs. Two arms, x and y, that share the corpus; each ends in a table. The claim reads both.
JOBS = {
    "make_corpus": [WORDS],
    "train_x": ["make_corpus"],
    "train_y": ["make_corpus"],
    "render_x": ["train_x"],
    "render_y": ["train_y"],
    "judge": ["train_x", "train_y"],
}
TABLES = {"render_x": "tables/x.csv", "render_y": "tables/y.csv", "judge": "claims.csv"}
PLAIN = {"rate": 1, "toy": {"width": 64}}
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Run a pretended study in a checkout of its own; what a job makes follows from all that it is given."""

    def run(checkout: str, *, study: str = "toy", words: str = "good\n", wide: float = 0.001, **changed: Any) -> Path:
        """`job={key: value}` changes parameters, `code={job: digest}` code, `chance={job: 1}` what nobody recorded."""
        root = tmp_path / checkout
        root.mkdir(exist_ok=True)
        monkeypatch.chdir(root)
        write(WORDS, words)
        for job, inputs in JOBS.items():
            spec = {**PLAIN, **changed.get(job, {})}
            code = changed.get("code", {}).get(job, "c" * 64)
            paths = [f"results/{study}/{made(name)}" if name in JOBS else name for name in inputs]
            chance = changed.get("chance", {}).get(job)
            number = int(sha256_json([job, spec, code, chance, [Path(p).read_text() for p in paths]])[:4], 16) / 65536
            write(f"results/{study}/{made(job)}", text(job, number, wide))
            finish_job(
                *(f"results/{study}/records/{job}.run.json", job, paths, [f"results/{study}/{made(job)}"]),
                **{"spec": spec, "code": code, "study": study, "lock": changed.get("lock", LOCK)},
            )
        gather(study)
        monkeypatch.chdir(tmp_path)
        return root / "results" / study

    return run


def made(job: str) -> str:
    return TABLES.get(job, f"measurements/{job}.txt")


def text(job: str, number: float, wide: float) -> str:
    low, high = number - wide, number + wide
    if job == "judge":
        return (
            f"id,measured,ci_low,ci_high,n,verdict\nclaim,{number},{low},{high},3,{'yes' if number > 0.5 else 'no'}\n"
        )
    if job in TABLES:
        return f"{HEADER}p+t,mlp,share,{number},{low},{high},3,agrees\nstays,mlp,share,0.5,,,3,agrees\n"
    return str(number)


def beside(a: Path, b: Path) -> Comparison:
    return compare(str(a), str(b))


def causes(comparison: Comparison) -> dict[str, set[tuple[str, str]]]:
    """Table -> kinds and names of its causes, of the tables where something moved."""
    return {
        result.name: {(cause.difference.kind, cause.difference.name) for cause in result.causes}
        for result in comparison.results
        if result.changes
    }


def result(comparison: Comparison, name: str) -> Result:
    return next(one for one in comparison.results if one.name == name)


def shown(comparison: Comparison) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_comparison(comparison, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_equal_runs(make: Make) -> None:
    comparison = beside(make("one"), make("two"))
    assert comparison.equal and causes(comparison) == {} and comparison.causes == ()
    assert [r.name for r in comparison.results] == ["claims.csv", "tables/x.csv", "tables/y.csv"]
    assert not any(r.touched or r.unexplained for r in comparison.results)
    text = shown(comparison)
    assert text.startswith("equal: every line of the tables, figures and claims is the same (5 lines, 3 files)")
    assert "No job differs" in text


def test_runs_of_two_names_are_compared_by_what_they_hold(make: Make) -> None:
    assert beside(make("one"), make("one", study="other")).equal


def test_a_run_that_was_copied_elsewhere(make: Make, tmp_path: Path) -> None:
    first = make("one")
    shutil.copytree(first, tmp_path / "copy")
    assert beside(first, tmp_path / "copy").equal


@pytest.mark.parametrize(
    ("job", "tables"),
    [
        ("make_corpus", {"tables/x.csv", "tables/y.csv", "claims.csv"}),
        ("train_x", {"tables/x.csv", "claims.csv"}),
        ("train_y", {"tables/y.csv", "claims.csv"}),
        ("render_y", {"tables/y.csv"}),
        ("judge", {"claims.csv"}),
    ],
)
def test_a_changed_key_is_the_cause_of_what_is_below_it_alone(make: Make, job: str, tables: set[str]) -> None:
    comparison = beside(make("one"), make("two", **{job: {"toy": {"width": 65}}}))
    assert causes(comparison) == {name: {("parameter", "toy.width")} for name in tables}
    (cause,) = comparison.causes
    assert (cause.difference.a, cause.difference.b, cause.jobs) == ("64", "65", (job,))


def test_two_changes_stay_apart(make: Make) -> None:
    comparison = beside(make("one"), make("two", train_x={"rate": 2}, code={"train_y": "d" * 64}))
    x, y = {("parameter", "rate")}, {("code", "code")}
    assert causes(comparison) == {"tables/x.csv": x, "tables/y.csv": y, "claims.csv": x | y}


def test_a_key_that_came_and_one_that_went(make: Make) -> None:
    comparison = beside(make("one"), make("two", train_x={"toy": {}, "new": [1, 2]}))
    differences = {(c.difference.name, c.difference.a, c.difference.b) for c in comparison.causes}
    assert differences == {("toy.width", "64", None), ("toy", None, "{}"), ("new", None, "[1, 2]")}


def test_another_word_list(make: Make) -> None:
    assert causes(beside(make("one"), make("two", words="fine\n"))) == {
        name: {("raw input", WORDS)} for name in ("tables/x.csv", "tables/y.csv", "claims.csv")
    }


def test_a_difference_without_an_effect_explains_nothing(make: Make) -> None:
    """The lock of every job differs, but the only bytes that moved are those below the changed key."""
    comparison = beside(make("one"), make("two", lock="f" * 64, train_x={"rate": 2}))
    lock = ("environment lock", "lock")
    assert causes(comparison) == {name: {lock, ("parameter", "rate")} for name in ("tables/x.csv", "claims.csv")}
    (of_lock,) = [c for c in result(comparison, "tables/x.csv").causes if c.difference.kind == "environment lock"]
    assert of_lock.jobs == ("render_x", "train_x")  # not make_corpus: it wrote the same bytes
    equal = beside(make("three"), make("four", lock="f" * 64))
    assert equal.equal and [cause.difference.kind for cause in equal.causes] == ["environment lock"]


def test_package_machine_and_seeds(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make("one"), make("two", train_x={"rate": 2})
    record = second / "records/train_x.run.json"
    value = json.loads(record.read_text())
    value["environment"]["packages"]["torch"] = "9.9"
    record.write_text(json.dumps(value | {"threads": 7, "seeds": {"torch": 8}}))
    monkeypatch.chdir(second.parents[1])
    gather()
    comparison = beside(first, second)
    expected = {("parameter", "rate"), ("package", "torch"), ("machine", "threads"), ("seeds", "seeds.torch")}
    assert causes(comparison) == dict.fromkeys(("tables/x.csv", "claims.csv"), expected)


def test_a_job_that_only_one_run_has(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make("one"), make("two")
    for name in ("tables/y.csv", "records/render_y.run.json"):
        (second / name).unlink()
    monkeypatch.chdir(second.parents[1])
    gather()
    comparison = beside(first, second)
    assert causes(comparison) == {"tables/y.csv": {("job", "render_y")}}
    assert [(change.b, change.beyond) for change in result(comparison, "tables/y.csv").changes] == [(None, True)] * 2
    assert "only in one run" in shown(comparison) and "run in A, not there in B" in shown(comparison)


def test_a_cell_edited_by_hand_moved_without_a_cause(make: Make) -> None:
    first, second = make("one"), make("two")
    table = second / "tables/x.csv"
    write(table, table.read_text().replace("stays,mlp,share,0.5", "stays,mlp,share,0.6"))
    comparison = beside(first, second)
    assert causes(comparison) == {"tables/x.csv": set()}
    edited = result(comparison, "tables/x.csv")
    assert [(dict(c.key)["row"], c.fields, c.beyond) for c in edited.changes] == [("stays", ("measured",), True)]
    assert edited.touched == ("tables/x.csv of run B is not as recorded (edited?)",)
    assert "moved without a cause: no job on its way differs; were the results edited?" in shown(comparison)


def test_an_edited_cell_does_not_hide_behind_a_change(make: Make) -> None:
    first, second = make("one"), make("two", train_x={"rate": 2})
    table = second / "tables/x.csv"
    write(table, table.read_text() + "new,mlp,share,1,,,3,\n")
    assert result(beside(first, second), "tables/x.csv").touched == (
        "tables/x.csv of run B is not as recorded (edited?)",
    )


def test_an_edited_record_is_told(make: Make) -> None:
    first, second = make("one"), make("two", train_x={"rate": 2})
    record = second / "records/train_x.run.json"
    record.write_text(record.read_text().replace('"rate": 2', '"rate": 1'))
    touched = result(beside(first, second), "tables/x.csv").touched
    assert touched == ("records/train_x.run.json of run B is not as recorded (edited?)",)


def test_a_missing_table(make: Make) -> None:
    first, second = make("one"), make("two")
    (first / "tables/x.csv").unlink()
    gone = result(beside(first, second), "tables/x.csv")
    assert len(gone.changes) == 2 and gone.touched == ("tables/x.csv of run A is not as recorded (no such file)",)


@pytest.mark.parametrize(
    ("job", "file", "tables"),
    [
        ("render_y", "tables/y.csv", {"tables/y.csv"}),
        ("make_corpus", "measurements/make_corpus.txt", {"tables/x.csv", "tables/y.csv", "claims.csv"}),
    ],
)
def test_the_same_job_that_gave_other_bytes(make: Make, job: str, file: str, tables: set[str]) -> None:
    """A job that is not deterministic is named as such, and no other difference is made up for it."""
    comparison = beside(make("one"), make("two", chance={job: 1}))
    assert causes(comparison) == {name: set() for name in tables}
    for name in tables:  # named once, though several ways lead to it
        assert result(comparison, name).unexplained == (file,)
    assert f"{file}: the same code, parameters and inputs gave other bytes" in shown(comparison)


@pytest.mark.parametrize(("wide", "beyond"), [(2.0, False), (0.0, True)])
def test_beyond_the_intervals(make: Make, wide: float, beyond: bool) -> None:
    changed = {"render_x": {"rate": 2}}
    (change,) = result(beside(make("one", wide=wide), make("two", wide=wide, **changed)), "tables/x.csv").changes
    assert change.beyond is beyond and {"measured", "ci_low", "ci_high"} == set(change.fields)


def test_a_verdict_alone(make: Make) -> None:
    first, second = make("one"), make("two")
    for run, word in ((first, "yes"), (second, "no")):
        write(run / "claims.csv", f"id,measured,ci_low,ci_high,n,verdict\nclaim,0.1,0,1,3,{word}\n")
    claims = result(beside(first, second), "claims.csv")
    assert (claims.verdicts, claims.beyond, [c.fields for c in claims.changes]) == (1, 0, [("verdict",)])


def test_a_name_that_stands_twice_is_compared_twice(make: Make) -> None:
    first, second = make("one"), make("two")
    for run, last in ((first, "2"), (second, "3")):
        write(run / "tables/x.csv", f"{HEADER}a,b,share,1,,,1,\na,b,share,{last},,,1,\n")
    (change,) = result(beside(first, second), "tables/x.csv").changes
    assert dict(change.key)["occurrence"] == "2"


def test_the_data_of_figures_are_compared(make: Make) -> None:
    """A mean with its interval, a single seed's point, a look of a course, a point in the plane: each by its names."""
    first, second = make("one"), make("two")
    dots = "subject,row,column,metric,variant,control,seed,measured,ci_low,ci_high,n,published,verdict\n"
    old = {
        "dots": f"{dots}s,p+t,a,m,,,,0.5,0.4,0.6,3,,\ns,p+t,a,m,,,0,0.5,,,,,\ns,p+t,a,m,,,1,0.5,,,,,\n",
        "course": "subject,frozen,seed,step,negativity\ns,none,0,100,0.1\ns,none,0,200,0.2\n",
        "plane": "inputs,index,x,y,subject,model,seed,layer\np+t,0,1,2,s,clean,0,1\np+t,1,3,4,s,clean,0,1\n",
        "panels": "panel,subject,seed,x,metric,measured\nend,s,0,0.5,m,1\nend,s,0,1,m,2\n",
    }
    edits = {
        "dots": ("0.5,0.4,0.6", "0.9,0.8,1"),
        "course": ("200,0.2", "200,0.3"),
        "plane": ("1,3,4", "1,3,5"),
        "panels": ("1,m,2", "1,m,3"),
    }
    for run in (first, second):
        for name, text in old.items():
            edited = text.replace(*edits[name]) if run == second else text
            write(run / f"figures/{name}.csv", edited.replace("m,,,1,0.5", "m,,,1,0.7") if run == second else edited)
            manifest = run / "manifest.jsonl"
            header, *lines = [json.loads(line) for line in manifest.read_text().splitlines()]
            line = next(one for one in lines if one["path"].endswith("tables/x.csv"))
            added = {**line, "path": f"results/toy/figures/{name}.csv"}
            every = sorted([*lines, added], key=lambda one: one["path"])
            texts = [json.dumps(one) for one in [{**header, "artifacts": len(every)}, *every]]
            write(manifest, "\n".join(texts) + "\n")
    moved = {
        (r.name, *(dict(c.key).get(k) for k in ("seed", "step", "index", "x"))): (c.fields, c.beyond)
        for r in beside(first, second).results
        for c in r.changes
    }
    assert moved == {
        ("figures/dots.csv", "", None, None, None): (("measured", "ci_low", "ci_high"), True),
        ("figures/dots.csv", "1", None, None, None): (("measured",), False),
        ("figures/course.csv", "0", "200", None, None): (("negativity",), False),
        ("figures/plane.csv", "0", None, "1", None): (("y",), False),
        ("figures/panels.csv", "0", None, None, "1"): (("measured",), False),
    }
    assert "one seed" in shown(beside(first, second))


def test_what_is_printed_and_the_json(make: Make) -> None:
    comparison = beside(make("one"), make("two", train_x={"rate": "[red]2[/red]"}))
    printed = shown(comparison)
    assert printed.startswith("moved: 2 of 5 lines in 2 of 3 files (tables, figures and claims); ")
    assert 'because of parameter rate: 1 in A, "[red]2[/red]" in B' in printed
    assert "tables/y.csv" not in printed
    value = json.loads(comparison_json(comparison))
    assert value["equal"] is False and value["b"]["study"] == "toy"
    (x,) = [r for r in value["results"] if r["name"] == "tables/x.csv"]
    assert [c["difference"]["name"] for c in x["causes"]] == ["rate"] and x["causes"][0]["jobs"] == ["train_x"]
    assert x["changes"][0]["a"]["measured"] != x["changes"][0]["b"]["measured"]


def test_mistakes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make("one")
    monkeypatch.chdir(first.parents[1])
    with pytest.raises(ArtifactError, match=r"tox: no study under results/, and no such folder. .*compared: toy"):
        compare("toy", "tox")
    with pytest.raises(ArtifactError, match=r"data/manifest.jsonl cannot be read \(No such file or directory\)"):
        compare("toy", "data")
    (first / "records/judge.run.json").unlink()
    with pytest.raises(ArtifactError, match=r"judge.run.json: the run record cannot be read: No such file"):
        compare("toy", "toy")
