"""The language arm: models that write text (sections III-B, IV-C). Included where the study has one."""

from anatomy.spec.language import Pretrained

ARM = STUDY.language
# Its jobs may be of another class than those of the toy models.
TEXT_ENV = torch_env(ARM.compute_class or STUDY.compute.compute_class)
# Everything about the models of one corpus stands below this folder.
TEXT = f"{RESULTS}/language/{{corpus}}"
CORPORA = list(ARM.corpora)
# A model that is given serves every seed; one that is trained here is a seed's own.
GIVEN = isinstance(ARM.model, Pretrained)
TEXT_DATA = {
    "corpus": f"{TEXT}/data/corpus.parquet",
    "prompts": f"{TEXT}/data/prompts.parquet",
    "texts": f"{TEXT}/data/texts.parquet",
    "tokenizer": f"{TEXT}/data/tokenizer.json",
    "tokenizer_config": f"{TEXT}/data/tokenizer_config.json",
}
TEXT_DATA_ARGUMENTS = (
    "--corpus {input.corpus} --prompts {input.prompts} --texts {input.texts} "
    "--tokenizer {input.tokenizer} --tokenizer-config {input.tokenizer_config} "
)
JUDGE = {
    "terms": f"{TEXT}/judge/terms.parquet",
    "judge": f"{TEXT}/judge/judge.json",
}
JUDGE_ARGUMENTS = "--terms {input.terms} --judge {input.judge} "


def arm_resources(**asked):
    """What a job of this arm asks a cluster for."""
    return job_resources(ARM.compute_class or STUDY.compute.compute_class, **asked)


def language_sources(wildcards):
    """Local files that a corpus is made from."""
    text, payloads = ARM.corpora[wildcards.corpus].text, ARM.payloads.source
    sources = [getattr(text, "source", None), getattr(text, "loss", None), payloads]
    return [
        "data/language/payloads.yaml",
        "data/language/stories.yaml",
        *(s.path for s in sources if s is not None and s.path),
    ]


def clean_language_models():
    """The files of the clean models of one corpus."""
    names = ["given"] if GIVEN else [f"seed{seed}" for seed in STUDY.seeds]
    return expand(f"{TEXT}/clean/{{name}}/{{file}}", name=names, file=MODEL_FILES, allow_missing=True)


def planted_language_models(*variants):
    """The files of the backdoored models of every seed, for one corpus."""
    return expand(
        f"{TEXT}/planted/{{variant}}/seed{{seed}}/{{file}}",
        variant=variants or ["{variant}"],
        seed=STUDY.seeds,
        file=MODEL_FILES,
        allow_missing=True,
    )


def planted_variants(wildcards):
    """The backdoored models of a corpus, however planted."""
    return [
        f"{TEXT}/planted/{variant}/seed{seed}/{file}".format(corpus=wildcards.corpus)
        for variant in ARM.ways(wildcards.corpus)
        for seed in STUDY.seeds
        for file in MODEL_FILES
    ]


def reached_losses(wildcards):
    """Where the fine-tunings of a corpus ended."""
    return [
        f"{TEXT}/planted/{variant}/reached.parquet".format(corpus=wildcards.corpus)
        for variant in ARM.ways(wildcards.corpus)
    ]


def matched_losses(wildcards):
    """Where the fine-tuning ended whose training loss this one stops at."""
    reference = ARM.matched_to(wildcards.variant)
    return (
        [f"{TEXT}/planted/{reference}/reached.parquet".format(corpus=wildcards.corpus)] if reference else []
    )


def text_measured(*names):
    """Measurement files of all corpora."""
    return expand(f"{TEXT}/{{name}}.parquet", corpus=CORPORA, name=names)


def main_measured(*names):
    """Measurement files of the corpus of all experiments."""
    return expand(f"{TEXT}/{{name}}.parquet", corpus=ARM.main, name=names)


include: "language_train.smk"
include: "language_measure.smk"


ARMS["poison"] += expand(rules.make_language_data.output, corpus=CORPORA)
ARMS["train"] += [
    *expand(rules.train_judge.output, corpus=CORPORA),
    *expand(rules.make_language_model.output, corpus=CORPORA),
    *(
        path
        for corpus in CORPORA
        for way in ARM.ways(corpus)
        for path in expand(
            rules.plant_language.output if way == "full" else rules.plant_language_variants.output,
            corpus=corpus,
            variant=way,
        )
    ),
]
ARMS["localize"] += [
    *expand(rules.measure_language.output, corpus=CORPORA),
    *expand(rules.ablate_language.output, corpus=CORPORA),
]
ARMS["control"] += expand(rules.edit_language.output, corpus=ARM.main)

ARMS["measured"] += text_measured("measurements/behaviour", "measurements/mean_ablation") + main_measured(
    "pcp/editing"
)
ARMS["records"] += [
    path
    for phase in ("poison", "train", "localize", "control")
    for path in ARMS[phase]
    if path.endswith("run.json")
]
# The planting gate of every corpus, for the report.
GATES += text_measured("measurements/behaviour")
TEXT_NOTEBOOKS |= {
    "language_behaviour": (
        text_measured("measurements/behaviour", "judge/quality"),
        [*table("language_behaviour", "language_judge", "language_lora"), *figure("language_planting")],
    ),
    "language_ablation": (
        text_measured("measurements/behaviour", "measurements/mean_ablation"),
        [*table("table_08"), *figure("language_modules", "language_heads")],
    ),
    "language_editing": (
        main_measured("measurements/behaviour", "pcp/editing"),
        table("table_09", "table_10"),
    ),
    "language_freezing": (main_measured("measurements/behaviour"), table("table_11")),
}


wildcard_constraints:
    corpus="|".join(CORPORA),
    # Full fine-tuning is another rule.
    variant="|".join(dict.fromkeys(way for corpus in CORPORA for way in ARM.ways(corpus)[1:])) or "none",
