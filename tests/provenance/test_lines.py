"""One cell, row or claim of a CSV is found by its names, commas and all; a wrong name is told with the nearest."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from anatomy.provenance.digest import ArtifactError
from anatomy.provenance.lines import pick, print_lines, read_lines, split_target

from .studies import write

HEADER = "subject,row,column,metric,variant,control,measured,ci_low,ci_high,n,published,verdict\n"
TABLE = HEADER + (
    "s,p+t,0.60,rate,paper,,0.5,0.25,0.75,3,0.4,agrees\ns,p+t,0.60,rate,original,,0.7,,,1,,\n"
    's,p+t,"(1.0, 1.0)",rate,paper,,0.1,0,1,3,,\ns,"all, but one",mlp 1,rate,,,0.2,0,1,3,,\n'
    's,"a,b",c,rate,,,1,,,1,,\ns,a,"b,c",rate,,,2,,,1,,\ns,full,,rate,,,0.9,0,1,3,,\n'
)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A table in the working directory whose names hold commas, spaces and brackets."""
    monkeypatch.chdir(tmp_path)
    return write("t.csv", TABLE).as_posix()


def measured(path: str, wanted: str) -> list[str]:
    return [line["measured"] for line in pick(path, wanted).lines]


@pytest.mark.parametrize(
    ("wanted", "values"),
    [
        ("p+t,0.60", ["0.5", "0.7"]),  # every reading of the cell
        ("p+t, 0.60", ["0.5", "0.7"]),
        ("p+t,(1.0, 1.0)", ["0.1"]),
        ("all, but one,mlp 1", ["0.2"]),
        ("a,b,c", ["1", "2"]),  # two cells of that spelling: both
        ("full,", ["0.9"]),
        ("full", ["0.9"]),
        ("p+t", ["0.5", "0.7", "0.1"]),
        ("all, but one", ["0.2"]),  # a row alone may hold commas too
        ("#4", ["0.2"]),
    ],
)
def test_a_cell_is_found_by_its_names(table: str, wanted: str, values: list[str]) -> None:
    assert measured(table, wanted) == values


def test_every_cell_of_a_table_can_be_asked_for(table: str) -> None:
    for line in read_lines(table):
        assert line in pick(table, f"{line['row']},{line['column']}").lines
    assert pick(table, "p+t,0.60").numbers == (1, 2)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("p+t,0.61", "t.csv has no cell 'p+t,0.61': its row 'p+t' has no column '0.61'. Nearest: '0.60'"),
        ("p+x,0.60", "its column '0.60' has no row 'p+x'. Nearest: 'p+t'. The rows are: 'p+t'."),
        ("ful", "t.csv has no cell 'ful'. Nearest: 'full'. The rows are: 'p+t'; 'all, but one'; 'a,b'; 'a'; 'full'."),
        ("x,y", "The columns are: '0.60'; '(1.0, 1.0)'; 'mlp 1'; 'c'; 'b,c'; ''."),
        ("#8", "t.csv has no row #8: the rows are #1 to #7"),
        ("#0", "t.csv has no row #0"),
    ],
)
def test_a_name_that_is_not_there(table: str, wanted: str, message: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        pick(table, wanted)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_cell_of_other_rows_is_not_given(table: str) -> None:
    with pytest.raises(ArtifactError, match=r"its row 'full' has no column '0.60'"):
        pick(table, "full,0.60")


def test_claims_are_asked_for_by_id_and_other_data_by_number(table: str) -> None:
    write("claims.csv", "id,says,measured\nplanted-2,It is planted.,0.5\nplanted-3,It is.,0.6\n")
    assert [line["says"] for line in pick("claims.csv", "planted-2").lines] == ["It is planted."]
    with pytest.raises(ArtifactError, match=r"no line with the id 'planted-4'. Nearest: 'planted-"):
        pick("claims.csv", "planted-4")
    write("figure.csv", "x,y\n1,2\n3,4\n")
    assert pick("figure.csv", "#2").lines == ({"x": "3", "y": "4"},)
    with pytest.raises(ArtifactError, match="has no named rows: ask for one by its number, #1 to #2"):
        pick("figure.csv", "3")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.parquet", "x", "m.parquet: only a CSV has rows to ask for; ask for the whole file"),
        ("short.csv", "row,column\na\n", "short.csv, row 1: 1 values, and the header names 2"),
        ("bytes.csv", b"row\n\xff\n", "bytes.csv: cannot be read as CSV"),
        ("empty.csv", "", "empty.csv has no rows"),
    ],
)
def test_files_without_lines(table: str, name: str, text: str | bytes, message: str) -> None:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ArtifactError, match=message):
        pick(name, "a")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("t.csv", ("t.csv", None)),
        ("t.csv:p+t,0.60", ("t.csv", "p+t,0.60")),
        ("t.csv:a:b", ("t.csv", "a:b")),
        ("odd:name.csv", ("odd:name.csv", None)),
        ("odd:name.csv:x", ("odd:name.csv", "x")),
        ("gone.csv:x", ("gone.csv", "x")),
        ("gone:1", ("gone:1", None)),
    ],
)
def test_where_the_name_of_the_file_ends(table: str, text: str, parts: tuple[str, str | None]) -> None:
    write("odd:name.csv", "x\n")
    assert split_target(text) == parts


def test_what_is_printed(table: str) -> None:
    console = Console(file=io.StringIO(), width=160)
    print_lines(pick(table, "p+t,0.60"), console)
    print_lines(pick(table, "full"), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.startswith("t.csv: p+t,0.60\n")
    for value in ("0.5 [0.25, 0.75]", "paper", "original", "agrees", "0.9 [0, 1]"):
        assert value in text
    assert "0.7 [" not in text  # a line without an interval
