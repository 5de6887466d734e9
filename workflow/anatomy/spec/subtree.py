"""The part of a study a rule reads: cut out for the rule's parameters, read again inside the stage."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anatomy.spec.study import Study


class View(dict):
    """A JSON object whose keys are also attributes.

    A stage sees the keys its rule asked for and no others: anything else is an AttributeError. It does not import the
    study's models, so that a new key of the study changes the code digest of no stage.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"this stage's parameters have no {name!r}, only {', '.join(self)}; name it in the rule's stage_params"
            ) from None


def subtree(study: "Study", *paths: str) -> str:
    """The named keys of a study ("seeds", "toy.language", ...) as canonical JSON.

    Raises:
        KeyError: a path that no study has; a rule asks for a misspelt key.
    """
    whole: dict[str, Any] = study.model_dump(mode="json")
    out: dict[str, Any] = {}
    for path in paths:
        *parents, last = path.split(".")
        source, target = whole, out
        for parent in parents:
            source, target = source[parent], target.setdefault(parent, {})
        target[last] = source[last]
    return json.dumps(out, sort_keys=True, separators=(",", ":"))


def view(text: str) -> View:
    """The cut-out as an object with attributes."""
    return json.loads(text, object_hook=View)
