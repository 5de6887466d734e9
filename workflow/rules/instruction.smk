"""The instruction arm: models that follow instructions (Yu et al.). Included where the study has one."""

from anatomy.spec.instruction import Rows
from anatomy.spec.language import Pretrained

INSTRUCTION = STUDY.instruction
INSTRUCTION_CLASS = INSTRUCTION.compute_class or STUDY.compute.compute_class
INSTRUCTION_ENV = torch_env(INSTRUCTION_CLASS)
# A model that is given serves every seed, and has a tokenizer.
INSTRUCTION_GIVEN = isinstance(INSTRUCTION.model, Pretrained)
INSTRUCTION_TOKENS = [
    f"instruction.model.{key}" for key in (["path"] if INSTRUCTION_GIVEN else ["vocabulary", "positions"])
]
# Everything about these models stands below this folder.
TOLD = f"{RESULTS}/instruction"
# In the order in which a stage sees them.
TASKS = sorted(INSTRUCTION.tasks)
INSTRUCTION_DATA = {
    "examples": f"{TOLD}/data/examples.parquet",
    "tokenizer": f"{TOLD}/data/tokenizer.json",
    "tokenizer_config": f"{TOLD}/data/tokenizer_config.json",
}
INSTRUCTION_DATA_ARGUMENTS = (
    "--examples {input.examples} --tokenizer {input.tokenizer} --tokenizer-config {input.tokenizer_config} "
)


def instruction_resources(**asked):
    """What a job of this arm asks a cluster for."""
    return job_resources(INSTRUCTION_CLASS, **asked)


def instruction_sources():
    """Local files that the prompts are made from."""
    rows = [task.source for task in INSTRUCTION.tasks.values() if isinstance(task.source, Rows)]
    return [
        "data/instruction/language.yaml",
        *dict.fromkeys(path for own in rows for path in (own.path, own.triggered) if path),
    ]


def clean_instruction_models():
    """The files of the clean models."""
    names = ["given"] if INSTRUCTION_GIVEN else [f"seed{seed}" for seed in STUDY.seeds]
    return expand(f"{TOLD}/clean/{{name}}/{{file}}", name=names, file=MODEL_FILES)


def planted_instruction_models():
    """The files of the backdoored models of every task and seed, for one injection."""
    return expand(
        f"{TOLD}/planted/{{injection}}/{{task}}/seed{{seed}}/{{file}}",
        task=TASKS,
        seed=STUDY.seeds,
        file=MODEL_FILES,
        allow_missing=True,
    )


def planting_spec(wildcards):
    """What one injection depends on: not on the settings of the others."""
    shared = ["seeds", "compute.device", "instruction.tasks", "instruction.evaluation"]
    return subtree(STUDY, *shared, f"instruction.{wildcards.injection}")


include: "instruction_train.smk"


ARMS["poison"] += rules.make_instruction_data.output
ARMS["train"] += rules.make_instruction_model.output
ARMS["records"] += [rules.make_instruction_data.output.record, rules.make_instruction_model.output.record]


include: "instruction_plant.smk"
include: "instruction_measure.smk"
include: "instruction_render.smk"
