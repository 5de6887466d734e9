"""Phase 2: clean toy models, the backdoor planted in them, and how planting depends on parts and amount."""

TRAINING = [
    "seeds",
    "compute.device",
    "toy.model",
    *RECIPE,
    "toy.evaluation.top_k",
    "toy.evaluation.probes_per_epoch",
]


rule train_clean:
    """Clean models of all seeds (appendix A), stacked in one job."""
    input:
        **TOY_DATA,
    output:
        models=toy_models("clean"),
        curve=f"{TOY}/clean/curve.parquet",
        record=f"{TOY}/clean/run.json",
    log:
        f"{RESULTS}/logs/{{subject}}/train_clean.log",
    conda:
        TORCH_ENV
    threads: STUDY.compute.threads
    resources:
        **stage_resources(mem_mb=3000, runtime=240, gpu=True),
    params:
        **stage_params("train_clean", *TRAINING),
    message:
        f"{{wildcards.subject}}: training {len(STUDY.seeds)} clean models ({STUDY.toy.recipe} recipe)"
    shell:
        stage_shell(TOY_DATA_ARGUMENTS, "--models {output.models} --curve {output.curve}")


rule plant_backdoor:
    """The clean models, fine-tuned on the poisoned sequences."""
    input:
        **TOY_DATA,
        clean=toy_models("clean"),
    output:
        models=toy_models("backdoored"),
        curve=f"{TOY}/backdoored/curve.parquet",
        record=f"{TOY}/backdoored/run.json",
    log:
        f"{RESULTS}/logs/{{subject}}/plant_backdoor.log",
    # Everything that is measured waits for these models.
    priority: 20
    conda:
        TORCH_ENV
    threads: STUDY.compute.threads
    resources:
        **stage_resources(mem_mb=3000, runtime=240, gpu=True),
    params:
        **stage_params("plant_backdoor", *TRAINING),
    message:
        f"{{wildcards.subject}}: planting the backdoor in {len(STUDY.seeds)} models ({STUDY.toy.recipe} recipe)"
    shell:
        stage_shell(
            TOY_DATA_ARGUMENTS,
            "--clean {input.clean} --models {output.models} --curve {output.curve}",
        )


rule plant_variants:
    """The backdoor with parts frozen (section IV-B), and with less and more training."""
    input:
        **TOY_DATA,
        clean=toy_models("clean"),
    output:
        curves=f"{TOY}/variants/curves.parquet",
        record=f"{TOY}/variants/run.json",
    log:
        f"{RESULTS}/logs/{{subject}}/plant_variants.log",
    # The longest job: started early, it does not stand alone at the end.
    priority: 10
    conda:
        TORCH_ENV
    threads: STUDY.compute.threads
    resources:
        **stage_resources(mem_mb=3000, runtime=480, gpu=True),
    params:
        **stage_params("plant_variants", *TRAINING, "toy.frozen", "toy.amounts"),
    message:
        "{wildcards.subject}: planting the backdoor with frozen parts and other amounts of training"
    shell:
        stage_shell(TOY_DATA_ARGUMENTS, "--clean {input.clean} --curves {output.curves}")
