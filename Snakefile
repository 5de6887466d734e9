# Backdoor Anatomy: the whole study as one graph. `snakemake --config study=embedded`, or `make reproduce`.
from anatomy.spec.errors import SpecError
from anatomy.spec.read import load_study


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"


rule all:
    input:
        expand(TOY + "/backdoored/curve.parquet", subject=SUBJECTS),
