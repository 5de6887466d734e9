"""Reading a study file, and saying plainly what is wrong with it."""

import difflib
import json
from pathlib import Path
from typing import Any

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
    """`own` over `base`, section by section; an empty mapping empties the base's."""
    out = dict(base)
    for key, value in own.items():
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
    location = [str(part) for part in error["loc"] if part != "[key]"]
    path = ".".join(location)
    match error["type"]:
        case "extra_forbidden":
            allowed = _allowed_keys(location[:-1])
            return f"{path}: unknown key; allowed here: {', '.join(allowed)}{_nearest(location[-1], allowed)}"
        case "missing":
            return f"{path}: missing; it must be given"
        case "value_error":
            return f"{path}: {error['ctx']['error']}" if path else str(error["ctx"]["error"])
        case "too_short":
            return f"{path}: empty; at least {error['ctx']['min_length']} entry needed"
        case _:
            return f"{path}: {error['msg'].replace('Input should be', 'should be')}, got {error['input']!r}"


def _allowed_keys(location: list[str]) -> list[str]:
    """Field names of the section at `location`."""
    model: Any = Study
    for part in location:
        annotation = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
        elif annotation is not None:  # dict[str, Section]: the next part is a free name
            sections = [
                a for a in getattr(annotation, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)
            ]
            model = sections[-1] if sections else model
    return list(model.model_fields)


def _nearest(word: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(word, allowed, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def schema() -> str:
    """The JSON schema of a study file, as it stands in config/schema.json."""
    return json.dumps(Study.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
