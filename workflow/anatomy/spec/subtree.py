"""The part of a study a rule reads: cut out for the rule's parameters, typed again inside the stage."""

import json
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, ValidationError

from anatomy.spec.study import Study


def subtree(study: Study, *paths: str) -> str:
    """The named keys of a study ("seeds", "toy.language", ...) as canonical JSON.

    Raises:
        KeyError: a path that no study has; a rule asks for a misspelt key.
    """
    whole, out = study.model_dump(mode="json"), {}
    for path in paths:
        *parents, last = path.split(".")
        source, target = whole, out
        for parent in parents:
            source, target = source[parent], target.setdefault(parent, {})
        target[last] = source[last]
    return json.dumps(out, sort_keys=True, separators=(",", ":"))


def typed(raw: dict[str, Any], model: type[BaseModel] = Study) -> SimpleNamespace:
    """The cut-out as objects: whole sections are the study's own, partial ones have only the keys that were asked for."""
    out = SimpleNamespace()
    for key, value in raw.items():
        annotation = model.model_fields[key].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            try:
                value = annotation.model_validate_json(json.dumps(value))
            except ValidationError:
                value = typed(value, annotation)
        elif annotation is not None and (sections := _sections(annotation)):
            value = {k: sections[-1].model_validate_json(json.dumps(v)) for k, v in value.items()}
        setattr(out, key, value)
    return out


def _sections(annotation: Any) -> list[type[BaseModel]]:
    args = getattr(annotation, "__args__", ())
    return [a for a in args if isinstance(a, type) and issubclass(a, BaseModel)]
