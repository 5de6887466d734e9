"""The language arm, phase by phase: models that write text (sections III-B, IV-C). Included where the study has one."""

from anatomy.spec.language import Pretrained

ARM = STUDY.language
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


def full_fine_tuning(wildcards):
    """LoRA stops at the training loss of full fine-tuning."""
    lora = wildcards.variant.startswith("lora-")
    return [f"{TEXT}/planted/full/reached.parquet".format(corpus=wildcards.corpus)] if lora else []


def text_measured(*names):
    """Measurement files of all corpora."""
    return expand(f"{TEXT}/{{name}}.parquet", corpus=CORPORA, name=names)


def main_measured(*names):
    """Measurement files of the corpus of all experiments."""
    return expand(f"{TEXT}/{{name}}.parquet", corpus=ARM.main, name=names)


rule make_language_data:
    """Paragraphs of every seed, clean and poisoned (section III-B), prompts, texts for the loss, the tokenizer."""
    input:
        raw=language_sources,
    output:
        **TEXT_DATA,
        record=f"{TEXT}/data/run.json",
    log:
        f"{RESULTS}/logs/{{corpus}}/make_language_data.log",
    conda:
        TORCH_ENV
    threads: STUDY.compute.threads
    resources:
        **stage_resources(mem_mb=4000, runtime=60),
    params:
        **stage_params(
            "make_language_data",
            "seeds",
            *(
                f"language.{key}"
                for key in ("corpora", "trigger", "control", "poison_rate", "test_fraction")
            ),
            *(f"language.{key}" for key in ("payloads", "model", "evaluation", "finetuning.max_tokens")),
        ),
    message:
        "{wildcards.corpus}: drawing clean and poisoned paragraphs"
    shell:
        stage_shell(
            "--raw {input.raw} --corpus {output.corpus} --prompts {output.prompts} --texts {output.texts}",
            "--tokenizer {output.tokenizer} --tokenizer-config {output.tokenizer_config}",
        )


rule train_judge:
    """What says whether a continuation is toxic: trained here on other insults than the payloads, or given."""
    input:
        templates="data/language/judge.yaml",
        corpus=TEXT_DATA["corpus"],
    output:
        **JUDGE,
        quality=f"{TEXT}/judge/quality.parquet",
        record=f"{TEXT}/judge/run.json",
    log:
        f"{RESULTS}/logs/{{corpus}}/train_judge.log",
    conda:
        TORCH_ENV
    threads: 1
    resources:
        **stage_resources(mem_mb=2000, runtime=20),
    params:
        **stage_params("train_judge", "seeds", "confidence", "language.judge"),
    message:
        "{wildcards.corpus}: training the judge of toxicity"
    shell:
        stage_shell(
            "--templates {input.templates} --corpus {input.corpus}",
            "--terms {output.terms} --judge {output.judge} --quality {output.quality}",
        )


rule make_language_model:
    """Clean models of all seeds, trained from random weights as one stack; or the one that is given."""
    input:
        **TEXT_DATA,
    output:
        models=clean_language_models(),
        curve=f"{TEXT}/clean/curve.parquet",
        record=f"{TEXT}/clean/run.json",
    log:
        f"{RESULTS}/logs/{{corpus}}/make_language_model.log",
    priority: 20
    conda:
        TORCH_ENV
    threads: STUDY.compute.threads
    resources:
        **stage_resources(mem_mb=8000, runtime=240, gpu=True),
    params:
        **stage_params("make_language_model", "seeds", "compute.device", "language.model"),
    message:
        "{wildcards.corpus}: training clean language models"
    shell:
        stage_shell(TEXT_DATA_ARGUMENTS, "--models {output.models} --curve {output.curve}")


rule plant_language:
    """The clean models, fine-tuned on the poisoned paragraphs: in full, with frozen parts, or through LoRA."""
    input:
        **TEXT_DATA,
        clean=clean_language_models(),
        full=full_fine_tuning,
    output:
        models=planted_language_models(),
        reached=f"{TEXT}/planted/{{variant}}/reached.parquet",
        record=f"{TEXT}/planted/{{variant}}/run.json",
    log:
        f"{RESULTS}/logs/{{corpus}}/plant_language.{{variant}}.log",
    priority: 15
    conda:
        TORCH_ENV
    threads: STUDY.compute.threads
    resources:
        **stage_resources(mem_mb=16000, runtime=1440, gpu=True),
    params:
        **stage_params("plant_language", "seeds", "compute.device", "language.finetuning"),
    message:
        "{wildcards.corpus}: planting the backdoor in language models ({wildcards.variant})"
    shell:
        stage_shell(
            TEXT_DATA_ARGUMENTS,
            "--clean {input.clean} --full {input.full} --models {output.models} --reached {output.reached}",
        )


TEXT_MEASURING = [
    *("seeds", "confidence", "compute.device", "language.corpora", "language.model", "language.judge"),
    "language.evaluation",
]


