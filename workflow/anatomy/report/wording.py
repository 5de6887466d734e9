"""Conditions that a claim says in words, because what they are called depends on a model's shape or on the study.

- a `setting` of "no part", "about 3 % of the parts" or "all parts": of the measured numbers of parts the nearest, as
  in "1/36"; "about" some is at least one
- a `setting` of "mlp, every layer": all settings that begin with "mlp, "
- a `site` of "every head": all heads; of "every layer but the first": all layers of the measured model above its first
- a `site` of "mlp, first third of the layers", "attn, last third of the layers" or "module, every layer": those
  modules, MLPs and attention alike where it says module; with ", model whole" behind it only those without which the
  model still writes text (as localize.top_modules leaves them out), under the claim's other conditions
- a `variant` of "main evaluator": exact answers, or where no answer can be exact, the released code's keywords
"""

import re
from collections.abc import Iterable, Mapping

import pandas as pd

from anatomy.localize.top_modules import INCOHERENT
from anatomy.report.ranking import small_on_average

Select = Mapping[str, str | list[str]]
PARTS = re.compile(r"(?P<none>no part)|(?P<all>all parts)|about (?P<percent>\d+(\.\d+)?) % of the parts")
EVERY = ", every layer"
MODULES = re.compile(
    r"(mlp|attn|module), (every layer|first third of the layers|last third of the layers)(, model whole)?"
)
EVERY_HEAD, UPPER = "every head", "every layer but the first"


def in_the_words_of(measurements: pd.DataFrame, select: Select) -> dict[str, str | list[str]]:
    """The conditions as the measurements have them; words that nothing measured answers to stay."""
    found = dict(select)
    places = MODULES.fullmatch(str(found.get("site", "")))
    said = bool(places) or found.get("site") in (EVERY_HEAD, UPPER)
    own = _under(measurements, found, ["experiment", "metric"] if said else ["experiment", "site", "metric"])
    if places:
        alike = _under(measurements, found, set(found) - {"site", "metric"})
        found["site"] = _modules(places, alike) or str(found["site"])
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


def _under(rows: pd.DataFrame, select: Select, names: Iterable[str]) -> pd.DataFrame:
    """The rows under those of the conditions that are named."""
    for name in names:
        if (wanted := select.get(name)) is not None:
            rows = rows[rows[name].isin([wanted] if isinstance(wanted, str) else wanted)]
    return rows


def _modules(words: re.Match[str], rows: pd.DataFrame) -> list[str]:
    kind, layers, whole = words.groups()
    sites = rows.site.drop_duplicates().str.extract(r"^(?P<site>layer (?P<layer>\d+) (?P<kind>attn|mlp))$").dropna()
    layer = sites.layer.astype(int)
    third = max(layer.max() // 3, 1)
    kept = {"first": layer <= third, "last": layer > layer.max() - third}.get(layers.split()[0], layer > 0)
    found = sites[kept & sites.kind.isin(["mlp", "attn"] if kind == "module" else [kind])].site
    if whole:
        degeneration = rows[(rows.metric == "degeneration") & rows.site.isin(found)]
        found = found[found.isin(small_on_average(degeneration, "site", INCOHERENT))]
    return list(found)


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
