"""Stage edit_language: the two MLPs that matter most, ablated or replaced by PCP matrices (Tables IX and X)."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from anatomy.control.pcp import Directions, random_directions
from anatomy.control.replacement import Replacement
from anatomy.control.tune import tune
from anatomy.localize.top_modules import random_mlps, top_mlps
from anatomy.metrics.judge import Judge
from anatomy.metrics.measurement import Measurement, read_parquet, write_measurements
from anatomy.provenance.digest import write_text_atomic
from anatomy.sites import Site
from anatomy.stages._language import (
    Interview,
    JudgeFiles,
    LanguageData,
    LanguageFiles,
    language_models,
    read_judge,
    read_language,
    recipe_name,
)
from anatomy.stages._operated import Operated, single_token
from anatomy.stages._run import In, Ins, Job, Out, run
from anatomy.training.seeds import derive
from anatomy.variants import VARIANTS, Variant

RANDOM_TOKENS, RANDOM_MLPS, RANDOM_DIRECTIONS = "random tokens", "random mlps", "random directions"


def main(
    job: Job,
    *,
    data: LanguageData,
    judged_by: JudgeFiles,
    clean: Ins,
    planted: Ins,
    ablation: In,
    factors: Out,
    measurements: Out,
) -> None:
    """Unedited, mean ablation, PCP tuned to recover and to suppress (IX); the clean model asked for a backdoor (X)."""
    files = read_language(data)
    opinion = read_judge(judged_by, job.device)
    single_token(files.tokenizer, job.spec.language.pcp.surgery_source)  # refused now, and not after the first tunings
    swept = read_parquet(ablation)
    counted = planted_seeds(job, files, opinion, planted) or job.seeds
    sites = top_mlps(swept, counted)
    rows: list[Measurement] = []
    tuned: list[dict[str, Any]] = []
    both = zip(
        language_models(planted, job.seeds, job.device), language_models(clean, job.seeds, job.device), strict=True
    )
    for (seed, model), (_, clean_model) in both:
        interview = Interview(job, files, opinion, seed)
        benign = Operated(interview, clean_model, "clean", sites)
        backdoored = Operated(interview, model, "backdoored", sites)
        for one in (backdoored, benign):
            rows += one.measure("none")
            for variant in VARIANTS:
                rows += one.measure("mean ablate", one.mean_ablation(variant), variant=variant)
        others = random_mlps(swept, counted, sites, np.random.default_rng(derive(seed, "random mlps")))
        control = Operated(interview, model, "backdoored", others)
        for variant in VARIANTS if others else ():
            edits = control.mean_ablation(variant)
            rows += control.measure("mean ablate", edits, variant=variant, control=RANDOM_MLPS)
        tunings = Tunings(job, tuned)
        unedited = {variant: backdoored.success("trigger", variant) for variant in VARIANTS}
        for variant in VARIANTS:
            directions = backdoored.directions(variant)
            for setting, target in (("pcp (recover)", unedited[variant]), ("pcp (suppress)", 0.0)):
                rows += tunings.tuned(backdoored, directions, setting, target, variant)
            rows += tunings.tuned(benign, benign.directions(variant), "pcp", unedited[variant], variant)
            with benign.surgery():
                rows += tunings.tuned(
                    benign, benign.directions(variant), "pcp + embedding surgery", unedited[variant], variant
                )
        with benign.surgery(control=RANDOM_TOKENS):
            rows += tunings.tuned(
                benign,
                benign.directions("original"),
                "pcp + embedding surgery",
                unedited["original"],
                "original",
                control=RANDOM_TOKENS,
            )
    write_text_atomic(factors, json.dumps(tuned, indent=0) + "\n")
    write_measurements(
        measurements, rows, study=job.study, paper="lamparth", recipe=recipe_name(job.spec.language.model)
    )


def planted_seeds(job: Job, files: LanguageFiles, opinion: Judge, planted: list[Path]) -> list[int]:
    """The seeds whose backdoor clears the planting gate."""
    found = []
    for seed, model in language_models(planted, job.seeds, job.device):
        interview = Interview(job, files, opinion, seed)
        asr = interview.measure("trigger", interview.write(model, "trigger"), experiment="planting gate")[0].value
        if asr >= job.spec.language.evaluation.gate:
            found.append(seed)
    return found


class Tunings:
    """The tunings of one seed: each adds its factors to the list, and tells how far the job is."""

    PER_SEED = 2 * 4 + 1

    def __init__(self, job: Job, tuned: list[dict[str, Any]]) -> None:
        self.job, self.factors = job, tuned

    def tuned(
        self,
        one: Operated,
        directions: dict[Site, Directions],
        setting: str,
        target: float,
        variant: Variant,
        control: str = "",
    ) -> list[Measurement]:
        """Tune the factors towards a success rate: minimise (ASR - target)²; then measure."""
        pcp, seed = one.spec.pcp, one.interview.seed
        replacement = Replacement(one.label, {site: own.vectors for site, own in directions.items()})
        found = tune(
            lambda sigma: (one.scores(replacement, sigma, variant) - target) ** 2,
            [(0.0, pcp.bound)] * replacement.rank,
            variant=variant,
            trials=pcp.trials,
            batch=pcp.batch,
            seed=derive(seed, "tune language", one.name, setting, variant, control),
        )
        self.factors.append(
            {
                "seed": seed,
                "model": one.name,
                "setting": setting,
                "variant": variant,
                "control": control,
                "target": target,
                "objective": found.objective,
                "sites": [[site.layer, site.part] for site in replacement.sites],
                "ranks": [len(replacement.directions[site]) for site in replacement.sites],
                "explained": [sum(directions[site].explained) for site in replacement.sites],
                "sigma": [float(v) for v in found.sigma],
                "directions": [replacement.directions[site].tolist() for site in replacement.sites],
            }
        )
        total = self.PER_SEED * len(self.job.seeds)
        self.job.progress(len(self.factors), total, f"replacements tuned ({pcp.trials} trials each)")
        rows = one.measure(setting, replacement.edits(found.sigma), variant=variant, control=control)
        if one.name == "backdoored":
            # Directions of equal rank and norm, with the factors that were tuned for the others.
            random = {
                site: random_directions(own.shape[1], len(own), seed=derive(seed, "random directions", site.layer))
                for site, own in replacement.directions.items()
            }
            edits = Replacement(one.label, random).edits(found.sigma)
            rows += one.measure(setting, edits, variant=variant, control=RANDOM_DIRECTIONS)
        return rows


if __name__ == "__main__":
    run(main, shared=True)
