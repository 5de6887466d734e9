"""Backdoor Anatomy: the whole study as one graph. `make reproduce`, or `snakemake --config study=embedded`."""


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/localize.smk"
include: "workflow/rules/control.smk"


rule all:
    input:
        expand(rules.plant_variants.output, subject=SUBJECTS),
        expand(rules.measure_behaviour.output, subject=SUBJECTS),
        expand(rules.ablate_modules.output, subject=SUBJECTS),
        expand(rules.read_logit_lens.output, subject=SUBJECTS),
        expand(rules.patch_modules.output, subject=SUBJECTS),
        expand(rules.project_states.output, subject=SUBJECTS),
        expand(rules.edit_pcp.output, subject=SUBJECTS),
