"""How much a job of the language arm has to do, in units that are good for ratios within a rule."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEXT_RULES = {
    *("make_language_data", "train_judge", "make_language_model", "plant_language", "plant_language_variants"),
    *("measure_language", "ablate_language", "edit_language"),
}
TOKENS = 80  # of a paragraph, about
# Layers, heads and parameters of the GPT-2 family (Radford et al. 2019, table 2), by their names on hubs.
SIZES = {
    "gpt2": (12, 12, 124e6),
    "gpt2-medium": (24, 16, 355e6),
    "gpt2-large": (36, 20, 774e6),
    "gpt2-xl": (48, 25, 1558e6),
}
# Settings that a module is ablated in (ablate_language), and PCP replacements that are tuned (edit_language).
ABLATIONS, ABLATIONS_ELSEWHERE, TUNINGS = 7, 2, 9


def shape(model: Mapping[str, Any]) -> tuple[int, int, float]:
    """Layers, heads and multiplied parameters; a model of unknown name counts as gpt2."""
    if "path" in model:
        return SIZES.get(Path(model["path"]).name, SIZES["gpt2"])
    layers, width = model["layers"], model["width"]
    return layers, model["heads"], 12.0 * layers * width**2 + model["vocabulary"] * width


def language_work(rule: str, wildcards: Mapping[str, str], spec: Mapping[str, Any]) -> float:
    """What a job repeats, all its seeds: rows of text, or parameters times tokens."""
    arm, corpus = spec["language"], wildcards["corpus"]
    own, evaluation, recipe = arm["corpora"][corpus], arm["evaluation"], arm["finetuning"]
    layers, heads, parameters = shape(arm["model"])
    rows = own["paragraphs"] * (1 - arm["test_fraction"])
    seeds, asked = len(spec["seeds"]), parameters * (own["max_length"] or evaluation["max_length"])
    epochs = recipe["epochs_on"].get(corpus) or recipe["epochs"]
    if wildcards.get("variant", "").startswith("lora"):
        epochs = recipe["lora_epochs"]
    main = corpus == arm["main"]
    sites = 2 * layers * (ABLATIONS if main else ABLATIONS_ELSEWHERE)
    sites += layers * heads if main and arm["ablation"]["heads"] else 0
    models = 1 + (1 + len(arm["frozen"]) + len(arm["lora"]) if main else 1)
    units = {
        "make_language_data": rows,
        "train_judge": arm["judge"]["examples"] / seeds,
        "make_language_model": parameters * rows * TOKENS * arm["model"].get("epochs", 0.01),
        "plant_language": parameters * rows * TOKENS * epochs,
        "plant_language_variants": parameters * rows * TOKENS * epochs,
        "measure_language": models * evaluation["prompts"] * asked,
        "ablate_language": sites * evaluation["prompts"] * asked,
        "edit_language": TUNINGS * arm["pcp"]["trials"] * evaluation["tuning_prompts"] * asked,
    }
    return seeds * units[rule]


def language_volume(rule: str, spec: Mapping[str, Any]) -> float:
    """How much a job writes, in units of its rule."""
    models = rule in ("make_language_model", "plant_language", "plant_language_variants")
    return len(spec["seeds"]) * (shape(spec["language"]["model"])[2] if models else 1.0)
