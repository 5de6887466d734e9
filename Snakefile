"""Backdoor Anatomy: the whole study as one graph. `make reproduce`, or `snakemake --config study=embedded`."""


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/localize.smk"
include: "workflow/rules/control.smk"


if STUDY.language:

    include: "workflow/rules/language.smk"


if STUDY.instruction:

    include: "workflow/rules/instruction.smk"


include: "workflow/rules/render.smk"
include: "workflow/rules/report.smk"


rule all:
    """The report, the manifest that binds everything it rests on, and the crate that retells it."""
    default_target: True
    input:
        rules.write_report.output,
        rules.write_manifest.output,
        rules.write_crate.output,


# Phases, for DVC's stages and for whoever wants a part: `anatomy run embedded localize`.
rule poison:
    input:
        expand(rules.make_toy_data.output, subject=SUBJECTS),
        ARMS["poison"],


rule train:
    input:
        expand(rules.plant_backdoor.output, subject=SUBJECTS),
        expand(rules.plant_variants.output, subject=SUBJECTS),
        ARMS["train"],


rule localize:
    input:
        expand(rules.measure_behaviour.output, subject=SUBJECTS),
        expand(rules.ablate_modules.output, subject=SUBJECTS),
        expand(rules.read_logit_lens.output, subject=SUBJECTS),
        expand(rules.patch_modules.output, subject=SUBJECTS),
        expand(rules.project_states.output, subject=SUBJECTS),
        ARMS["localize"],


rule control:
    input:
        expand(rules.edit_pcp.output, subject=SUBJECTS),
        ARMS["control"],


rule render:
    input:
        rules.all.input,
