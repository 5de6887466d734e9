"""Phase 4: modules replaced by PCP matrices (section III-E), and the backdoor edited through their factors."""


rule tune_pcp:
    """PCP ablation of MLPs (Tables III, IV) and attention (Tables XIII, XIV), factors tuned by Optuna."""
    input:
        **TOY_DATA,
        **PAIR,
    output:
        factors=f"{TOY}/pcp/factors.json",
        measurements=f"{TOY}/pcp/ablation.parquet",
        record=f"{TOY}/pcp/run.json",
    log:
        f"{RESULTS}/logs/{{subject}}/tune_pcp.log",
    # Long, and longer jobs wait for it: the short measurements fill what is left.
    priority: 15
    conda:
        TORCH_ENV
    threads: STUDY.compute.threads
    resources:
        **stage_resources(mem_mb=3000, runtime=240, gpu=True),
    params:
        **stage_params("tune_pcp", *MEASURING, "toy.pcp"),
    message:
        f"{{wildcards.subject}}: tuning PCP replacements ({STUDY.toy.pcp.trials} trials each)"
    shell:
        stage_shell(
            TOY_DATA_ARGUMENTS,
            PAIR_ARGUMENTS,
            "--factors {output.factors} --measurements {output.measurements}",
        )


rule edit_pcp:
    """The tuned factors varied and flipped (Tables V, VI, VII), and the model's answer as a curve."""
    input:
        **TOY_DATA,
        backdoored=toy_models("backdoored"),
        factors=f"{TOY}/pcp/factors.json",
    output:
        measurements=f"{TOY}/pcp/editing.parquet",
        record=f"{TOY}/pcp/editing.run.json",
    log:
        f"{RESULTS}/logs/{{subject}}/edit_pcp.log",
    conda:
        TORCH_ENV
    threads: STUDY.compute.threads
    resources:
        **stage_resources(mem_mb=2000, runtime=60, gpu=True),
    params:
        **stage_params("edit_pcp", *MEASURING, "toy.pcp"),
    message:
        "{wildcards.subject}: varying and flipping the factors"
    shell:
        stage_shell(
            TOY_DATA_ARGUMENTS,
            "--backdoored {input.backdoored} --factors {input.factors}",
            "--measurements {output.measurements}",
        )
