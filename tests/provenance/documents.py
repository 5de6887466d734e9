"""The crate and the attestations of the study `toy`, in a repository that has what they name."""

import subprocess
from pathlib import Path

from anatomy.provenance.crate import Agent, build_crate, crate_path, read_citation, read_records
from anatomy.provenance.manifest import manifest_path, read_manifest

from .studies import finish_job, gather, write

CITATION = """
title: A study
license: MIT
authors:
  - name: The authors
  - {given-names: Ada, family-names: Byron, orcid: "https://orcid.org/0000-0000-0000-0001"}
"""
SUBJECT = "results/toy/toy/2-sentiment"


def write_repository() -> None:
    """What the crate refers to outside of results/toy."""
    write("CITATION.cff", CITATION)
    write("Snakefile", "rule all:\n")
    write("requirements.lock", "numpy==2.4.6\n")


def crate_text(agent: Agent | None = None) -> str:
    """The crate of the study as it stands on the disk."""
    manifest = read_manifest(manifest_path("toy"))
    return build_crate(manifest, read_records(manifest), read_citation(Path("CITATION.cff")), agent)


def write_crate() -> Path:
    """What the rule `write_crate` does."""
    return write(crate_path("toy"), crate_text())


def add_phases() -> None:
    """Two jobs more: one of the phase poison, one of the phase train that reads what it made."""
    write(f"{SUBJECT}/data/corpus.parquet", "poison")
    finish_job(
        f"{SUBJECT}/data/run.json",
        "make_corpus",
        ["data/lexicon/positive.txt"],
        [f"{SUBJECT}/data/corpus.parquet"],
        wildcards={"subject": "2-sentiment"},
    )
    write(f"{SUBJECT}/clean/model.safetensors", "weights")
    finish_job(
        f"{SUBJECT}/clean/run.json",
        "train_clean",
        [f"{SUBJECT}/data/corpus.parquet"],
        [f"{SUBJECT}/clean/model.safetensors"],
        wildcards={"subject": "2-sentiment"},
    )
    gather()


def make_key(path: Path) -> Path:
    """A throw-away SSH key without a passphrase."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a test", "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return path


def allow(signers: Path, who: str, key: Path) -> Path:
    """An allowed-signers file with one entry."""
    return write(signers, f"{who} {key.with_suffix('.pub').read_text()}")
