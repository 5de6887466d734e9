"""One run record in the words of an RO-Crate: an action, the tool it ran, its files and its parameters."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from anatomy.provenance.digest import sha256_json, short
from anatomy.provenance.record import job_key

Entity = dict[str, Any]
SNAKEFILE = "Snakefile"
USAGE = {"wall_s": "SEC", "cpu_s": "SEC", "peak_rss_mb": "MebiBYTE"}  # field of a record -> its unit in QUDT
# A table of our own: Python's differs between systems, and the crate would differ with it.
MEDIA_TYPES = {
    **{".csv": "text/csv", ".html": "text/html", ".md": "text/markdown", ".txt": "text/plain", ".tex": "text/x-tex"},
    **{".json": "application/json", ".jsonl": "application/jsonl", ".ipynb": "application/x-ipynb+json"},
    **{".yaml": "application/yaml", ".parquet": "application/vnd.apache.parquet", ".css": "text/css"},
    **{".svg": "image/svg+xml", ".png": "image/png", ".lock": "text/plain"},
}
TOLD = ("code", "lock", "threads", "device", "seeds", "wildcards", "environment", "git")


@dataclass(frozen=True)
class Slot:
    """A FormalParameter: a group of files of one rule, or a named value (a key of the study file, or `job.*`)."""

    id: str
    name: str
    kind: str  # schema.org's name for the type of what fills it


@dataclass(frozen=True)
class Value:
    """A PropertyValue: what stood in a slot."""

    id: str
    slot: Slot
    value: str | int | float


@dataclass(frozen=True)
class Job:
    """A run record, found at `path`, of a study whose results (the root of the crate) lie at `home`."""

    path: str
    record: Mapping[str, Any]
    home: str

    @property
    def rule(self) -> str:
        """The rule that ran."""
        return str(self.record["rule"])

    @property
    def id(self) -> str:
        """The name of the job's action."""
        return f"#job/{self.record['job']}"

    @property
    def tool(self) -> str:
        """The name of the program that ran; every rule has its own."""
        return f"#tool/{self.rule}"

    @property
    def step(self) -> str:
        """The name of the rule as a step of the workflow."""
        return f"{crate_id(SNAKEFILE, self.home)}#{self.rule}"

    @property
    def ended(self) -> str:
        """When the job was done, to the second (ISO 8601)."""
        end = datetime.fromisoformat(self.record["started"]) + timedelta(seconds=self.record["wall_s"])
        return end.isoformat(timespec="seconds")

    def files(self, side: str) -> Iterator[tuple[Slot, Mapping[str, Any]]]:
        """The files among the `inputs` or `outputs`, each with its slot."""
        for group, files in sorted(self.record[side].items()):
            slot = Slot(f"#{side}/{self.rule}/{quote(group)}", f"{self.rule}.{group}", "File")
            yield from ((slot, file) for file in sorted(files, key=lambda file: file["path"]))

    def values(self) -> list[Value]:
        """What the job was told besides files: its part of the study file, and the rest of its record as `job.*`."""
        return self._values

    @cached_property
    def _values(self) -> list[Value]:
        told = {name: self.record[name] for name in TOLD}
        return [_value(name, value) for name, value in [*_flat(self.record["spec"]), *_flat(told, "job.")]]

    def action(self) -> Entity:
        """The job as a CreateAction."""
        read = sorted({crate_id(file["path"], self.home) for _, file in self.files("inputs")})
        made = sorted({crate_id(file["path"], self.home) for _, file in self.files("outputs")})
        return {
            "@id": self.id,
            "@type": "CreateAction",
            "name": job_key(self.rule, self.record["wildcards"]),
            "description": f"rule {self.rule}, {self.record['threads']} threads, on {self.record['device']}",
            "startTime": self.record["started"],
            "endTime": self.ended,
            "instrument": ref(self.tool),
            "object": refs([*read, *(value.id for value in self.values())]),
            "result": refs(made),
            "resourceUsage": refs(usage["@id"] for usage in self.usage()),
        }

    def usage(self) -> list[Entity]:
        """Wall and CPU time in seconds, peak memory in MiB."""
        return [
            {
                "@id": f"{self.id}/{field}",
                "@type": "PropertyValue",
                "name": field,
                "propertyID": f"urn:backdoor-anatomy:run-record:{field}",
                "unitCode": f"https://qudt.org/vocab/unit/{unit}",
                "value": self.record[field],
            }
            for field, unit in USAGE.items()
        ]


def ref(identifier: str) -> Entity:
    """A reference to another entity."""
    return {"@id": identifier}


def refs(identifiers: Iterable[str]) -> list[Entity]:
    """References to other entities, in the order given."""
    return [ref(identifier) for identifier in identifiers]


def crate_id(path: str, home: str) -> str:
    """How the crate names a file of a record: from its root, `../../` for the rest of the repository, or a file URI."""
    if path.startswith("/"):
        return f"file://{quote(path)}"
    return quote(path.removeprefix(home) if path.startswith(home) else f"../../{path}")


def media_type(path: str) -> str:
    """The media type of a file, by the ending of its name."""
    return MEDIA_TYPES.get(PurePosixPath(path).suffix, "application/octet-stream")


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """`{"toy": {"recipe": "fast"}}` as `toy.recipe`, the way the study file's keys are named elsewhere."""
    for key, inner in sorted(value.items()) if isinstance(value, Mapping) else ():
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, f"{name}{key}.")
        else:
            yield f"{name}{key}", inner


def _value(name: str, value: Any) -> Value:
    kinds = {bool: "Boolean", int: "Integer", float: "Float"}
    slot = Slot(f"#parameter/{quote(name)}", name, kinds.get(type(value), "Text"))
    # A list, an empty mapping and None have no type of their own in a PropertyValue: they stand as JSON.
    plain = value if isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)
    return Value(f"#value/{quote(name)}/{short(sha256_json(value))}", slot, plain)
