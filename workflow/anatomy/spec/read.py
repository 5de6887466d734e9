"""Reading a study file, and saying plainly what is wrong with it."""

import difflib
import json
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from anatomy.spec.errors import SpecError
from anatomy.spec.study import Study, config_path


def load_study(study: str, root: Path = Path()) -> Study:
    """The study named `study`, from config/<study>.yaml.

    Raises:
        SpecError: no such study, no YAML, or a key or value that the study cannot have.
    """
    path = config_path(study, root)
    if not path.exists():
        known = sorted(p.stem for p in path.parent.glob("*.yaml"))
        raise SpecError(f"{path}: no such study; there are {', '.join(known) or 'none'}{_nearest(study, known)}")
    spec = parse_study(_read_mapping(path), source=str(path))
    if spec.study != study:
        raise SpecError(f"{path}: study: says {spec.study!r}, but the file is named {study!r}; make them agree")
    return spec


def study_files(study: str, root: Path = Path()) -> list[Path]:
    """The study's file and those that it extends, its own first."""
    files = [config_path(study, root)]
    while base := (yaml.safe_load(files[-1].read_text(encoding="utf-8")) or {}).get("extends"):
        files.append(files[-1].with_name(f"{base}.yaml"))
    return files


def _read_mapping(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A study file as a mapping; `extends: NAME` takes every key it does not give itself from that study."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise SpecError(f"{path}: expected a mapping with the keys {', '.join(Study.model_fields)}")
    base = raw.pop("extends", None)
    if base is None:
        return raw
    base_path = path.with_name(f"{base}.yaml")
    if not base_path.exists() or base_path in (path, *seen):
        raise SpecError(f"{path}: extends: {base!r} is no other study beside it, or extends this one itself")
    return _merge(_read_mapping(base_path, (path, *seen)), raw)


def _merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own` over `base`, section by section; an empty mapping empties the base's, null takes its key away."""
    out = dict(base)
    for key, value in own.items():
        if value is None and key in base:
            del out[key]
            continue
        deeper = isinstance(value, dict) and value and isinstance(base.get(key), dict)
        out[key] = _merge(base[key], value) if deeper else value
    return out


def parse_study(raw: dict[str, Any], *, source: str) -> Study:
    """Validate a mapping; every mistake is told at once, one line each."""
    try:
        # Through JSON: lists become tuples where a model wants tuples, while 3 and "3" stay apart.
        # A YAML date, say, is no JSON value: it becomes one that no key accepts.
        return Study.model_validate_json(json.dumps(raw, default=lambda value: {"not a plain value": str(value)}))
    except ValidationError as error:
        raise SpecError("\n".join(f"{source}: {_explain(dict(e))}" for e in error.errors())) from None


def _explain(error: dict[str, Any]) -> str:
    words, sections = _walk([str(part) for part in error["loc"] if part != "[key]"])
    path = ".".join(words)
    match error["type"]:
        case "extra_forbidden":
            allowed = list(sections[-1].model_fields)
            return f"{path}: unknown key; allowed here: {', '.join(allowed)}{_nearest(words[-1], allowed)}"
        case "missing":
            return f"{path}: missing; it must be given"
        case "value_error":
            return f"{path}: {error['ctx']['error']}" if path else str(error["ctx"]["error"])
        case "union_tag_invalid":
            known = error["ctx"]["expected_tags"].rpartition(", ")
            key = error["ctx"]["discriminator"].strip("'")
            return f"{path}.{key}: should be {known[0]} or {known[2]}, got {error['ctx']['tag']!r}"
        case "union_tag_not_found":
            key = error["ctx"]["discriminator"].strip("'")
            return f"{path}.{key}: missing; it must be given"
        case "too_short":
            return f"{path}: empty; at least {error['ctx']['min_length']} entry needed"
        case _:
            return f"{path}: {error['msg'].replace('Input should be', 'should be')}, got {error['input']!r}"


def _walk(location: list[str]) -> tuple[list[str], list[type[BaseModel]]]:
    """Where an error is in the words of the file, and the section there, or the sections there may be.

    Where several may be, pydantic puts the one it took (stories, scratch) into the location, as no file does.
    """
    words: list[str] = []
    sections: list[type[BaseModel]] = [Study]
    for part in location:
        if len(sections) > 1 and (taken := [s for s in sections if s.__name__.lower() == part]):
            sections = taken
            continue
        words.append(part)
        fields = sections[-1].model_fields
        if part in fields:  # otherwise a name that the user chose, or a number in a list
            sections = _sections(fields[part].annotation) or sections
    return words, sections


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


def _nearest(word: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(word, allowed, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def schema() -> str:
    """The JSON schema of a study file, as it stands in config/schema.json."""
    return json.dumps(Study.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
