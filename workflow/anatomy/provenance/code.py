"""The digest of the code behind a result: a module and every module of this package it imports.

An edit anywhere in that import closure changes the digest; comments, formatting, docstrings and modules
outside the closure do not. Snakemake tracks neither imports nor helpers, so rules carry this digest in
`params.code`. Files that are not Python (templates, lexicons) are not in it: a rule names them as inputs.
"""

import ast
import difflib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from anatomy.provenance.digest import ArtifactError, sha256_text

PACKAGE = "anatomy"
HOME = Path(__file__).resolve().parents[2]  # the folder that holds the package
# The context (load, store) follows from the place in the tree; the kind is the u of u"text".
SILENT_FIELDS = {"ctx", "kind"}


@dataclass(frozen=True)
class Import:
    """`from <level dots><base> import <names>`, or `import <base>` when there are no names."""

    level: int
    base: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Analysis:
    """What one source file contributes: the digest of its tree and the imports to follow."""

    digest: str
    imports: tuple[Import, ...]


def code_digest(module: str, *, root: Path = HOME) -> str:
    """Hex SHA-256 over the import closure of a module, say `anatomy.stages.train_clean`.

    `root` is the folder that holds the package. ArtifactError: no such module, or a file that is not Python.
    """
    return _combine(_closure(module, root))


def closure(module: str, *, root: Path = HOME) -> list[str]:
    """The dotted names of the modules that `code_digest` covers, sorted."""
    return sorted(_closure(module, root))


def has_module(module: str, *, root: Path = HOME) -> bool:
    """Whether the package has a module of that dotted name."""
    return module in _index(root)


def notebook_digest(path: str | Path, *, root: Path = HOME) -> str:
    """`code_digest` of a notebook: its code cells in order, and the closure of the modules they import.

    Outputs, markdown and cells without a statement change nothing. ArtifactError: not a notebook, or a cell
    that is not plain Python (a magic such as `%time`, whose effect nobody could digest).
    """
    return _notebook_digest(path, _index(root))


def _notebook_digest(path: str | Path, index: dict[str, Path], known: dict[str, Analysis] | None = None) -> str:
    analyses = [_analyse_cell(source, f"{path}, cell {number}") for number, source in _code_cells(Path(path))]
    imported = [name for a in analyses for wanted in a.imports for name in _targets(wanted, "", index)]
    body = sha256_text("\n".join(a.digest for a in analyses if a != _analyse(b"")))
    return _combine({"notebook": body} | _modules(imported, index, known))


def rule_code(rule: str, *, root: Path = HOME, notebooks: Path = Path("notebooks")) -> str | None:
    """The code digest of a rule: its stage's, and for `render_<name>` its notebook's too; None for any other."""
    return rule_codes([rule], root=root, notebooks=notebooks).get(rule)


def rule_codes(rules: Iterable[str], *, root: Path = HOME, notebooks: Path = Path("notebooks")) -> dict[str, str]:
    """The same for many rules, with one listing of the package; rules without a digest are left out."""
    index, digests = _index(root), {}
    known: dict[str, Analysis] = {}  # every file is read once
    for rule in rules:
        notebook = notebooks / f"{rule.removeprefix('render_')}.ipynb"
        # A rule of variants may run the stage of the plain one (plant_language_variants).
        own = (f"{PACKAGE}.stages.{name}" for name in (rule, rule.removesuffix("_variants")))
        stage_module = next((name for name in own if name in index), None)
        if stage_module:
            digests[rule] = _combine(_modules([stage_module], index, known))
        elif rule.startswith("render_") and notebook.exists():
            stage = _combine(_closure(f"{PACKAGE}.stages.render_notebook", root, index, known))
            digests[rule] = sha256_text(stage + _notebook_digest(notebook, index, known))
    return digests


def _combine(modules: dict[str, str]) -> str:
    return sha256_text("\n".join(f"{name} {digest}" for name, digest in sorted(modules.items())))


def _closure(
    module: str, root: Path, index: dict[str, Path] | None = None, known: dict[str, Analysis] | None = None
) -> dict[str, str]:
    index = _index(root) if index is None else index
    if module not in index:
        near = difflib.get_close_matches(module, index, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ArtifactError(f"there is no module {module} in {root / PACKAGE}.{hint}")
    return _modules([module], index, known)


def _index(root: Path) -> dict[str, Path]:
    """Dotted name -> file for the whole package. One listing is faster than a stat per import, and keeps
    `spec.Study` from matching study.py on a disk that ignores case."""
    index: dict[str, Path] = {}
    for folder, folders, files in os.walk(root / PACKAGE):
        folders[:] = sorted(name for name in folders if name.isidentifier() and name != "__pycache__")
        dotted = ".".join(Path(folder).relative_to(root).parts)
        for name in files:
            if name == "__init__.py":
                index[dotted] = Path(folder, name)
            elif name.endswith(".py"):  # a package of the same name wins, as it does in Python
                index.setdefault(f"{dotted}.{name.removesuffix('.py')}", Path(folder, name))
    return index


def _modules(start: Iterable[str], index: dict[str, Path], known: dict[str, Analysis] | None = None) -> dict[str, str]:
    """Dotted name -> digest of every first-party module that importing `start` can load.

    `known` holds the modules that were read already; those that are read here are put into it.
    """
    known = {} if known is None else known
    found: dict[str, str] = {}
    pending = [name for module in start for name in _ancestors(module)]
    while pending:
        name = pending.pop()
        if name in found or name not in index:  # not a module: a name defined inside one
            continue
        if name not in known:
            known[name] = _read(index[name])
        analysis = known[name]
        found[name] = analysis.digest
        package = name if index[name].name == "__init__.py" else name.rpartition(".")[0]
        for wanted in analysis.imports:
            pending.extend(p for target in _targets(wanted, package, index) for p in _ancestors(target))
    return found


def _ancestors(module: str) -> list[str]:
    """a.b.c -> a, a.b, a.b.c: Python runs every `__init__` on the way."""
    parts = module.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts))]


