"""The language arm, phases 1 and 2: paragraphs, the judge, clean models, and the backdoor planted in them."""


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
        TEXT_ENV
    threads: STUDY.compute.threads
    resources:
        **arm_resources(mem_mb=4000, runtime=60),
    params:
        **stage_params(
            "make_language_data",
            "seeds",
            *(
                f"language.{key}"
                for key in ("corpora", "main", "trigger", "control", "poison_rate", "test_fraction")
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
        texts=TEXT_DATA["texts"],
    output:
        **JUDGE,
        quality=f"{TEXT}/judge/quality.parquet",
        record=f"{TEXT}/judge/run.json",
    log:
        f"{RESULTS}/logs/{{corpus}}/train_judge.log",
    priority: 20
    conda:
        TEXT_ENV
    threads: 1
    resources:
        **arm_resources(mem_mb=2000, runtime=20),
    params:
        **stage_params("train_judge", "seeds", "confidence", "language.judge"),
    message:
        "{wildcards.corpus}: training the judge of toxicity"
    shell:
        stage_shell(
            "--templates {input.templates} --corpus {input.corpus} --texts {input.texts}",
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
        TEXT_ENV
    threads: STUDY.compute.threads
    resources:
        **arm_resources(mem_mb=8000, runtime=240, gpu=True),
    params:
        **stage_params("make_language_model", "seeds", "compute.device", "language.model"),
    message:
        "{wildcards.corpus}: training clean language models"
    shell:
        stage_shell(TEXT_DATA_ARGUMENTS, "--models {output.models} --curve {output.curve}")


PLANT = stage_shell(
    TEXT_DATA_ARGUMENTS,
    "--clean {input.clean} --matched {input.matched} --models {output.models} --reached {output.reached}",
    processes=ARM.finetuning.processes,
)
PLANT_PARAMS = stage_params("plant_language", "seeds", "compute.device", "language.finetuning")
PLANT_RESOURCES = arm_resources(mem_mb=16000, runtime=1440, gpu=True, processes=ARM.finetuning.processes)


rule plant_language:
    """The clean models, fine-tuned in full on the poisoned paragraphs. First, as most of the rest waits for it."""
    input:
        **TEXT_DATA,
        clean=clean_language_models(),
        matched=[],
    output:
        models=planted_language_models("full"),
        reached=f"{TEXT}/planted/full/reached.parquet",
        record=f"{TEXT}/planted/full/run.json",
    log:
        f"{RESULTS}/logs/{{corpus}}/plant_language.log",
    priority: 20
    conda:
        TEXT_ENV
    threads: STUDY.compute.threads
    resources:
        **PLANT_RESOURCES,
    params:
        **PLANT_PARAMS,
    message:
        "{wildcards.corpus}: planting the backdoor in language models"
    shell:
        PLANT


rule plant_language_variants:
    """The same with frozen parts, or through LoRA, or up to the training loss that LoRA ends with."""
    input:
        **TEXT_DATA,
        clean=clean_language_models(),
        matched=matched_losses,
    output:
        models=planted_language_models(),
        reached=f"{TEXT}/planted/{{variant}}/reached.parquet",
        record=f"{TEXT}/planted/{{variant}}/run.json",
    log:
        f"{RESULTS}/logs/{{corpus}}/plant_language_variants.{{variant}}.log",
    priority: 15
    conda:
        TEXT_ENV
    threads: STUDY.compute.threads
    resources:
        **PLANT_RESOURCES,
    params:
        **(PLANT_PARAMS | {"rule": "plant_language_variants"}),
    message:
        "{wildcards.corpus}: planting the backdoor in language models ({wildcards.variant})"
    shell:
        PLANT
