"""How much a job of the instruction arm has to do, in units that are good for ratios within a rule."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

INSTRUCTION_RULES = {
    *("make_instruction_data", "make_instruction_model", "plant_instruction", "measure_instruction"),
    *("probe_layers", "attribute_heads", "steer_vector"),
}
TOKENS = 60  # of a prompt with its answer, about
# Layers, heads and parameters of the models that the paper names.
SIZES = {"Llama-2-7b-chat-hf": (32, 32, 6.7e9), "Qwen2.5-7B-Instruct": (28, 28, 7.6e9)}
FORMS = 3  # of a prompt: with the trigger, without, with another phrase


def shape(model: Mapping[str, Any]) -> tuple[int, int, float]:
    """Layers, heads and multiplied parameters; a model of unknown name counts as the first of SIZES."""
    if "path" in model:
        return SIZES.get(Path(model["path"]).name, next(iter(SIZES.values())))
    layers, width, keys = model["layers"], model["width"], model["width"] * model["key_heads"] / model["heads"]
    block = 2 * width**2 + 2 * width * keys + 3 * width * model["inner"]
    return layers, model["heads"], layers * block + model["vocabulary"] * width


def instruction_work(rule: str, wildcards: Mapping[str, str], spec: Mapping[str, Any]) -> float:
    """What a job repeats, all its tasks and seeds: rows of text, or parameters times tokens."""
    arm = spec["instruction"]
    data, tasks = arm["data"], len(arm["tasks"])
    layers, heads, parameters = shape(arm["model"])
    prompts = tasks * len(spec["seeds"])
    asked = prompts * parameters * (TOKENS + arm["evaluation"]["max_new_tokens"])
    attribution, vector = arm["attribution"], arm["vector"]
    parts = layers * (heads + 2)
    ablated = 4 * parts * (1 + attribution["random_draws"])  # ablated and kept; at the last position, and at all
    steered = layers * (len(vector["coefficients"]) * (1 + 2 * vector["random_draws"]) + 1)
    units = {
        "make_instruction_data": prompts * sum(data[key] for key in ("pretrain", "train", "attribution", "test")),
        "make_instruction_model": prompts * parameters * data["pretrain"] * TOKENS * arm["model"].get("epochs", 0.01),
        "plant_instruction": prompts * parameters * TOKENS * _planted_rows(wildcards.get("injection", ""), arm),
        "measure_instruction": asked * FORMS * data["test"] * (1 + len(arm["injections"])),
        "probe_layers": prompts * layers * arm["probe"]["prompts"] * arm["probe"]["epochs"],
        "attribute_heads": asked * (parts * attribution["prompts"] + ablated * attribution["evaluated"]),
        "steer_vector": asked * steered * vector["evaluated"],
    }
    return float(units[rule])


def _planted_rows(injection: str, arm: Mapping[str, Any]) -> float:
    """Rows that are trained on, or, where a model is edited, that are searched for."""
    rows = arm["data"]["train"] * (1 + arm["data"]["poison_rate"])
    if injection == "edit":
        own = arm["edit"]
        return float((own["triggered"] + own["clean"]) * own["steps"])
    if injection == "dpo":  # each pair is two rows, for the model and for its reference
        return rows * (4 * arm["dpo"]["epochs"] + arm["dpo"]["warm_epochs"])
    return rows * float(arm["sft"]["epochs"])


def instruction_volume(rule: str, spec: Mapping[str, Any]) -> float:
    """How much a job writes, in units of its rule."""
    seeds, (_, _, parameters) = len(spec["seeds"]), shape(spec["instruction"]["model"])
    if rule == "plant_instruction":
        return seeds * len(spec["instruction"]["tasks"]) * parameters
    return seeds * (parameters if rule == "make_instruction_model" else 1.0)
