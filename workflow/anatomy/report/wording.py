"""Conditions that a claim says in words, because what they are called depends on a model's shape or on the study.

- a `setting` of "no part", "about 3 % of the parts" or "all parts": of the measured numbers of parts the nearest, as
  in "1/36"; "about" some is at least one
- a `setting` of "mlp, every layer": all settings that begin with "mlp, "
- a `site` of "every head": all heads; of "every layer but the first": all layers of the measured model above its first
- a `variant` of "main evaluator": exact answers, or where no answer can be exact, the released code's keywords
"""

import re
from collections.abc import Mapping

import pandas as pd

Select = Mapping[str, str | list[str]]
PARTS = re.compile(r"(?P<none>no part)|(?P<all>all parts)|about (?P<percent>\d+(\.\d+)?) % of the parts")
EVERY = ", every layer"
EVERY_HEAD, UPPER = "every head", "every layer but the first"


def in_the_words_of(measurements: pd.DataFrame, select: Select) -> dict[str, str | list[str]]:
    """The conditions as the measurements have them; words that nothing measured answers to stay."""
    found = dict(select)
    own = measurements
    for name in ("experiment", "site", "metric"):
        wanted = found.get(name)
        if wanted is not None and wanted not in (EVERY_HEAD, UPPER):
            own = own[own[name].isin([wanted] if isinstance(wanted, str) else wanted)]
    if found.get("site") == EVERY_HEAD:
        heads = own.site[own.site.str.contains(r" att\d", regex=True)].drop_duplicates()
        found["site"] = list(heads) or EVERY_HEAD
    if found.get("site") == UPPER:
        layers = own.site[own.site.str.fullmatch(r"layer \d+") & (own.site != "layer 1")].drop_duplicates()
        found["site"] = list(layers) or UPPER
    if found.get("variant") == "main evaluator":
        found["variant"] = "exact" if (own.variant == "exact").any() else "original"
    setting = found.get("setting")
    if isinstance(setting, str):
        found["setting"] = _setting(setting, own.setting.drop_duplicates())
    return found


def _setting(words: str, measured: pd.Series) -> str | list[str]:
    if words.endswith(EVERY):
        return list(measured[measured.str.startswith(words.removesuffix(EVERY) + ", ")]) or words
    parts = PARTS.fullmatch(words)
    counts = [(setting, *map(int, setting.split("/"))) for setting in measured if re.fullmatch(r"\d+/\d+", setting)]
    if parts is None or not counts:
        return words
    if parts["none"]:
        return min(counts, key=lambda one: one[1])[0]
    share = 1.0 if parts["all"] else float(parts["percent"]) / 100
    some = [one for one in counts if one[1] > 0] or counts
    return min(some, key=lambda one: abs(one[1] / one[2] - share))[0]
