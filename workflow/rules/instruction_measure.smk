"""The instruction arm, phases 3 and 4: probes, attribution, ablation, the backdoor vector (Yu et al.)."""

INSIDE = [
    *("seeds", "confidence", "compute.device"),
    *(f"instruction.{key}" for key in ("tasks", "model", "evaluation")),
]
# What is looked into: the models of one injection, beside the clean ones.
LOOKED_INTO = {
    **INSTRUCTION_DATA,
    "grammar": "data/instruction/language.yaml",
    "clean": clean_instruction_models(),
    "planted": planted_instruction_models(),
}
LOOKED_INTO_ARGUMENTS = (
    f"{INSTRUCTION_DATA_ARGUMENTS} --grammar {{input.grammar}} "
    "--clean {input.clean} --planted {input.planted} "
)
FOUND = f"{TOLD}/measurements/{{injection}}"


rule probe_layers:
    """Can the hidden states of each layer tell a triggered prompt from a clean one, and do the layers agree (Figure 2)?"""
    input:
        **LOOKED_INTO,
    output:
        measurements=f"{FOUND}/probes.parquet",
        record=f"{FOUND}/probes.run.json",
    log:
        f"{RESULTS}/logs/probe_layers.{{injection}}.log",
    conda:
        INSTRUCTION_ENV
    threads: STUDY.compute.threads
    resources:
        **instruction_resources(mem_mb=16000, runtime=480, gpu=True),
    params:
        **stage_params("probe_layers", *INSIDE, "instruction.probe"),
    message:
        "probing the layers of instruction models ({wildcards.injection})"
    shell:
        stage_shell(LOOKED_INTO_ARGUMENTS, "--measurements {output.measurements}")


rule attribute_heads:
    """Effects of heads, MLPs and layers, and ablation in their order (Figure 3, Table 1)."""
    input:
        **LOOKED_INTO,
    output:
        measurements=f"{FOUND}/attribution.parquet",
        record=f"{FOUND}/attribution.run.json",
    log:
        f"{RESULTS}/logs/attribute_heads.{{injection}}.log",
    priority: 15
    conda:
        INSTRUCTION_ENV
    threads: STUDY.compute.threads
    resources:
        **instruction_resources(mem_mb=16000, runtime=1440, gpu=True),
    params:
        **stage_params("attribute_heads", *INSIDE, "instruction.attribution"),
    message:
        "attributing backdoors to heads ({wildcards.injection})"
    shell:
        stage_shell(LOOKED_INTO_ARGUMENTS, "--measurements {output.measurements}")


rule steer_vector:
    """The backdoor vector, added and taken away at each layer (Figure 4, Table 2)."""
    input:
        **LOOKED_INTO,
        attribution=rules.attribute_heads.output.measurements,
    output:
        measurements=f"{FOUND}/vector.parquet",
        record=f"{FOUND}/vector.run.json",
    log:
        f"{RESULTS}/logs/steer_vector.{{injection}}.log",
    priority: 15
    conda:
        INSTRUCTION_ENV
    threads: STUDY.compute.threads
    resources:
        **instruction_resources(mem_mb=16000, runtime=1440, gpu=True),
    params:
        **stage_params("steer_vector", *INSIDE, "instruction.vector"),
    message:
        "steering instruction models ({wildcards.injection})"
    shell:
        stage_shell(
            LOOKED_INTO_ARGUMENTS,
            "--attribution {input.attribution} --measurements {output.measurements}",
        )


ARMS["localize"] += expand(rules.probe_layers.output, injection=INJECTIONS)
ARMS["localize"] += expand(rules.attribute_heads.output, injection=INJECTIONS)
ARMS["control"] += expand(rules.steer_vector.output, injection=INJECTIONS)
ARMS["records"] += expand(
    f"{FOUND}/{{name}}.run.json", injection=INJECTIONS, name=["probes", "attribution", "vector"]
)
