"""`make bench`: speeds as ratios, measured in one run on this machine, with the floor beside them.

Nothing here is a test: no time is asserted anywhere.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table
from transformers import GPT2LMHeadModel, PrinterCallback, Trainer, TrainingArguments

from anatomy.bench_attribution import attribution_rows
from anatomy.bench_audit import audit_rows
from anatomy.bench_language import language_rows
from anatomy.commands.run import environment
from anatomy.control.pcp import random_directions
from anatomy.control.replacement import Replacement, negativity
from anatomy.interventions.hooks import next_token_logits
from anatomy.metrics.topk import topk_share
from anatomy.models.toy import fresh_state, model_from_state, stacked_shape, toy_config
from anatomy.provenance.digest import ArtifactError
from anatomy.provenance.record import kernels, read_record
from anatomy.sites import Site
from anatomy.spec.read import load_study
from anatomy.spec.study import Study
from anatomy.training.ensemble import Ensemble
from anatomy.training.layers import product
from anatomy.training.optimizer import adamw_step, clip_gradients, linear_rate

VOCABULARY, LENGTH = 2100, 15


def main() -> None:
    """Run all benchmarks and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", default="embedded")
    parser.add_argument("--steps", type=int, default=150, help="training steps per repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="measure these alone")
    arguments = parser.parse_args()
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:  # read when a process starts; the studies run with it
        os.execve(sys.executable, [sys.executable, "-m", "anatomy.bench", *sys.argv[1:]], environment())
    study = load_study(arguments.study)
    threads = torch.get_num_threads()
    table = Table("what", "slow way", "ours", "ratio", "remark", title=f"{study.study} study, {threads} threads")
    console = Console()
    with Live(table, console=console, auto_refresh=False) as live:  # each row as soon as it is measured
        for section in arguments.only:
            torch.set_num_threads(threads if section == "training" else 1)
            for row in SECTIONS[section](study, arguments):
                table.add_row(*row)
                live.refresh()
    for line in study_lines(study.study):
        console.print(line)


def training_rows(study: Study, arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """The study's training, on the whole machine, and with as many threads for Trainer as a job of the study has."""
    yield side_by_side_row(study, len(study.seeds), arguments.steps, torch.get_num_threads())
    torch.set_num_threads(study.compute.threads)
    yield training_row(study, arguments.steps, arguments.repetitions)


def training_row(study, steps: int, repetitions: int) -> tuple[str, ...]:
    """Stacked training of the study's seeds against transformers.Trainer with dynamic padding, per seed and step."""
    recipe, members = study.toy.recipes["published"], len(study.seeds)
    config = toy_config(study.toy.model, VOCABULARY)
    rows = torch.randint(1, VOCABULARY, (members, steps * recipe.batch, LENGTH))
    theirs, ours = [], []
    for _ in range(repetitions):  # interleaved, so that a noisy neighbour hits both
        theirs.append(_time(lambda: _train_with_trainer(config, rows[0], recipe)) / steps * 1e3)
        ours.append(_time(lambda: _train_stacked(config, rows, recipe)) / steps / members * 1e3)
    slow, fast = statistics.median(theirs), statistics.median(ours)
    # 2 FLOPs forward and 4 backward per matrix parameter and token; the head's matrix counts, the embedding does not.
    width, layers = config.n_embd, config.n_layer
    flops = 6 * (12 * layers * width**2 + width * VOCABULARY) * recipe.batch * (LENGTH - 1)
    return (
        f"toy training, {members} seeds, batch {recipe.batch}, {torch.get_num_threads()} thread(s)",
        f"{slow:.2f} ms per seed and step (Trainer)",
        f"{fast:.2f} ms",
        f"{slow / fast:.1f}x",
        f"{flops / 1e6:.0f} MFLOP a step: {flops / fast / 1e6:.0f} GFLOP/s reached",
    )


def side_by_side_row(study, members: int, steps: int, stacks: int) -> tuple[str, ...]:
    """The whole machine at work as in a study: a stack per core, one thread each, against Trainer with all cores."""
    recipe, config = study.toy.recipes["published"], toy_config(study.toy.model, VOCABULARY)
    rows = torch.randint(1, VOCABULARY, (steps * recipe.batch, LENGTH))
    slow = _time(lambda: _train_with_trainer(config, rows, recipe)) / steps * 1e3
    with ProcessPoolExecutor(stacks, mp_context=get_context("spawn")) as pool:
        seconds = list(pool.map(_one_stack, *zip(*[(study.study, members, steps)] * stacks, strict=True)))
    fast = max(seconds) / steps / members / stacks * 1e3
    return (
        f"toy training, {stacks} stacks of {members} seeds side by side, 1 thread each",
        f"{slow:.2f} ms per seed and step (Trainer, {stacks} threads)",
        f"{fast:.2f} ms",
        f"{slow / fast:.1f}x",
        "how a study trains its two subjects",
    )


def _one_stack(name: str, members: int, steps: int) -> float:
    """Seconds of one stack's training, while the others train; long enough for all to be at it together."""
    torch.set_num_threads(1)
    study = load_study(name)
    recipe, config = study.toy.recipes["published"], toy_config(study.toy.model, VOCABULARY)
    rows = torch.randint(1, VOCABULARY, (members, steps * recipe.batch, LENGTH))
    return statistics.median(_time(lambda: _train_stacked(config, rows, recipe)) for _ in range(5))


def _train_with_trainer(config, rows: torch.Tensor, recipe) -> Callable[[], object]:
    model = GPT2LMHeadModel(config)

    def collate(batch: list[dict]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in batch)
        ids = torch.stack(
            [torch.nn.functional.pad(row["input_ids"], (0, longest - len(row["input_ids"]))) for row in batch]
        )
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=recipe.batch,
        learning_rate=recipe.rate,
        weight_decay=recipe.weight_decay,
        num_train_epochs=1,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, arguments, train_dataset=[{"input_ids": row} for row in rows], data_collator=collate)
    trainer.pop_callback(PrinterCallback)
    return lambda: trainer.train()


def _train_stacked(config, rows: torch.Tensor, recipe) -> Callable[[], None]:
    members, count, _ = rows.shape
    ensemble = Ensemble([fresh_state(config, seed) for seed in range(members)], stacked_shape(config, LENGTH))
    generators = [torch.Generator().manual_seed(seed) for seed in range(members)]
    valid = torch.ones(members, recipe.batch, LENGTH, dtype=torch.bool)
    total = count // recipe.batch

    def run() -> None:
        for step in range(total):
            ids = rows[:, step * recipe.batch : (step + 1) * recipe.batch]
            ensemble.loss_and_gradients(ids, valid, generators)
            clip_gradients(ensemble, recipe.clip)
            rate = linear_rate(recipe.rate, step, total)
            adamw_step(ensemble, step + 1, rate=rate, weight_decay=recipe.weight_decay)

    return run


def tuning_row(study, repetitions: int) -> tuple[str, ...]:
    """One tuning objective: many factor vectors per forward pass against prompt after prompt, as released."""
    config = toy_config(study.toy.model, VOCABULARY)
    model = model_from_state(fresh_state(config, 0), config)
    prompts = torch.randint(1, VOCABULARY, (study.toy.evaluation.prompts, 2))
    mask, k = torch.arange(VOCABULARY) < VOCABULARY // 2, study.toy.evaluation.top_k
    replacement = Replacement("mlp 1", {Site(0, "mlp"): random_directions(config.n_embd, 2, seed=0)})
    sigma = torch.rand(study.toy.pcp.batch, 2)

    def one_by_one() -> None:
        for prompt in prompts.split(1):
            topk_share(next_token_logits(model, prompt, replacement.edits(sigma[0])), mask, k)

    slow = statistics.median(_time(lambda: one_by_one) for _ in range(repetitions))
    fast = statistics.median(
        _time(lambda: lambda: negativity(model, replacement, sigma, prompts, mask, k)) / len(sigma)
        for _ in range(repetitions)
    )
    return (
        f"PCP tuning, one trial on {len(prompts)} prompts",
        f"{slow * 1e3:.1f} ms (prompt after prompt)",
        f"{fast * 1e3:.2f} ms",
        f"{slow / fast:.0f}x",
        f"{len(sigma)} factor vectors per forward pass, 1 thread",
    )


def product_row() -> tuple[str, ...]:
    """The machine's matrix-product rate at the size of the toy model's largest product, one thread."""
    a, b, out = torch.randn(112, 64), torch.randn(64, VOCABULARY), torch.empty(112, VOCABULARY)
    theirs = min(_time(lambda: lambda: torch.mm(a, b, out=out)) for _ in range(200))
    ours = min(_time(lambda: lambda: product(a, b, out=out)) for _ in range(200))
    return (
        f"matrix product 112 x 64 x {VOCABULARY}",
        f"{theirs * 1e6:.0f} us (torch)",
        f"{ours * 1e6:.0f} us",
        f"{theirs / ours:.1f}x",
        f"{2 * a.shape[0] * a.shape[1] * VOCABULARY / ours / 1e9:.0f} GFLOP/s, kernels: {', '.join(kernels())}",
    )


SECTIONS: dict[str, Callable[[Study, argparse.Namespace], Iterable[tuple[str, ...]]]] = {
    "training": training_rows,
    "tuning": lambda study, arguments: [tuning_row(study, arguments.repetitions), product_row()],
    "language": lambda _, arguments: language_rows(arguments.repetitions),
    "attribution": lambda _, arguments: attribution_rows(arguments.repetitions),
    "audit": lambda study, arguments: audit_rows(study.study, arguments.repetitions),
}


def study_lines(study: str) -> list[str]:
    """What the last run of the study took, from its run records."""
    records = []
    for path in sorted(Path("results", study).rglob("*run.json")):
        try:
            records.append(read_record(path))
        except ArtifactError:
            continue
    if not records:
        return [f"no results of the {study} study here: `make reproduce STUDY={study}` first"]
    begin = min(datetime.fromisoformat(r["started"]) for r in records)
    end = max(datetime.fromisoformat(r["started"]).timestamp() + r["wall_s"] for r in records)
    peak = max(records, key=lambda r: r["peak_rss_mb"])
    work = sum(r["wall_s"] for r in records)
    return [
        f"{study} study: {len(records)} jobs, {work / 60:.1f} job minutes, "
        f"{(end - begin.timestamp()) / 60:.1f} minutes from first start to last end",
        f"largest job: {peak['rule']} with {peak['peak_rss_mb']:.0f} MiB",
    ]


def _time(prepare: Callable[[], Callable[[], object]]) -> float:
    """Seconds of what `prepare` returns; the preparation is not counted."""
    work = prepare()
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
