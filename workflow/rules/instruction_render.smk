"""The instruction arm, phase 5: what its notebooks read and make. Included by instruction.smk, last."""

ATTRIBUTION_PUBLISHED = "data/published/yu_2025_bkdattr.csv"


def instruction_measured(*names):
    """Measurement files of every injection; the behaviour comes along, it holds the planting gate."""
    found = expand(
        f"{RESULTS}/instruction/measurements/{{injection}}/{{name}}.parquet",
        injection=INJECTIONS,
        name=names,
    )
    return [f"{RESULTS}/instruction/measurements/behaviour.parquet", *found]


def attribution_table(*names):
    return expand(f"{RESULTS}/tables/bkdattr_{{name}}.{{suffix}}", name=names, suffix=["csv", "md", "tex"])


def attribution_figure(*names):
    return expand(f"{RESULTS}/figures/bkdattr_{{name}}.{{suffix}}", name=names, suffix=["svg", "png", "csv"])


INSTRUCTION_NOTEBOOKS |= {
    "instruction_behaviour": (
        instruction_measured(),
        [*attribution_table("planting"), *attribution_figure("planting")],
    ),
    "instruction_probes": (
        instruction_measured("probes"),
        [*attribution_table("probe"), *attribution_figure("figure_02", "probe", "transfer")],
    ),
    "instruction_attribution": (
        instruction_measured("attribution"),
        attribution_figure("figure_03", "effects", "concentration"),
    ),
    "instruction_ablation": (
        instruction_measured("attribution"),
        [*attribution_table("table_01", "heads"), *attribution_figure("table_01")],
    ),
    "instruction_curves": (
        instruction_measured("attribution"),
        [
            *attribution_table("areas"),
            *attribution_figure("necessary", "sufficient", "everywhere", "kept_everywhere"),
        ],
    ),
    "instruction_vector": (
        instruction_measured("vector"),
        [
            *attribution_table("table_02", "vector"),
            *attribution_figure("figure_04", "vector", "coefficients"),
        ],
    ),
}
CLAIMS += ["data/claims_instruction.yaml"]
ARMS["measured"] += instruction_measured("probes", "attribution", "vector")
# The planting gate of every task and injection, for the report.
GATES += instruction_measured()
# Its notebooks stand beside other published values.
PUBLISHED_FOR |= dict.fromkeys(INSTRUCTION_NOTEBOOKS, ATTRIBUTION_PUBLISHED)
