"""Real English that every installation has: Python's own documentation and the docstrings of installed packages.

Nothing is imported: the sources are parsed and their strings read. Only plain sentences are kept, so that code, tables,
lists and markup fall away. The text depends on the versions of Python and of the packages, which are returned with it.
"""

import ast
import importlib.util
import inspect
import platform
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from itertools import groupby
from pathlib import Path

from anatomy.data.templates import one_line
from anatomy.provenance.digest import ArtifactError

PACKAGES = ("matplotlib", "numpy", "pandas", "scikit-learn", "scipy")
NOT_PROSE = {"tests", "test", "testing", "externals", "_vendor", "_external"}  # folders: tests, and others' packages
FEWEST_WORDS, MOST_WORDS = 4, 30

ROLE = re.compile(r":[\w:+-]+:`~?(?:[^`<]*\.)?([^`<.]+?)(?:\s*<[^`]*>)?`")  # :func:`~numpy.linalg.norm` -> norm
REFERENCE = re.compile(r"\s*\[\w+\]_")
MARKUP = re.compile(r"[`*\"]+")
SENTENCE_END = re.compile(r"(?<=\.)\s+(?=[A-Z])")
WORD = r"[A-Za-z0-9]+(?:['-][A-Za-z0-9]+)*"
SENTENCE = re.compile(rf"(?=[A-Z]){WORD}(?:[,;:]? {WORD})*\.")


def prose(
    packages: Sequence[str] = PACKAGES, *, length: int = 5, most_words: int = MOST_WORDS
) -> tuple[list[list[str]], dict[str, str]]:
    """Paragraphs of `length` consecutive sentences, and the versions of what they were taken from.

    Sentences are consecutive within a help topic or a source file, sentences that were dropped left out; no sentence
    stands twice. The order is that of the topics, then of the packages and their files by name.

    Args:
        packages: names of installed distributions, e.g. "scikit-learn".
        most_words: longer sentences are left out.
    Raises:
        ArtifactError: a package, or Python's help topics, are not installed.
    """
    versions = {"python": platform.python_version()}
    units: list[Iterable[str]] = [[topic] for topic in _topics()]
    for name in packages:
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            raise ArtifactError(f"package {name!r} is not installed; its docstrings were to be read as prose") from None
        versions[name] = installed.version
        files = sorted((f for f in installed.files or () if f.suffix == ".py" and not NOT_PROSE & {*f.parts}), key=str)
        units += [docstrings(Path(str(installed.locate_file(file)))) for file in files]
    seen: set[str] = set()
    paragraphs = []
    for unit in units:
        own = [sentence for text in unit for sentence in sentences(text, most_words)]
        fresh = [sentence for sentence in dict.fromkeys(own) if sentence not in seen]
        seen.update(fresh)
        paragraphs += [fresh[i : i + length] for i in range(0, len(fresh) - length + 1, length)]
    return paragraphs, versions


def sentences(text: str, most_words: int = MOST_WORDS) -> list[str]:
    """The plain English sentences of a text in reStructuredText, in order.

    Plain: 4 to `most_words` words of ASCII letters or numbers with simple punctuation, a capital first, a full stop at
    the end. Names and emphasis lose their markup; a sentence with code in it is dropped.
    """
    found = []
    for block in _blocks(text):
        plain = MARKUP.sub("", REFERENCE.sub("", ROLE.sub(r"\1", block)))
        for sentence in SENTENCE_END.split(one_line(plain)):
            if FEWEST_WORDS <= len(sentence.split()) <= most_words and SENTENCE.fullmatch(sentence):
                found.append(sentence)
    return found


def docstrings(path: Path) -> Iterator[str]:
    """The docstrings of a source file from top to bottom; none of a file that is no Python of this version."""
    source = path.read_bytes()
    if b'"""' not in source:
        return
    try:
        with warnings.catch_warnings(action="ignore"):  # escapes that a later Python will refuse
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if text := ast.get_docstring(node):
                yield text
            todo += reversed(node.body)


def _topics() -> list[str]:
    """Python's help topics, by name."""
    found = importlib.util.find_spec("pydoc_data.topics")
    if found is None or not found.origin:
        raise ArtifactError("Python's help topics (pydoc_data.topics) are not installed; install the whole of Python")
    assigned = ast.parse(Path(found.origin).read_bytes()).body[-1]
    topics: dict[str, str] = ast.literal_eval(assigned.value) if isinstance(assigned, ast.Assign) else {}
    return [topics[name] for name in sorted(topics)]


def _blocks(text: str) -> Iterator[str]:
    """Runs of lines without indentation between empty lines, underlines and lines with one.

    What is indented describes a parameter, or is an example or a list. A word hyphenated at a line's end is made whole.
    """
    lines = inspect.cleandoc(text).splitlines()
    for is_prose, run in groupby(lines, key=lambda line: line[:1].strip() != "" and any(map(str.isalnum, line))):
        if is_prose:
            yield re.sub(r"(?<=[a-z])-\n(?=[a-z])", "-", "\n".join(run))
