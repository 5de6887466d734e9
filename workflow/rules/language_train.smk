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


rule plant_language:
    """The clean models, fine-tuned on the poisoned paragraphs: in full, with frozen parts, or through LoRA."""
    input:
        **TEXT_DATA,
        clean=clean_language_models(),
        matched=matched_losses,
    output:
        models=planted_language_models(),
        reached=f"{TEXT}/planted/{{variant}}/reached.parquet",
        record=f"{TEXT}/planted/{{variant}}/run.json",
    log:
        f"{RESULTS}/logs/{{corpus}}/plant_language.{{variant}}.log",
    priority: 15
    conda:
        TEXT_ENV
    threads: STUDY.compute.threads
    resources:
        **arm_resources(mem_mb=16000, runtime=1440, gpu=True),
    params:
        **stage_params("plant_language", "seeds", "compute.device", "language.finetuning"),
    message:
        "{wildcards.corpus}: planting the backdoor in language models ({wildcards.variant})"
    shell:
        stage_shell(
            TEXT_DATA_ARGUMENTS,
            "--clean {input.clean} --matched {input.matched} --models {output.models} --reached {output.reached}",
        )
