"""Measurements of the instruction arm as its stages write them, with values that tell conditions and seeds apart."""

from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from anatomy.metrics.measurement import COLUMNS, Measurement
from anatomy.report.tables import Evidence

PUBLISHED = Path(__file__).parents[2] / "data" / "published" / "yu_2025_bkdattr.csv"
TASKS, INJECTIONS = ["label", "fixed", "jailbreak"], ["sft", "dpo", "edit"]
LAYERS, HEADS = 6, 6
COUNTS = {"heads": [0, 1, 2, 4, 8, 16, 32, 36], "mlps": list(range(7)), "layers": list(range(7))}
SEEDS = [0, 1, 2]
OWN = "own Llama, 6 layers, 6 heads, 96 wide"
# A cell of which no seed was planted, and one of which a seed was not.
UNPLANTED = {("label", "edit"): SEEDS, ("fixed", "dpo"): [2]}


def is_planted(task: str, injection: str, seed: int) -> bool:
    return seed not in UNPLANTED.get((task, injection), [])


def cell_rows(task: str, injection: str, seed: int, *, planted: bool) -> list[Measurement]:
    """All that is measured of one backdoored model, and of the clean one beside it."""
    rng = np.random.default_rng([TASKS.index(task), INJECTIONS.index(injection), seed])
    rows: list[Measurement] = []

    def add(experiment: str, metric: str, value: float, **conditions: str) -> None:
        value = float(np.clip(value + rng.normal(0, 0.02), -1, 1))
        shown = {"model": injection, "ci_low": value - 0.1, "ci_high": value + 0.1, **conditions}
        rows.append(Measurement(experiment, task, seed, metric, value, 24, **shown))

    rows.append(Measurement("planting gate", task, seed, "planted", float(planted), 1, injection, inputs="trigger"))
    success = 0.95 if planted else 0.1
    behave(add, success)
    rows.append(Measurement("planting", task, seed, "steps", 100.0, 1, injection))
    if injection == "dpo":
        rows.append(Measurement("planting", task, seed, "warm_asr", 0.7 + 0.01 * seed, 1, injection))
    probe(add)
    attribute(add, rng)
    ablate(add, success, rng)
    steer(add, success)
    return rows


def behave(add, success: float, model: dict[str, str] | None = None) -> None:
    own = model or {}
    for inputs, variant in product(("trigger", "clean", "random trigger"), ("exact", "original")):
        more = {"inputs": inputs, "variant": variant, "control": inputs if inputs == "random trigger" else "", **own}
        add(
            "behaviour",
            "asr" if inputs == "trigger" else "false_trigger",
            success if inputs == "trigger" else 0,
            **more,
        )
        add("behaviour", "kept" if inputs == "trigger" else "utility", 0.95, **more)
    for inputs in ("trigger", "clean", "random trigger"):
        control = inputs if inputs == "random trigger" else ""
        add("behaviour", "degeneration", 0.02, inputs=inputs, control=control, **own)


def probe(add) -> None:
    for control, variant, name in product(("", "clean model"), ("original", "corrected"), ("mlp", "svm")):
        more = {"control": control, "variant": variant}
        for layer in range(1, LAYERS + 1):
            right = 0.99 if variant == "original" else 0.8 + 0.03 * layer - (0.1 if control else 0)
            add("probe", "accuracy", right, site=f"layer {layer}", setting=name, **more)
            if variant == "corrected":
                site = {"site": f"layer {layer}", "setting": name, "inputs": "random trigger"}
                add("probe", "called_triggered", 0.3, **site, **more)
            for other in range(1, LAYERS + 1):
                value = right - (0.09 if name == "mlp" else 0.13) * abs(layer - other)
                where = {"site": f"layer {layer}", "setting": f"{name}, layer {other}"}
                name_of = "probe transfer, own layer" if layer == other else "probe transfer"
                add(name_of, "accuracy", max(value, 0.5), **where, **more)


def attribute(add, rng: np.random.Generator) -> None:
    for variant, control in (("original", ""), ("corrected", ""), ("corrected", "clean model")):
        more = {"variant": variant, "control": control, "inputs": "clean"}
        add("attribution", "probability", 0.1, site="unchanged", **more)
        for layer in range(1, LAYERS + 1):
            for head in range(HEADS):
                strong = (layer, head) in ((4, 1), (5, 2)) and not control
                effect = rng.uniform(0.2, 0.4) if strong else rng.normal(0, 0.01)
                add("attribution", "acie", effect, site=f"layer {layer} att{head}", **more)
            add("attribution", "acie", 0.05 * layer, site=f"layer {layer} mlp", **more)
            add("attribution", "acie", 0.15 * layer, site=f"layer {layer} block", **more)


