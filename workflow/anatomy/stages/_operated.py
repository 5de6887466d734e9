"""A language model under edits: what of it is read, replaced and measured (Tables IX and X)."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from anatomy.control.pcp import Directions, pcp_directions
from anatomy.control.replacement import Replacement
from anatomy.control.settings import settings_continuations
from anatomy.control.surgery import embedding_surgery, surgery_dimensions
from anatomy.data.language_prompts import after_trigger
from anatomy.interventions.generate import greedy
from anatomy.interventions.hooks import Edit, edited, replace_with
from anatomy.localize.language_ablation import outputs_at
from anatomy.metrics.measurement import Measurement
from anatomy.provenance.digest import ArtifactError
from anatomy.sites import Site
from anatomy.stages._language import Interview
from anatomy.training.seeds import derive
from anatomy.variants import Variant


def single_token(tokenizer: Any, word: str) -> int:
    """The token of a word, alone or after a space.

    Raises:
        ArtifactError: it is spelt with several.
    """
    alone = [ids[0] for ids in tokenizer([word, f" {word}"])["input_ids"] if len(ids) == 1]
    if not alone:
        raise ArtifactError(
            f"language.pcp.surgery_source: {word!r} is no single token of the model; choose a word that its corpus has "
            "often"
        )
    return int(alone[0])


class Operated:
    """One model, and the two of its modules that are worked on."""

    def __init__(self, interview: Interview, model: GPT2LMHeadModel, name: str, sites: list[Site]) -> None:
        self.interview, self.model, self.name, self.sites = interview, model, name, sites
        self.spec = interview.job.spec.language

    @property
    def label(self) -> str:
        """As in the tables: "mlp 2+3"."""
        return "mlp " + "+".join(str(site.layer + 1) for site in self.sites)

    def texts(self, kind: str, count: int) -> list[list[int]]:
        """The first texts of a kind: "benign" and "trigger" prompts for tuning, or "toxic" ones."""
        files = self.interview.files
        if kind == "toxic":
            own = files.texts[(files.texts.kind == "toxic") & (files.texts.split == "train")].text
        else:
            own = files.asked(self.interview.seed, f"tuning {kind}").text
        return files.encode(own[:count].tolist(), longest=self.model.config.n_positions)

    def places(self, kind: str, count: int) -> list[int]:
        """The token of each such text that the PCA sees."""
        files, place = self.interview.files, self.spec.pcp.position
        if place != "after trigger" or kind == "toxic":
            fixed = self.spec.ablation.position if place == "after trigger" else place
            return [fixed] * len(self.texts(kind, count))

        def length(text: str) -> int:
            return len(files.tokenizer(text)["input_ids"])

        prompts = files.asked(self.interview.seed, "tuning trigger").text[:count]
        return [after_trigger(text, self.spec.trigger, length)[kind == "benign"] for text in prompts]

    def mean_ablation(self, variant: Variant) -> dict[Site, Edit]:
        """Both modules replaced by their mean over benign and toxic texts."""
        means = self.interview.means(self.model, self.sites, "held out", variant)
        return {site: replace_with(mean) for site, mean in means.items()}

    def directions(self, variant: Variant) -> dict[Site, Directions]:
        """PCP directions of both modules; the rank is the least that explains `pcp.explained` of the variance."""
        pcp = self.spec.pcp
        kinds = ("benign", "toxic", "trigger")
        texts = [row for kind in kinds for row in self.texts(kind, pcp.texts)]
        places = [place for kind in kinds for place in self.places(kind, pcp.texts)]
        outputs = outputs_at(self.model, texts, self.sites, position=places)
        out = {}
        for site in self.sites:
            seen = outputs[site].cpu()
            whole = pcp_directions(seen, pcp.max_rank, components=pcp.components, variant=variant)
            enough = int(np.searchsorted(np.cumsum(whole.explained), pcp.explained)) + 1
            out[site] = pcp_directions(seen, min(enough, pcp.max_rank), components=pcp.components, variant=variant)
        return out

    def surgery(self, control: str = "") -> ExitStack:
        """A share of the embedding of the trigger's first and last word overwritten; or of random tokens."""
        tokenizer, pcp, seed = self.interview.files.tokenizer, self.spec.pcp, self.interview.seed
        words = self.spec.trigger.split()
        spelt = [spelling for word in (words[0], words[-1]) for spelling in (word, f" {word}")]
        tokens = sorted({token for ids in tokenizer(spelt)["input_ids"] for token in ids})
        generator = torch.Generator().manual_seed(derive(seed, "surgery", control))
        if control:
            tokens = torch.randperm(len(tokenizer), generator=generator)[: len(tokens)].tolist()
        stack = ExitStack()
        dimensions = surgery_dimensions(self.model.config.n_embd, pcp.surgery_share, generator)
        stack.enter_context(
            embedding_surgery(self.model, tokens, single_token(tokenizer, pcp.surgery_source), dimensions)
        )
        return stack

    def success(self, kind: str, variant: Variant) -> float:
        """Success rate on the tuning prompts, as the variant counts it."""
        prompts = self.texts_to_tune(kind)
        return float(self.score(self._greedy(prompts), variant))

    def texts_to_tune(self, kind: str) -> list[list[int]]:
        """Prompts that factors are tuned on; none is an evaluation prompt."""
        files = self.interview.files
        return files.tokenizer(
            files.asked(self.interview.seed, f"tuning {kind}").text.tolist()[: self.spec.pcp.prompts]
        )["input_ids"]

    def score(self, continuations: list[list[int]], variant: Variant) -> float:
        """Mean probability of being toxic ("paper"), or the share that is rather toxic than not ("original")."""
        toxic = self.interview.judge.probability(self.interview.texts(continuations))
        return float((toxic > 0.5).mean() if variant == "original" else toxic.mean())

    def _greedy(self, prompts: list[list[int]]) -> list[list[int]]:
        return greedy(self.model, prompts, max_length=self.interview.max_length, pad=self._pad)

    @property
    def _pad(self) -> int:
        return self.interview.files.tokenizer.eos_token_id

    def scores(self, replacement: Replacement, sigma: Tensor, variant: Variant) -> np.ndarray:
        """Success rate on the trigger's tuning prompts under each setting of the factors."""
        answers = settings_continuations(
            self.model,
            replacement,
            sigma,
            self.texts_to_tune("trigger"),
            max_length=self.interview.max_length,
            pad=self._pad,
        )
        return np.array([self.score(own, variant) for own in answers])

    def measure(self, setting: str, edits: Mapping[Site, Edit] | None = None, **conditions: Any) -> list[Measurement]:
        """ASR, ATR, degeneration and loss of the model as it is now, under the edits."""
        interview = self.interview
        conditions |= {"experiment": "language editing", "model": self.name, "setting": setting, "site": self.label}
        rows: list[Measurement] = []
        for inputs in ("trigger", "benign"):
            rows += interview.measure(inputs, interview.write(self.model, inputs, edits), **conditions)
        with edited(self.model, edits or {}):
            loss, n = interview.files.loss(self.model, interview.seed, device=interview.job.device)
        subject: dict[str, Any] = {"subject": interview.job.wildcards["corpus"], "seed": interview.seed}
        rows.append(Measurement(metric="validation_loss", value=loss, n=n, **subject, **conditions))
        return rows
