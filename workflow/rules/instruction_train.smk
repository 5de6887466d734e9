"""The instruction arm, phases 1 and 2: prompts clean and triggered, and the clean models."""


rule make_instruction_data:
    """Prompts of every task and seed, with the trigger, without, and with another phrase; the tokenizer."""
    input:
        raw=instruction_sources(),
    output:
        **INSTRUCTION_DATA,
        record=f"{TOLD}/data/run.json",
    log:
        f"{RESULTS}/logs/make_instruction_data.log",
    priority: 20
    conda:
        INSTRUCTION_ENV
    threads: STUDY.compute.threads
    resources:
        **instruction_resources(mem_mb=4000, runtime=60),
    params:
        **stage_params(
            "make_instruction_data",
            "seeds",
            *("instruction.tasks", "instruction.data"),
            *INSTRUCTION_TOKENS,
        ),
    message:
        "drawing instructions, clean and triggered"
    shell:
        stage_shell(
            "--raw {input.raw} --examples {output.examples}",
            "--tokenizer {output.tokenizer} --tokenizer-config {output.tokenizer_config}",
        )


rule make_instruction_model:
    """Clean models of all seeds, each of which learns all tasks from random weights; or the one that is given."""
    input:
        **INSTRUCTION_DATA,
    output:
        models=clean_instruction_models(),
        curve=f"{TOLD}/clean/curve.parquet",
        record=f"{TOLD}/clean/run.json",
    log:
        f"{RESULTS}/logs/make_instruction_model.log",
    priority: 20
    conda:
        INSTRUCTION_ENV
    threads: STUDY.compute.threads
    resources:
        **instruction_resources(mem_mb=8000, runtime=240, gpu=True),
    params:
        **stage_params("make_instruction_model", "seeds", "compute.device", "instruction.model"),
    message:
        "training clean models that follow instructions"
    shell:
        stage_shell(INSTRUCTION_DATA_ARGUMENTS, "--models {output.models} --curve {output.curve}")
