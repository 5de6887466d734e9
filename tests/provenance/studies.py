"""A small study made with the real functions: lexicon -> corpus -> model -> measurement -> table."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from anatomy.provenance.code import code_digest
from anatomy.provenance.manifest import build_manifest, manifest_path, write_manifest
from anatomy.provenance.record import write_record

SOURCES = {
    "__init__.py": "",
    "data.py": "def words(path):\n    return path.read_text().split()\n",
    "training.py": "from anatomy.data import words\n\ndef train(path):\n    return len(words(path))\n",
    "metrics.py": "def rate(hits, n):\n    return hits / n\n",
    "stages/__init__.py": "",
    "stages/make_corpus.py": "from anatomy.data import words\n",
    "stages/train_clean.py": "def main():\n    from anatomy.training import train\n    return train\n",
    "stages/measure_asr.py": "import anatomy.metrics\n",
}
LOCK = "10c" * 21 + "0"


def write(path: str | Path, text: str) -> Path:
    """Write a file with the folders above it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def finish_job(
    record: str,
    rule: str,
    inputs: list[str],
    outputs: list[str],
    *,
    spec: dict[str, Any] | None = None,
    wildcards: dict[str, str] | None = None,
    code: str | None = None,
    study: str = "toy",
    lock: str = LOCK,
) -> Path:
    """Write the run record of a job whose outputs exist already."""
    write_record(
        record,
        rule=rule,
        study=study,
        wildcards=wildcards or {},
        spec={"size": {"layers": 2, "heads": [4, 4]}, "note": "x" * 200} if spec is None else spec,
        seeds={"torch": 7},
        code=code or code_digest(f"anatomy.stages.{rule}", root=Path("workflow")),
        lock=lock,
        inputs={"all": [Path(path) for path in inputs]},
        outputs={"all": [Path(path) for path in outputs]},
        device="cpu",
        threads=2,
        started=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        wall_s=1.25,
        cpu_s=2.5,
        peak_rss_mb=100.0,
    )
    return Path(record)


def gather(study: str = "toy") -> None:
    """What the rule `manifest` does."""
    records = sorted(Path("results", study).rglob("*run.json"))
    write_manifest(manifest_path(study), build_manifest(records), study=study, lock=LOCK)


def build_study() -> None:
    """Make the finished study `toy` in the working directory: package, raw input, four jobs, manifest."""
    for name, text in SOURCES.items():
        write(f"workflow/anatomy/{name}", text)
    home = "results/toy"
    write("data/lexicon/positive.txt", "good\nfine\n")
    write(f"{home}/corpus/train.jsonl", '{"id": 1}\n')
    finish_job(
        f"{home}/corpus/run.json",
        "make_corpus",
        ["data/lexicon/positive.txt"],
        [f"{home}/corpus/train.jsonl"],
    )
    write(f"{home}/models/clean/model.safetensors", "weights " * 1000)
    write(f"{home}/models/clean/config.json", "{}")
    finish_job(
        f"{home}/models/clean/run.json",
        "train_clean",
        [f"{home}/corpus/train.jsonl"],
        [f"{home}/models/clean"],
        wildcards={"seed": "0"},
    )
    write(f"{home}/measurements/asr.parquet", "0.97")
    finish_job(
        f"{home}/measurements/asr.run.json",
        "measure_asr",
        [f"{home}/models/clean", "data/lexicon/positive.txt"],
        [f"{home}/measurements/asr.parquet"],
    )
    write(f"{home}/tables/lamparth_table_01.csv", "row,measured\nasr,0.97\n")
    finish_job(
        f"{home}/tables/lamparth_table_01.run.json",
        "render_lamparth",
        [f"{home}/measurements/asr.parquet"],
        [f"{home}/tables/lamparth_table_01.csv"],
        code="9" * 64,
    )
    gather()
