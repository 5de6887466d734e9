"""Binds the study to the rules. No logic lives here: it is imported from the package."""

import json

from snakemake.exceptions import WorkflowError

from anatomy.models.layout import MODEL_FILES, TOKENIZER_FILES
from anatomy.provenance.code import code_digest, rule_code
from anatomy.provenance.digest import sha256_file
from anatomy.spec.errors import SpecError
from anatomy.spec.layout import check_layout, claim_layout
from anatomy.spec.read import load_study
from anatomy.spec.resources import job_resources
from anatomy.spec.subtree import subtree

try:
    STUDY = load_study(config.get("study", "embedded"))
    check_layout(STUDY.study)
except SpecError as error:
    raise WorkflowError(str(error))

RESULTS = f"results/{STUDY.study}"
# Everything about one toy model stands below this folder.
TOY = f"{RESULTS}/toy/{{subject}}"
SUBJECTS = list(STUDY.toy.language.subjects)
RECIPE = ["toy.recipe", f"toy.recipes.{STUDY.toy.recipe}"]
TOY_DATA = {
    "corpus": f"{TOY}/data/corpus.parquet",
    "prompts": f"{TOY}/data/prompts.parquet",
    "lexicon": f"{TOY}/data/lexicon.json",
    "tokenizer": f"{TOY}/data/tokenizer.json",
    "tokenizer_config": f"{TOY}/data/tokenizer_config.json",
}
TOY_DATA_ARGUMENTS = (
    "--corpus {input.corpus} --prompts {input.prompts} --lexicon {input.lexicon} "
    "--tokenizer {input.tokenizer} --tokenizer-config {input.tokenizer_config} "
)
# What the arms of language and instruction models add to each phase: filled by their files, where the study has them.
ARMS = {"poison": [], "train": [], "localize": [], "control": [], "measured": [], "records": []}
TEXT_NOTEBOOKS = {}
# What the instruction arm adds: filled by instruction_render.smk.
INSTRUCTION_NOTEBOOKS, PUBLISHED_FOR, GATES = {}, {}, []
CLAIMS = ["data/claims.yaml"] + (["data/claims_language.yaml"] if STUDY.language else [])
TEXT_MAIN = ["language.main"] if STUDY.language else []
LOCK = sha256_file("requirements.lock")


def torch_env(compute_class):
    """The environment of jobs that need torch."""
    return f"../../envs/torch-{'cpu' if compute_class == 'cpu' else 'cuda'}.yaml"


TORCH_ENV = torch_env(STUDY.compute.compute_class)

# How every stage is called: its name is the rule's, its parameters are the rule's.
STAGE = (
    "python -m anatomy.start anatomy.stages.{params.stage} "
    "--rule={params.rule} --study {params.study} --spec {params.spec:q} "
    "--code {params.code} --lock {params.lock} --wildcards {params.wildcards:q} --threads {threads} "
    "--record {output.record} "
)


def stage_shell(*arguments, processes=1):
    """The command of a stage: its name and parameters, its files, and its log."""
    several = (
        f"accelerate launch --multi_gpu --num_machines 1 --num_processes {processes} --mixed_precision no "
    )
    several += "--dynamo_backend no -m"
    stage = STAGE if processes == 1 else STAGE.replace("python -m anatomy.start", several, 1)
    return " ".join([stage, *arguments, "> {log[0]} 2>&1"])


def wildcards_json(wildcards):
    return json.dumps(dict(sorted(wildcards.items())))


def stage_params(stage, *paths):
    """All that a stage's result depends on besides its input files."""
    cut = subtree(STUDY, *paths)

    def spec(wildcards):  # a function, because words in braces in a text are taken for wildcards
        return cut

    return {
        "stage": stage,
        "rule": stage,
        "study": STUDY.study,
        "spec": spec,
        "code": code_digest(f"anatomy.stages.{stage}"),
        "lock": LOCK,
        "wildcards": wildcards_json,
    }


def stage_resources(**asked):
    """What a job asks a cluster for, by the study's compute class."""
    return job_resources(STUDY.compute.compute_class, **asked)


def toy_models(kind):
    """The files of the models of every seed, for one subject."""
    return expand(
        f"{TOY}/{kind}/seed{{seed}}/{{file}}",
        seed=STUDY.seeds,
        file=MODEL_FILES,
        allow_missing=True,
    )


LOCALISATION = [f"measurements/{name}" for name in ("mean_ablation", "logit_lens", "causal_patching")]
MEASUREMENTS = ["measurements/behaviour", *LOCALISATION, "measurements/hidden_states"]


def word_lists(wildcards):
    sentiments = sorted(STUDY.toy.language.subjects[wildcards.subject])
    return [getattr(STUDY.toy.lexicon, sentiment).path for sentiment in sentiments]


def toy_files(*names):
    """Files of all subjects, by their place below the subject's folder."""
    return expand(f"{TOY}/{{name}}", subject=SUBJECTS, name=names)


def measured(*names):
    """Measurement files of all subjects; the behaviour files come along, they hold the planting gate."""
    return toy_files(*(f"{name}.parquet" for name in ("measurements/behaviour", *names)))


def table(*numbers):
    return expand(
        f"{RESULTS}/tables/lamparth_{{name}}.{{suffix}}",
        name=numbers,
        suffix=["csv", "md", "tex"],
    )


def figure(*names):
    return expand(
        f"{RESULTS}/figures/lamparth_{{name}}.{{suffix}}",
        name=names,
        suffix=["svg", "png", "csv"],
    )


def notebook_params(name):
    """Parameters of a rendering rule: its code is the stage's, the notebook's cells', and what they import."""
    own = TEXT_MAIN if name in TEXT_NOTEBOOKS else []
    params = stage_params("render_notebook", "confidence", "toy.evaluation.emergence", *own)
    return params | {"rule": f"render_{name}", "code": rule_code(f"render_{name}")}


def all_records(notebooks):
    """The run records of every job that makes a result; the report's own comes on top."""
    folders = ["data", "clean", "backdoored", "variants", "pcp"]
    names = [*MEASUREMENTS, "pcp/editing"]
    return (
        toy_files(
            *(f"{folder}/run.json" for folder in folders),
            *(f"{name}.run.json" for name in names),
        )
        + ARMS["records"]
        + [f"{RESULTS}/records/render_{name}.run.json" for name in notebooks]
        + [f"{RESULTS}/records/judge_claims.run.json"]
    )


# Results carry the number of their layout, so that an older version's are never mixed with these.
onstart:
    claim_layout(STUDY.study)


wildcard_constraints:
    subject="|".join(SUBJECTS),
