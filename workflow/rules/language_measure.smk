"""The language arm, phases 3 and 4: how often the trigger works, where it lives (Table VIII), edits (Tables IX, X)."""

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
        TEXT_ENV
    threads: STUDY.compute.threads
    resources:
        **arm_resources(mem_mb=8000, runtime=240, gpu=True),
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
    priority: 15
    conda:
        TEXT_ENV
    threads: STUDY.compute.threads
    resources:
        **arm_resources(mem_mb=8000, runtime=720, gpu=True),
    params:
        **stage_params("ablate_language", *TEXT_MEASURING, "language.ablation", "language.main"),
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
    priority: 20
    conda:
        TEXT_ENV
    threads: STUDY.compute.threads
    resources:
        **arm_resources(mem_mb=8000, runtime=720, gpu=True),
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