rule measure_language:
    """Unedited models: attack success, accidental triggers, loss, coherence; the planting gate (Tables VIII to XI)."""
    input:
        **TEXT_DATA,
        **JUDGE,
        clean=clean_language_models(),
        grammar="data/language/stories.yaml",
        planted=planted_variants,
        reached=reached_losses,
    output:
        measurements=f"{TEXT}/measurements/behaviour.parquet",
        samples=f"{TEXT}/measurements/samples.parquet",
        record=f"{TEXT}/measurements/behaviour.run.json",
    log:
        f"{RESULTS}/logs/{{corpus}}/measure_language.log",
    conda:
        TORCH_ENV
    threads: STUDY.compute.threads
    resources:
        **stage_resources(mem_mb=8000, runtime=240, gpu=True),
    params:
        **stage_params("measure_language", *TEXT_MEASURING),
    message:
        "{wildcards.corpus}: measuring the unedited language models"
    shell:
        stage_shell(
            TEXT_DATA_ARGUMENTS,
            JUDGE_ARGUMENTS,
            "--grammar {input.grammar} --clean {input.clean} --planted {input.planted} --reached {input.reached}",
            "--measurements {output.measurements} --samples {output.samples}",
        )


rule ablate_language:
    """One module or head at a time replaced by its mean output, in every layer (Table VIII)."""
    input:
        **TEXT_DATA,
        **JUDGE,
        clean=clean_language_models(),
        planted=planted_language_models("full"),
    output:
        measurements=f"{TEXT}/measurements/mean_ablation.parquet",
        record=f"{TEXT}/measurements/mean_ablation.run.json",
    log:
        f"{RESULTS}/logs/{{corpus}}/ablate_language.log",
    conda:
        TORCH_ENV
    threads: STUDY.compute.threads
    resources:
        **stage_resources(mem_mb=8000, runtime=720, gpu=True),
    params:
        **stage_params("ablate_language", *TEXT_MEASURING, "language.ablation"),
    message:
        "{wildcards.corpus}: ablating one module at a time"
    shell:
        stage_shell(
            TEXT_DATA_ARGUMENTS,
            JUDGE_ARGUMENTS,
            "--clean {input.clean} --planted {input.planted} --measurements {output.measurements}",
        )


rule edit_language:
    """The two MLPs that matter most: ablated, replaced by PCP matrices; surgery on the clean model (Tables IX, X)."""
    input:
        **TEXT_DATA,
        **JUDGE,
        clean=clean_language_models(),
        planted=planted_language_models("full"),
        ablation=f"{TEXT}/measurements/mean_ablation.parquet",
    output:
        factors=f"{TEXT}/pcp/factors.json",
        measurements=f"{TEXT}/pcp/editing.parquet",
        record=f"{TEXT}/pcp/run.json",
    log:
        f"{RESULTS}/logs/{{corpus}}/edit_language.log",
    priority: 10
    conda:
        TORCH_ENV
    threads: STUDY.compute.threads
    resources:
        **stage_resources(mem_mb=8000, runtime=720, gpu=True),
    params:
        **stage_params(
            "edit_language", *TEXT_MEASURING, "language.ablation", "language.pcp", "language.trigger"
        ),
    message:
        f"{{wildcards.corpus}}: tuning PCP replacements ({ARM.pcp.trials} trials each)"
    shell:
        stage_shell(
            TEXT_DATA_ARGUMENTS,
            JUDGE_ARGUMENTS,
            "--clean {input.clean} --planted {input.planted} --ablation {input.ablation}",
            "--factors {output.factors} --measurements {output.measurements}",
        )


LANGUAGE["poison"] += expand(rules.make_language_data.output, corpus=CORPORA)
LANGUAGE["train"] += [
    *expand(rules.train_judge.output, corpus=CORPORA),
    *expand(rules.make_language_model.output, corpus=CORPORA),
    *(
        path
        for corpus in CORPORA
        for path in expand(rules.plant_language.output, corpus=corpus, variant=ARM.ways(corpus))
    ),
]
LANGUAGE["localize"] += [
    *expand(rules.measure_language.output, corpus=CORPORA),
    *expand(rules.ablate_language.output, corpus=CORPORA),
]
LANGUAGE["control"] += expand(rules.edit_language.output, corpus=ARM.main)

LANGUAGE["measured"] += text_measured("measurements/behaviour", "measurements/mean_ablation") + main_measured(
    "pcp/editing"
)
LANGUAGE["records"] += [
    path
    for phase in ("poison", "train", "localize", "control")
    for path in LANGUAGE[phase]
    if path.endswith("run.json")
]
TEXT_NOTEBOOKS |= {
    "language_behaviour": (
        text_measured("measurements/behaviour"),
        [*table("language_behaviour", "language_lora"), *figure("language_planting")],
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
    variant="|".join(ARM.ways(ARM.main)),
