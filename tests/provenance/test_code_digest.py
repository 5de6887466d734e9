"""The code digest follows every import and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from anatomy.provenance.code import closure, code_digest, notebook_digest
from anatomy.provenance.digest import ArtifactError

Build = Callable[[dict[str, str]], Path]

HELPER = '''"""Words."""


def count(text: str) -> int:
    """How many."""
    return len(text.split(" "))  # by spaces
'''
SOURCES = {
    "__init__.py": "",
    "helper.py": HELPER,
    "middle/__init__.py": '"""Middle."""\n',
    "middle/inner.py": "from ..helper import count\n",
    "alone.py": "X = 1\n",
    "stages/__init__.py": "",
    "stages/one.py": "def main():\n    from anatomy.middle.inner import count\n    return count('a b')\n",
    "stages/two.py": "import anatomy.alone\n",
}
ONE = "anatomy.stages.one"
TWO = "anatomy.stages.two"


def notebook(*sources: str) -> str:
    cells = [{"cell_type": "code", "source": source, "outputs": [], "metadata": {}} for source in sources]
    return json.dumps({"cells": [{"cell_type": "markdown", "source": ["# Title"]}, *cells], "nbformat": 4})


def test_closure_follows_indirect_relative_and_inner_imports(package: Build) -> None:
    root = package(SOURCES)
    assert closure(ONE, root=root) == [
        "anatomy",
        "anatomy.helper",
        "anatomy.middle",
        "anatomy.middle.inner",
        "anatomy.stages",
        "anatomy.stages.one",
    ]


@pytest.mark.parametrize(
    "edited",
    [
        HELPER.replace("# by spaces", "# by blanks, mind the tabs"),
        HELPER.replace("How many.", "How many words there are."),
        HELPER.replace('    """How many."""\n', ""),
        HELPER.replace('text.split(" ")', "(\n        text.split(' ')\n    )"),
        HELPER + "\nif TYPE_CHECKING:\n    import anatomy.alone\n",
        HELPER + '\n"""A note after the function."""\npass\n',
    ],
    ids=["comment", "docstring", "no docstring", "formatting", "type checking", "idle statements"],
)
def test_edits_that_change_nothing_keep_the_digest(package: Build, edited: str) -> None:
    before = code_digest(ONE, root=package(SOURCES))
    assert edited != HELPER
    assert code_digest(ONE, root=package(SOURCES | {"helper.py": edited})) == before


@pytest.mark.parametrize(
    "edited",
    [
        HELPER.replace('" "', '"  "'),
        HELPER.replace("len(", "bool("),
        HELPER.replace("text: str", "text: bytes"),
        HELPER + "\nimport os\n",
        HELPER.replace("-> int", ""),
        HELPER + "\nNUMBER = 1\n",
    ],
    ids=["literal", "call", "annotation", "outside import", "return type", "new name"],
)
def test_a_real_edit_changes_exactly_the_modules_that_import_it(package: Build, edited: str) -> None:
    root = package(SOURCES)
    before = {module: code_digest(module, root=root) for module in (ONE, TWO)}
    package({"helper.py": edited})
    assert code_digest(ONE, root=root) != before[ONE]
    assert code_digest(TWO, root=root) == before[TWO]


def test_values_that_print_alike_differ(package: Build) -> None:
    values = [
        "1",
        "1.0",
        "True",
        "'1'",
        "b'1'",
        "None",
        "...",
        "-1",
        "(1,)",
        "[1]",
        "{1}",
        "'N', 'one'",
        "1j",
    ]
    digests = {code_digest("anatomy.alone", root=package({"__init__.py": "", "alone.py": f"X = {v}"})) for v in values}
    assert len(digests) == len(values)


def test_init_files_on_the_way_count(package: Build) -> None:
    before = code_digest(ONE, root=package(SOURCES))
    assert code_digest(ONE, root=package({"middle/__init__.py": "STATE = {}\n"})) != before


def test_a_moved_module_counts_even_with_the_same_text(package: Build) -> None:
    root = package(SOURCES | {"copy.py": SOURCES["alone.py"]})
    before = code_digest(TWO, root=root)
    package({"stages/two.py": "import anatomy.copy\n"})
    assert code_digest(TWO, root=root) != before


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("import anatomy.alone as a", "anatomy.alone"),
        ("from anatomy import alone", "anatomy.alone"),
        ("from anatomy.middle import *", "anatomy.middle.inner"),
        ("from .. import alone", "anatomy.alone"),
        ("from ..middle import inner", "anatomy.middle.inner"),
        ("from . import two", "anatomy.stages.two"),
        ("MODELS = {'a': 'anatomy.alone'}\nimport_module(MODELS['a'])", "anatomy.alone"),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import anatomy.alone", "anatomy.alone"),
        ("try:\n    import anatomy.alone\nexcept ImportError:\n    pass", "anatomy.alone"),
    ],
)
def test_every_form_of_import_is_followed(package: Build, source: str, wanted: str) -> None:
    root = package(SOURCES | {"stages/three.py": source})
    assert wanted in closure("anatomy.stages.three", root=root)


def test_type_checking_imports_are_not_followed(package: Build) -> None:
    source = "import typing\nif typing.TYPE_CHECKING:\n    import anatomy.alone\n"
    assert "anatomy.alone" not in closure("anatomy.stages.three", root=package(SOURCES | {"stages/three.py": source}))


def test_imports_in_a_ring_end(package: Build) -> None:
    root = package({"__init__.py": "", "a.py": "import anatomy.b", "b.py": "import anatomy.a"})
    assert closure("anatomy.a", root=root) == ["anatomy", "anatomy.a", "anatomy.b"]


def test_an_unknown_module_names_the_nearest(package: Build) -> None:
    with pytest.raises(
        ArtifactError, match=r"no module anatomy\.stages\.onne in .* Did you mean anatomy\.stages\.one\?"
    ):
        code_digest("anatomy.stages.onne", root=package(SOURCES))


def test_broken_python_names_file_and_line(package: Build) -> None:
    with pytest.raises(ArtifactError, match=r"helper\.py:2: not valid Python"):
        code_digest(ONE, root=package(SOURCES | {"helper.py": "x = 1\nx = = 2\n"}))


def test_a_stage_that_writes_a_record_does_not_depend_on_the_audit() -> None:
    modules = closure("anatomy.provenance.record")
    assert "anatomy.provenance.digest" in modules
    assert not {"anatomy.provenance.audit", "anatomy.provenance.explain"} & set(modules)


def test_notebook_follows_its_imports_and_ignores_outputs(package: Build, tmp_path: Path) -> None:
    root, path = package(SOURCES), tmp_path / "table.ipynb"
    path.write_text(notebook("seed = 1", "from anatomy.middle import inner\ninner.count('a')"))
    before = notebook_digest(path, root=root)
    shown = json.loads(path.read_text())
    shown["cells"][1]["outputs"] = [{"text": "1"}]
    shown["cells"][0]["source"] = ["# Another title"]
    shown["cells"].append({"cell_type": "code", "source": ["# nothing yet\n"], "outputs": []})
    path.write_text(json.dumps(shown))
    assert notebook_digest(path, root=root) == before
    package({"alone.py": "X = 2\n"})
    assert notebook_digest(path, root=root) == before
    package({"helper.py": HELPER.replace('" "', '"-"')})
    changed = notebook_digest(path, root=root)
    assert changed != before
    path.write_text(notebook("seed = 2", "from anatomy.middle import inner\ninner.count('a')"))
    assert notebook_digest(path, root=root) != changed


@pytest.mark.parametrize("magic", ["%matplotlib inline", "!ls", "x = !ls", "a = 1\n%time a"])
def test_a_notebook_magic_is_refused(package: Build, tmp_path: Path, magic: str) -> None:
    path = tmp_path / "table.ipynb"
    path.write_text(notebook("ok = 1 % 2", magic))
    with pytest.raises(ArtifactError, match=r"table\.ipynb, cell 3: .* is a notebook magic, not Python"):
        notebook_digest(path, root=package(SOURCES))


def test_a_broken_notebook_is_named(package: Build, tmp_path: Path) -> None:
    path, root = tmp_path / "table.ipynb", package(SOURCES)
    path.write_text(notebook("x = = 1"))
    with pytest.raises(ArtifactError, match=r"cell 2: not valid Python \(invalid syntax: 'x = = 1'\)"):
        notebook_digest(path, root=root)
    path.write_text("{}")
    with pytest.raises(ArtifactError, match=r"table\.ipynb is not a notebook"):
        notebook_digest(path, root=root)
