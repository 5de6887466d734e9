"""Phase 5: tables and figures from measurements, each group by its notebook; claims; the report; the manifest."""

PUBLISHED = "data/published/lamparth_reuel_2023.csv"


CURVES = toy_files("clean/curve.parquet", "backdoored/curve.parquet", "variants/curves.parquet")
EDITING = ["pcp/ablation", "pcp/editing"]
# Notebook -> what it reads and what it makes. The order is the report's.
NOTEBOOKS = {
    "concept": (toy_files("data/corpus.parquet"), figure("figure_01", "figure_02")),
    "behaviour": (measured(), [*table("behaviour"), *figure("behaviour")]),
    "training_amount": (
        [*CURVES, *measured()],
        [*table("training_amount"), *figure("training_amount")],
    ),
    "freezing": ([*CURVES, *measured()], [*table("freezing"), *figure("freezing")]),
    "hidden_states": (measured("measurements/hidden_states"), figure("figure_03")),
    "mean_ablation": (
        measured("measurements/mean_ablation"),
        [*table("table_01"), *figure("mean_ablation")],
    ),
    "logit_lens": (
        measured("measurements/logit_lens"),
        [*table("table_02"), *figure("logit_lens")],
    ),
    "causal_patching": (
        measured("measurements/causal_patching"),
        [*table("table_12"), *figure("causal_patching")],
    ),
    "pcp_mlp": (
        measured("pcp/ablation"),
        [*table("table_03", "table_04"), *figure("pcp_mlp")],
    ),
    "pcp_attention": (
        measured("pcp/ablation"),
        [*table("table_13", "table_14"), *figure("pcp_attention")],
    ),
    "editing": (
        measured(*EDITING),
        [*table("table_05", "table_06", "table_07"), *figure("factor_sweep")],
    ),
    "variants": (
        measured(*LOCALISATION, *EDITING),
        [*table("variants"), *figure("variants")],
    ),
}
RENDERED = [path for _, outputs in NOTEBOOKS.values() for path in outputs]
TABLES = [path for path in RENDERED if "/tables/" in path]
FIGURES = [path for path in RENDERED if "/figures/" in path]


for NAME, (INPUTS, OUTPUTS) in NOTEBOOKS.items():

    rule:
        name:
            f"render_{NAME}"
        input:
            notebook=f"notebooks/{NAME}.ipynb",
            inputs=INPUTS,
            published=PUBLISHED,
        output:
            outputs=OUTPUTS,
            record=f"{RESULTS}/records/render_{NAME}.run.json",
        log:
            f"{RESULTS}/logs/render_{NAME}.log",
            notebook=f"{RESULTS}/notebooks/{NAME}.ipynb",
        conda:
            "../../envs/notebook.yaml"
        threads: 1
        resources:
            mem_mb=2000,
            runtime=20,
        params:
            **notebook_params(NAME),
        message:
            f"rendering {NAME.replace('_', ' ')}"
        shell:
            stage_shell(
                "--notebook {input.notebook} --inputs {input.inputs} --published {input.published}",
                "--outputs {output.outputs}",
            )


rule judge_claims:
    """Every claim of data/claims.yaml against the measurements."""
    input:
        claims="data/claims.yaml",
        published=PUBLISHED,
        measurements=measured(*LOCALISATION, *EDITING),
        curves=CURVES,
    output:
        verdicts=f"{RESULTS}/claims.csv",
        summary=f"{RESULTS}/summary.csv",
        record=f"{RESULTS}/records/judge_claims.run.json",
    log:
        f"{RESULTS}/logs/judge_claims.log",
    conda:
        "../../envs/notebook.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        **stage_params("judge_claims", "confidence", "toy.evaluation.emergence"),
    message:
        "judging the claims"
    shell:
        stage_shell(
            "--claims {input.claims} --published {input.published}",
            "--measurements {input.measurements} --curves {input.curves}",
            "--verdicts {output.verdicts} --summary {output.summary}",
        )


rule write_report:
    """One self-contained page: what was reproduced, what not, at what scale; every table and figure."""
    input:
        tables=TABLES,
        figures=FIGURES,
        verdicts=f"{RESULTS}/claims.csv",
        behaviour=measured(),
        captions="workflow/report/captions.yaml",
        models=expand(f"{TOY}/clean/seed{STUDY.seeds[0]}/config.json", subject=SUBJECTS),
        template="workflow/anatomy/report/page.html",
        style="workflow/anatomy/report/page.css",
        records=all_records(NOTEBOOKS),
    output:
        page=f"{RESULTS}/report/index.html",
        record=f"{RESULTS}/report/run.json",
    log:
        f"{RESULTS}/logs/write_report.log",
    conda:
        "../../envs/notebook.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        **stage_params("write_report", "study", "seeds", "confidence", "compute", "toy"),
    message:
        "writing the report"
    shell:
        stage_shell(
            "--tables {input.tables} --figures {input.figures} --verdicts {input.verdicts}",
            "--behaviour {input.behaviour} --captions {input.captions} --models {input.models}",
            "--template {input.template} --style {input.style} --records {input.records}",
            "--page {output.page}",
        )


rule write_manifest:
    """Every artefact's digest bound to rule, code, parameters, inputs and environment."""
    input:
        records=[*all_records(NOTEBOOKS), f"{RESULTS}/report/run.json"],
    output:
        manifest=f"{RESULTS}/manifest.jsonl",
    log:
        f"{RESULTS}/logs/write_manifest.log",
    conda:
        "../../envs/notebook.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        study=STUDY.study,
        lock=LOCK,
        code=code_digest("anatomy.stages.write_manifest"),
    message:
        "binding every result to its origin"
    shell:
        "python -m anatomy.stages.write_manifest --study {params.study} --lock {params.lock} "
        "--records {input.records} --manifest {output.manifest} > {log} 2>&1"