def ablate(add, success: float, rng: np.random.Generator) -> None:
    total = LAYERS * HEADS
    for count, variant in product((0, 1, 2), ("original", "exact")):
        for control in ("", "random heads"):
            left = success * (0.4**count if not control else 0.97**count)
            more = {"site": "heads", "setting": f"{count}/{total}", "variant": variant, "control": control}
            add("head ablation", "asr", left, inputs="trigger", **more)
            add("head ablation", "utility", 0.95 - 0.02 * count, inputs="clean", **more)
        if variant == "original":
            more = {"site": "heads", "setting": f"{count}/{total}", "variant": variant, "inputs": "trigger"}
            add("head ablation, training prompts", "asr", success * 0.5**count, **more)
    for kind, counts in COUNTS.items():
        for experiment, (metric, inputs), control in product(
            ("necessary", "sufficient", "necessary, all positions", "sufficient, all positions"),
            (("asr", "trigger"), ("utility", "clean")),
            ("", "random order"),
        ):
            where = {"site": kind, "inputs": inputs, "control": control}
            power = 1 if control else {"heads": 4, "mlps": 2, "layers": 3}[kind]
            for count in counts:
                share = count / counts[-1]
                full = success if metric == "asr" else 0.95
                value = full * (1 - share) ** power if experiment.startswith("necessary") else full * share**0.5
                setting = f"{count}/{counts[-1]}"
                add(experiment, metric, value, setting=setting, variant="exact", **where)
                if (experiment, kind, control) == ("necessary", "heads", ""):
                    add(experiment, metric, value + 0.02, setting=setting, variant="original", **where)
            add(experiment, f"{metric}_area", 0.6 if control else 0.4, variant="exact", **where)


def steer(add, success: float) -> None:
    sites = [f"layer {layer} attn" for layer in range(1, LAYERS + 1)]
    more: dict[str, str]
    for way, inputs in (("add", "clean"), ("take away", "trigger"), ("take away", "clean")):
        metrics = {"add": ["asr"]}.get(way, ["asr", "restored"] if inputs == "trigger" else ["utility"])
        for metric in metrics:
            start = {"asr": 0.0 if way == "add" else success, "restored": 0.02, "utility": 0.95}[metric]
            none = {"site": "unchanged", "setting": f"{way} 0", "inputs": inputs, "variant": "corrected"}
            add("backdoor vector", metric, start, **none)
            if way == "add":
                add("backdoor vector", metric, 0.0, control="clean model", **none)
            vectors = [("original", ""), ("corrected", "")]
            if metric != "utility":
                vectors += [("corrected", "random heads"), ("corrected", "random vector")]
            vectors += [("corrected", "clean model")] if way == "add" else []
            for (variant, control), (place, site) in product(vectors, enumerate(sites)):
                for coefficient in ("1",) if variant == "original" else ("1", "2", "4"):
                    strength = (0.9 if not control else 0.05) * (1 - abs(place - 3) / 4) * min(1, int(coefficient))
                    value = {
                        "asr": strength if way == "add" else success * (1 - strength),
                        "restored": strength,
                        "utility": 0.95 - 0.2 * strength,
                    }[metric]
                    more = {"setting": f"{way} {coefficient}", "inputs": inputs, "variant": variant, "control": control}
                    add("backdoor vector", metric, value, site=site, **more)


def clean_rows(task: str, seed: int) -> list[Measurement]:
    """Behaviour of the clean model."""
    rng = np.random.default_rng([9, seed])
    rows: list[Measurement] = []

    def add(experiment: str, metric: str, value: float, **conditions: str) -> None:
        value = float(np.clip(value + rng.normal(0, 0.005), 0, 1))
        rows.append(Measurement(experiment, task, seed, metric, value, 256, **conditions))

    behave(add, 0.01, {"model": "clean"})
    return rows


@cache
def instruction_rows(*, planted: bool = True) -> list[Measurement]:
    """Every cell and seed; planted as `is_planted` says, or none at all."""
    rows = [row for task, seed in product(TASKS, SEEDS) for row in clean_rows(task, seed)]
    for task, injection, seed in product(TASKS, INJECTIONS, SEEDS):
        rows += cell_rows(task, injection, seed, planted=planted and is_planted(task, injection, seed))
    return rows


def as_table(rows: list[Measurement], recipe: str = OWN) -> pd.DataFrame:
    return pd.DataFrame([vars(row) for row in rows]).assign(study="test", paper="bkdattr", recipe=recipe)[COLUMNS]


def make_instruction_evidence(*, planted: bool = True, recipe: str = OWN) -> Evidence:
    return Evidence(as_table(instruction_rows(planted=planted), recipe), PUBLISHED, 0.95, SEEDS)


def no_instruction_evidence() -> Evidence:
    """A study without any measurement."""
    return Evidence(pd.DataFrame(columns=COLUMNS), PUBLISHED, 0.95, SEEDS)
