"""Phase 3: where the backdoor lives. Behaviour first, then the ways of looking (section III-D)."""

MEASURING = ["seeds", "confidence", "compute.device", "toy.recipe", "toy.evaluation.top_k"]
PAIR = {"clean": toy_models("clean"), "backdoored": toy_models("backdoored")}
PAIR_ARGUMENTS = "--clean {input.clean} --backdoored {input.backdoored} "


rule measure_behaviour:
    """Unedited models on every input combination, validation loss, planting gate, the perfect learner."""
    input:
        **TOY_DATA,
        **PAIR,
    output:
        measurements=f"{TOY}/measurements/behaviour.parquet",
        record=f"{TOY}/measurements/behaviour.run.json",
    log:
        f"{RESULTS}/logs/{{subject}}/measure_behaviour.log",
    conda:
        TORCH_ENV
    threads: STUDY.compute.threads
    resources:
        **stage_resources(mem_mb=2000, runtime=20, gpu=True),
    params:
        **stage_params(
            "measure_behaviour",
            *MEASURING,
            "toy.evaluation.gate",
            "toy.language",
            "toy.trigger",
            "toy.control",
            "toy.lexicon.specials",
        ),
    message:
        "{wildcards.subject}: measuring the unedited models"
    shell:
        stage_shell(TOY_DATA_ARGUMENTS, PAIR_ARGUMENTS, "--measurements {output.measurements}")


# Mean ablation of each module (Table I).
use rule measure_behaviour as ablate_modules with:
    output:
        measurements=f"{TOY}/measurements/mean_ablation.parquet",
        record=f"{TOY}/measurements/mean_ablation.run.json",
    log:
        f"{RESULTS}/logs/{{subject}}/ablate_modules.log",
    params:
        **stage_params("ablate_modules", *MEASURING),
    message:
        "{wildcards.subject}: ablating one module at a time"


# Logit lens on each head and MLP (Table II).
use rule measure_behaviour as read_logit_lens with:
    output:
        measurements=f"{TOY}/measurements/logit_lens.parquet",
        record=f"{TOY}/measurements/logit_lens.run.json",
    log:
        f"{RESULTS}/logs/{{subject}}/read_logit_lens.log",
    params:
        **stage_params("read_logit_lens", *MEASURING),
    message:
        "{wildcards.subject}: reading heads and MLPs through the logit lens"


# Causal patching of each module (Table XII).
use rule measure_behaviour as patch_modules with:
    output:
        measurements=f"{TOY}/measurements/causal_patching.parquet",
        record=f"{TOY}/measurements/causal_patching.run.json",
    log:
        f"{RESULTS}/logs/{{subject}}/patch_modules.log",
    params:
        **stage_params("patch_modules", *MEASURING),
    message:
        "{wildcards.subject}: patching one module at a time"


# Hidden states in the plane of two principal components (Figure 3).
use rule measure_behaviour as project_states with:
    output:
        measurements=f"{TOY}/measurements/hidden_states.parquet",
        record=f"{TOY}/measurements/hidden_states.run.json",
    log:
        f"{RESULTS}/logs/{{subject}}/project_states.log",
    params:
        **stage_params("project_states", "seeds", "compute.device"),
    message:
        "{wildcards.subject}: projecting hidden states"
