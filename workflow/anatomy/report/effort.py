"""What a study took: its scale, the time of its rules, the versions it ran on; all from the run records."""

from collections.abc import Mapping
from typing import Any

Item = dict[str, Any]


def scale(study: Mapping, runs: list[dict], parameters: Mapping[str, int] | None) -> Item:
    """How large the study is: models, sequences and parameters of a toy model, devices, CPU time."""
    toy, seeds = study["toy"], study["seeds"]
    subjects = toy["language"]["subjects"]
    retrained = sum(len(toy[what].get(s, [])) for what in ("frozen", "amounts") for s in subjects)
    sizes = sorted(set((parameters or {}).values()))
    return {
        "models": len(seeds) * (2 * len(subjects) + retrained) + _kept(runs),
        "sequences": {s: sum(counts.values()) for s, counts in subjects.items()},
        "parameters": " to ".join(f"{size:,}" for size in dict.fromkeys([*sizes[:1], *sizes[-1:]])),
        "devices": ", ".join(sorted({run["device"] for run in runs})),
        "cpu_s": sum(run["cpu_s"] for run in runs),
        "wall_s": sum(run["wall_s"] for run in runs),
    }


def _kept(runs: list[dict]) -> int:
    """Models that write text or follow instructions: each has a file of weights."""
    files = [file["path"] for run in runs for own in run["outputs"].values() for file in own]
    return sum(path.endswith("/model.safetensors") and "/toy/" not in path for path in files)


def by_rule(runs: list[dict]) -> list[Item]:
    """Jobs, wall and CPU time, peak memory per rule, in order of first appearance."""
    out: dict[str, Item] = {}
    for run in runs:
        rule = out.setdefault(
            run["rule"],
            {
                "rule": run["rule"],
                "jobs": 0,
                "wall_s": 0.0,
                "cpu_s": 0.0,
                "longest_s": 0.0,
                "peak_rss_mb": 0.0,
            },
        )
        rule["jobs"] += 1
        for name in ("wall_s", "cpu_s"):
            rule[name] += run[name]
        rule["longest_s"] = max(rule["longest_s"], run["wall_s"])
        rule["peak_rss_mb"] = max(rule["peak_rss_mb"], run["peak_rss_mb"])
    return list(out.values())


def versions(runs: list[dict]) -> Item:
    """Commit, Python, platform, packages; several values where jobs differ."""
    packages: dict[str, set[str]] = {}
    for run in runs:
        for name, version in run["environment"]["packages"].items():
            packages.setdefault(name, set()).add(version or "not installed")

    def unique(values: list[str | None]) -> str:
        return ", ".join(sorted({v for v in values if v})) or "unknown"

    return {
        "commit": unique([_commit(run["git"]) for run in runs]),
        "python": unique([run["environment"]["python"] for run in runs]),
        "platform": unique([run["environment"]["platform"] for run in runs]),
        "tool": unique([run["tool"] for run in runs]),
        "lock": unique([run["lock"] for run in runs]),
        "packages": {name: ", ".join(sorted(found)) for name, found in sorted(packages.items())},
    }


def _commit(git: Mapping) -> str:
    return (git["commit"] or "unknown") + (" with uncommitted changes" if git["dirty"] else "")
