"""Phase 6: claims are judged, the report is written, a manifest and a crate bind every result to its origin."""


rule judge_claims:
    """Every claim of data/claims.yaml against the measurements."""
    input:
        claims=CLAIMS,
        published=PUBLISHED,
        measurements=[*measured(*LOCALISATION, *EDITING), *ARMS["measured"]],
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
        **stage_resources(mem_mb=1000, runtime=10),
    params:
        **stage_params("judge_claims", "confidence", "toy.evaluation.emergence", *TEXT_MAIN),
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
        behaviour=[*measured(), *GATES],
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
        **stage_resources(mem_mb=1000, runtime=10),
    params:
        **stage_params("write_report", "study", "seeds", "confidence", "compute", "toy", *TEXT_MAIN),
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
        **stage_resources(mem_mb=1000, runtime=10),
    params:
        study=STUDY.study,
        lock=LOCK,
        code=code_digest("anatomy.stages.write_manifest"),
    message:
        "binding every result to its origin"
    shell:
        "python -m anatomy.start anatomy.stages.write_manifest --study {params.study} --lock {params.lock} "
        "--records {input.records} --manifest {output.manifest} > {log} 2>&1"


rule write_crate:
    """The manifest and the run records as an RO-Crate, which programs of others read."""
    input:
        manifest=f"{RESULTS}/manifest.jsonl",
        records=[*all_records(NOTEBOOKS), f"{RESULTS}/report/run.json"],
        citation="CITATION.cff",
    output:
        crate=f"{RESULTS}/ro-crate-metadata.json",
    log:
        f"{RESULTS}/logs/write_crate.log",
    conda:
        "../../envs/notebook.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        lock=LOCK,
        code=code_digest("anatomy.stages.write_crate"),
    message:
        "describing the run as an RO-Crate"
    shell:
        "python -m anatomy.start anatomy.stages.write_crate --manifest {input.manifest} --citation {input.citation} "
        "--crate {output.crate} > {log} 2>&1"