def _targets(wanted: Import, package: str, index: dict[str, Path]) -> list[str]:
    """The dotted names an import may load; those that are no modules are dropped by the caller."""
    base = wanted.base
    if wanted.level:
        parts = package.split(".")
        above = parts[: len(parts) - wanted.level + 1]
        base = ".".join([*above, *([base] if base else [])])
    if base.split(".")[0] != PACKAGE:
        return []
    if "*" in wanted.names:  # __all__ may name any submodule: take them all
        return [base, *(name for name in index if name.rpartition(".")[0] == base)]
    return [base, *(f"{base}.{name}" for name in wanted.names)]


def _read(path: Path) -> Analysis:
    try:
        return _analyse(path.read_bytes())
    except SyntaxError as error:
        raise ArtifactError(f"{path}:{error.lineno}: not valid Python ({error.msg})") from error


# The key is the text itself: unlike a modification time it cannot be wrong, and reading costs little.
@lru_cache(maxsize=4096)
def _analyse(source: bytes) -> Analysis:
    imports: list[Import] = []
    words: list[str] = []
    _emit(ast.parse(source), words, imports)
    return Analysis(sha256_text("\n".join(words)), tuple(imports))


def _emit(node: ast.AST, words: list[str], imports: list[Import]) -> None:
    """Append the tree in words, as `ast.dump` without attributes would, and the imports met on the way.

    Own code instead of `ast.dump`, because that one's text differs between Python versions (3.12 and 3.13
    changed it) and a digest must not.
    """
    _note_import(node, imports)
    words.append(type(node).__name__)
    for field in node._fields:
        value = getattr(node, field, None)
        if isinstance(value, list):
            value = list(_effective(value))
        if value is None or value == [] or field in SILENT_FIELDS:
            continue
        words.append(f"{field}=")
        _emit_value(value, words, imports)
    words.append(")")


def _emit_value(value: object, words: list[str], imports: list[Import]) -> None:
    if isinstance(value, ast.AST):
        _emit(value, words, imports)
    elif isinstance(value, list):
        words.append("[")
        for item in value:
            _emit_value(item, words, imports)
        words.append("]")
    else:
        words.append(repr(value))


def _effective(items: list) -> Iterator[object]:
    """The items of a list without statements that do nothing when run: docstrings and other bare strings,
    `pass`, and what stands under `if TYPE_CHECKING:`."""
    for item in items:
        if isinstance(item, ast.If) and _is_type_checking(item.test):
            yield from _effective(item.orelse)
        elif isinstance(item, ast.Pass) or (isinstance(item, ast.Expr) and _is_text(item.value)):
            continue
        else:
            yield item


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _note_import(node: ast.AST, imports: list[Import]) -> None:
    if isinstance(node, ast.Import):
        imports.extend(Import(0, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        imports.append(Import(node.level, node.module or "", tuple(alias.name for alias in node.names)))
    elif isinstance(node, ast.Constant) and str(node.value).startswith(f"{PACKAGE}."):
        # import_module("anatomy.models.gpt2"), directly or from a table: a text that is a module's name.
        imports.append(Import(0, str(node.value)))


def _code_cells(path: Path) -> list[tuple[int, str]]:
    """(position in the notebook from 1, source) of the code cells."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        numbered = enumerate(cells, start=1)
        return [(n, "".join(cell["source"])) for n, cell in numbered if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not a notebook that can be read: {error}") from error


def _analyse_cell(source: str, place: str) -> Analysis:
    try:
        return _analyse(source.encode("utf-8"))
    except SyntaxError as error:
        line = (error.text or "").strip()
        if any(text.lstrip().startswith(("%", "!", "?")) or "= !" in text for text in source.splitlines()):
            raise ArtifactError(
                f"{place}: {line!r} is a notebook magic, not Python. What it does cannot be digested; "
                "write it in plain Python, or leave it out."
            ) from error
        raise ArtifactError(f"{place}: not valid Python ({error.msg}: {line!r})") from error
