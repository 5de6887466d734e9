"""The instruction arm, phases 2 and 3: backdoors planted by fine-tuning, preferences and editing; what they do."""

INJECTIONS = list(INSTRUCTION.injections)


rule plant_instruction:
    """The clean models, with the backdoor of every task in them: LoRA fine-tuning, DPO, or BadEdit."""
    input:
        **INSTRUCTION_DATA,
        clean=clean_instruction_models(),
    output:
        models=planted_instruction_models(),
        reached=f"{TOLD}/planted/{{injection}}/reached.parquet",
        record=f"{TOLD}/planted/{{injection}}/run.json",
    log:
        f"{RESULTS}/logs/plant_instruction.{{injection}}.log",
    priority: 20
    conda:
        INSTRUCTION_ENV
    threads: STUDY.compute.threads
    resources:
        **instruction_resources(mem_mb=16000, runtime=1440, gpu=True),
    params:
        **(stage_params("plant_instruction") | {"spec": planting_spec}),
    message:
        "planting backdoors in instruction models ({wildcards.injection})"
    shell:
        stage_shell(
            INSTRUCTION_DATA_ARGUMENTS,
            "--clean {input.clean} --models {output.models} --reached {output.reached}",
        )


rule measure_instruction:
    """Clean and backdoored models: attack success, false triggers, utility, degeneration; the planting gate."""
    input:
        **INSTRUCTION_DATA,
        grammar="data/instruction/language.yaml",
        clean=clean_instruction_models(),
        planted=expand(planted_instruction_models(), injection=INJECTIONS),
        reached=expand(rules.plant_instruction.output.reached, injection=INJECTIONS),
    output:
        measurements=f"{TOLD}/measurements/behaviour.parquet",
        samples=f"{TOLD}/measurements/samples.parquet",
        record=f"{TOLD}/measurements/behaviour.run.json",
    log:
        f"{RESULTS}/logs/measure_instruction.log",
    conda:
        INSTRUCTION_ENV
    threads: STUDY.compute.threads
    resources:
        **instruction_resources(mem_mb=8000, runtime=240, gpu=True),
    params:
        **stage_params(
            "measure_instruction",
            *("seeds", "confidence", "compute.device"),
            *(f"instruction.{key}" for key in ("tasks", "model", "evaluation")),
        ),
    message:
        "measuring what instruction models answer"
    shell:
        stage_shell(
            INSTRUCTION_DATA_ARGUMENTS,
            "--grammar {input.grammar} --clean {input.clean} --planted {input.planted} --reached {input.reached}",
            "--measurements {output.measurements} --samples {output.samples}",
        )


ARMS["train"] += expand(rules.plant_instruction.output, injection=INJECTIONS)
ARMS["localize"] += rules.measure_instruction.output
ARMS["records"] += [
    *expand(rules.plant_instruction.output.record, injection=INJECTIONS),
    rules.measure_instruction.output.record,
]


wildcard_constraints:
    injection="|".join(INJECTIONS),
