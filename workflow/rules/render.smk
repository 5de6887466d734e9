"""Phase 5: tables and figures from measurements, each group by its notebook."""

PUBLISHED = "data/published/lamparth_reuel_2023.csv"


CURVES = toy_files("clean/curve.parquet", "backdoored/curve.parquet", "variants/curves.parquet")
EDITING = ["pcp/ablation", "pcp/editing"]
# Notebook -> what it reads and what it makes. The order is the report's.
NOTEBOOKS = {
    "concept": (toy_files("data/examples.parquet"), figure("figure_01", "figure_02")),
    "behaviour": (measured(), [*table("behaviour"), *figure("behaviour")]),
    "training_amount": (
        [*CURVES, *measured()],
        [*table("training_amount"), *figure("training_amount")],
    ),
    "freezing": ([*CURVES, *measured()], [*table("freezing"), *figure("freezing")]),
    "hidden_states": (measured("measurements/hidden_states"), figure("figure_03")),
    "mean_ablation": (
        measured("measurements/mean_ablation"),
        [*table("table_01"), *figure("mean_ablation")],
    ),
    "logit_lens": (
        measured("measurements/logit_lens"),
        [*table("table_02"), *figure("logit_lens")],
    ),
    "causal_patching": (
        measured("measurements/causal_patching"),
        [*table("table_12"), *figure("causal_patching")],
    ),
    "pcp_mlp": (
        measured("pcp/ablation"),
        [*table("table_03", "table_04"), *figure("pcp_mlp")],
    ),
    "pcp_attention": (
        measured("pcp/ablation"),
        [*table("table_13", "table_14"), *figure("pcp_attention")],
    ),
    "editing": (
        measured(*EDITING),
        [*table("table_05", "table_06", "table_07"), *figure("factor_sweep")],
    ),
    "variants": (
        measured(*LOCALISATION, *EDITING),
        [*table("variants"), *figure("variants")],
    ),
}
NOTEBOOKS |= TEXT_NOTEBOOKS | INSTRUCTION_NOTEBOOKS
RENDERED = [path for _, outputs in NOTEBOOKS.values() for path in outputs]
TABLES = [path for path in RENDERED if "/tables/" in path]
FIGURES = [path for path in RENDERED if "/figures/" in path]


for NAME, (INPUTS, OUTPUTS) in NOTEBOOKS.items():

    rule:
        name:
            f"render_{NAME}"
        input:
            notebook=f"notebooks/{NAME}.ipynb",
            inputs=INPUTS,
            published=PUBLISHED_FOR.get(NAME, PUBLISHED),
            captions="workflow/report/captions.yaml",
        output:
            outputs=OUTPUTS,
            record=f"{RESULTS}/records/render_{NAME}.run.json",
        log:
            f"{RESULTS}/logs/render_{NAME}.log",
            notebook=f"{RESULTS}/notebooks/{NAME}.ipynb",
        conda:
            "../../envs/notebook.yaml"
        threads: 1
        resources:
            **stage_resources(mem_mb=2000, runtime=20),
        params:
            **notebook_params(NAME),
        message:
            f"rendering {NAME.replace('_', ' ')}"
        shell:
            stage_shell(
                "--notebook {input.notebook} --inputs {input.inputs} --published {input.published}",
                "--captions {input.captions}",
                "--outputs {output.outputs}",
            )
