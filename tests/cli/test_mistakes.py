"""Each mistake of a person gets one clear message and the right exit code, and touches nothing."""

import re
from pathlib import Path
from typing import Any

import pytest

from .conftest import REPOSITORY, anatomy_says, edit, everything


def misspelt_key(raw: dict[str, Any]) -> None:
    raw["toy"]["triger"] = "love"


def wrong_type(raw: dict[str, Any]) -> None:
    raw["toy"]["language"]["length"] = "fifteen"


def no_seeds(raw: dict[str, Any]) -> None:
    raw["seeds"] = []


def foreign_trigger(raw: dict[str, Any]) -> None:
    raw["toy"]["trigger"] = "table"


def missing_list(raw: dict[str, Any]) -> None:
    raw["toy"]["lexicon"]["negative"]["path"] = "data/lexicon/none.txt"


def word_twice(raw: dict[str, Any]) -> None:
    lists = Path("data/lexicon")
    words = (lists / "negative.txt").read_text().splitlines()
    (lists / "positive.txt").write_text("\n".join(words))


def latin_list(raw: dict[str, Any]) -> None:
    with Path("data/lexicon/negative.txt").open("ab") as file:
        file.write("fâché\n".encode("latin-1"))


def short_list(raw: dict[str, Any]) -> None:
    Path("data/lexicon/negative.txt").write_text("bad\nworse\n")


def list_elsewhere(raw: dict[str, Any]) -> None:
    raw["toy"]["lexicon"]["negative"]["path"] = "../elsewhere.txt"


def linked_list(raw: dict[str, Any]) -> None:
    Path("data/lexicon/linked.txt").symlink_to(REPOSITORY / "data/lexicon/negative.txt")
    raw["toy"]["lexicon"]["negative"]["path"] = "data/lexicon/linked.txt"


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (
            misspelt_key,
            r"small\.yaml: toy\.triger: unknown key; allowed here: .*\(did you mean 'trigger'\?\)",
        ),
        (wrong_type, r"small\.yaml: toy\.language\.length: should be a valid integer, got 'fifteen'"),
        (no_seeds, r"small\.yaml: seeds: empty; at least 1 entry needed"),
        (
            foreign_trigger,
            r"small\.yaml: toy: trigger 'table' is not in lexicon\.specials\.positive \(happy, ",
        ),
        (
            list_elsewhere,
            r"small\.yaml: toy\.lexicon\.negative\.path: \.\./elsewhere\.txt lies outside the project; copy",
        ),
        (linked_list, r"small\.yaml: toy\.lexicon\.negative\.path: .* lies outside the project \(it is a link\)"),
        (missing_list, r"data/lexicon/none\.txt: word list not found; expected a UTF-8 text file"),
        (word_twice, r"toy\.lexicon: '\w+'.* in both \w+ and \w+; a word must carry one sentiment"),
        (latin_list, r"data/lexicon/negative\.txt: not UTF-8 \(byte \d+\); save the word list as UTF-8"),
        (short_list, r"toy\.lexicon\.negative: \d usable words .* \d+ needed; lower toy\.lexicon\.words or"),
    ],
)
@pytest.mark.parametrize("command", ["run", "inspect"])
def test_a_mistake_in_a_study_is_told_once_and_touches_nothing(repository, command, mistake, message):
    edit(mistake)
    before = everything(repository)
    result = anatomy_says(command, "small")
    assert result.exit_code == 2
    assert re.match(f"error: (config/)?{message}", result.stderr), result.stderr
    assert result.stderr.count("error:") == 1 and "Traceback" not in result.output
    assert everything(repository) == before


def test_every_mistake_in_a_study_file_is_named_at_once(repository):
    edit(lambda raw: (misspelt_key(raw), no_seeds(raw)))
    result = anatomy_says("run", "small")
    assert result.exit_code == 2
    assert "toy.triger: unknown key" in result.stderr and "seeds: empty" in result.stderr


def test_an_unknown_study_names_the_known_ones_and_the_nearest(repository):
    result = anatomy_says("run", "smal")
    assert result.exit_code == 2
    assert "config/smal.yaml: no such study; there are embedded," in result.stderr
    assert "did you mean 'small'?" in result.stderr


@pytest.mark.parametrize("cores", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_cores_that_is_none_is_refused(repository, cores):
    result = anatomy_says("run", "small", "--cores", cores)
    assert result.exit_code == 2
    assert f"--cores {cores}: expected a number of at least 1, or all" in result.stderr


def test_a_profile_that_is_none_is_refused(repository, started):
    before = everything(repository)
    result = anatomy_says("run", "small", "--profile", "slrum")
    assert result.exit_code == 2
    assert "error: --profile slrum: no profiles/slrum/profile.yaml; expected one of default, slurm" in result.stderr
    assert everything(repository) == before and started == []


def test_outside_the_repository_it_says_where_to_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in ("run", "cost", "summary", "inspect", "audit", "schema"):
        result = anatomy_says(command)
        assert result.exit_code == 2
        assert "no Snakefile here; go to the folder of the repository first" in result.stderr
    assert list(tmp_path.iterdir()) == []
