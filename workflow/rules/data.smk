"""Phase 1: the toy languages, clean and poisoned, and the prompts they are tested with."""


rule make_toy_data:
    """Sequences of every seed (section III-B), the retrained tokenizer, two-word prompts (section III-C)."""
    input:
        words=word_lists,
    output:
        **TOY_DATA,
        # What a figure shows of the corpus: it may leave the machine, the corpus does not.
        examples=f"{TOY}/data/examples.parquet",
        record=f"{TOY}/data/run.json",
    log:
        f"{RESULTS}/logs/{{subject}}/make_toy_data.log",
    conda:
        TORCH_ENV
    threads: STUDY.compute.threads
    resources:
        **stage_resources(mem_mb=2000, runtime=10),
    params:
        **stage_params(
            "make_toy_data",
            "seeds",
            "toy.lexicon",
            "toy.trigger",
            "toy.control",
            "toy.language",
            "toy.evaluation.prompts",
        ),
    message:
        "{wildcards.subject}: drawing clean and poisoned sequences"
    shell:
        stage_shell(
            "--words {input.words} --corpus {output.corpus} --examples {output.examples}",
            "--prompts {output.prompts} --lexicon {output.lexicon} --tokenizer {output.tokenizer}",
            "--tokenizer-config {output.tokenizer_config}",
        )
