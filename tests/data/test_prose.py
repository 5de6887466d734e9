"""Prose: plain sentences of the documentation, in a fixed order, with what they were taken from."""

import platform
import re
from importlib.metadata import version
from pathlib import Path

import pytest

from anatomy.data import prose as module
from anatomy.data.prose import docstrings, prose, sentences
from anatomy.provenance.digest import ArtifactError

DOCUMENT = """
Compute the value of a
well-known function. It uses :func:`~numpy.linalg.norm` and *fast* ``sums`` inside [1]_. Too short.

Parameters
----------
x : array_like
    The values that are to be summed. This one has a call like f(x) in it.
axis : int, optional
    lower case starts no sentence here at all.

Returns
-------
    >>> f(x)
    The output of the example is a number.

=====  ==================
Name   What the name means
=====  ==================

This sentence has no full stop in the end

Does anybody ask a question here? A value of 1.5 is no plain number to us.
See the other page::

    Total = sum(values)
    return Total
"""


def test_plain_sentences_are_kept_and_everything_else_is_dropped() -> None:
    assert sentences(DOCUMENT) == [
        "Compute the value of a well-known function.",
        "It uses norm and fast sums inside.",
    ]


def test_long_sentences_are_dropped() -> None:
    assert sentences(" ".join(["A", *["word"] * 28, "end."])) != []
    assert sentences(" ".join(["A", *["word"] * 29, "end."])) == []


def test_docstrings_come_from_top_to_bottom_without_the_code_being_run(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text(
        '"""One."""\nraise SystemExit("run")\nclass A:\n    """Two."""\n    def f(self):\n        """Three."""\n'
        '        "no docstring"\nasync def g():\n    """Four \\d."""\nx = """no docstring"""\n',
        encoding="utf-8",
    )
    assert list(docstrings(path)) == ["One.", "Two.", "Three.", "Four \\d."]
    path.write_text('"""One."""\nprint "an old Python"\n', encoding="utf-8")
    assert list(docstrings(path)) == []


def test_python_and_its_packages_give_paragraphs_of_five() -> None:
    paragraphs, versions = prose(["numpy"])
    assert versions == {"python": platform.python_version(), "numpy": version("numpy")}
    assert len(paragraphs) > 300
    every = [sentence for own in paragraphs for sentence in own]
    assert {len(own) for own in paragraphs} == {5}
    assert len(every) == len(set(every))
    for sentence in every:
        assert sentence.isascii()
        assert 4 <= len(sentence.split()) <= 30
        assert re.fullmatch(r"[A-Z][^.`*_=<>{}\[\]()\"|]*\.", sentence)
    assert prose(["numpy"])[0] == paragraphs
    alone, of_python = prose([])
    assert alone == paragraphs[: len(alone)]
    assert list(of_python) == ["python"]
    assert {len(own) for own in prose([], length=3)[0]} == {3}


def test_a_package_that_is_not_there_is_refused_by_its_text() -> None:
    with pytest.raises(ArtifactError) as caught:
        prose(["no-such-package"])
    assert str(caught.value) == "package 'no-such-package' is not installed; its docstrings were to be read as prose"


def test_a_python_without_its_help_topics_is_refused_by_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ArtifactError, match=r"Python's help topics \(pydoc_data\.topics\) are not installed"):
        prose([])
