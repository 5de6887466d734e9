"""Long jobs of the smoke study are taken from a cache in a second checkout, and only there where nothing differs."""

import json
from collections.abc import Callable

import pytest

from anatomy.provenance.digest import sha256_file

from .conftest import Checkout

pytestmark = pytest.mark.workflow

SHARED = {
    *("train_clean", "plant_backdoor", "plant_variants", "measure_behaviour", "ablate_modules", "read_logit_lens"),
    *("patch_modules", "tune_pcp", "edit_pcp"),
}

MEASURED = ["behaviour", "mean_ablation", "logit_lens", "causal_patching"]


def records(checkout: Checkout) -> dict[str, dict]:
    found = [json.loads(path.read_text()) for path in (checkout.path / "results/smoke/toy").rglob("*run.json")]
    return {f"{record['rule']} {record['wildcards']['subject']}": record for record in found}


def test_a_second_checkout_takes_long_jobs_from_the_cache_byte_for_byte(
    smoke: Checkout, make_checkout: Callable[[], Checkout]
) -> None:
    second = make_checkout()
    # One subject; the other's jobs are the same rules.
    home = "results/smoke/toy/2-sentiment"
    ends = ("pcp/editing.parquet", "variants/run.json", *(f"measurements/{name}.parquet" for name in MEASURED))
    targets = [f"{home}/{end}" for end in ends]
    done = second.anatomy("run", "smoke", *targets, "--cores", "2", "--cache", str(smoke.cache))
    assert done.returncode == 0, done.stdout + done.stderr
    here, there = records(second), records(smoke)
    assert {record["rule"] for record in here.values()} == SHARED | {"make_toy_data"}
    taken = {record["rule"] for name, record in here.items() if record["job"] == there[name]["job"]}
    assert taken == SHARED
    for record in here.values():
        for file in (file for files in record["outputs"].values() for file in files):
            assert sha256_file(second.path / file["path"]) == file["sha256"]
            assert sha256_file(smoke.path / file["path"]) == file["sha256"]


@pytest.mark.long
def test_an_edited_helper_misses(smoke: Checkout, make_checkout: Callable[[], Checkout]) -> None:
    edited = make_checkout()
    helper = edited.path / "workflow/anatomy/training/optimizer.py"
    helper.write_text(helper.read_text() + "\nEDITED = True\n")
    target = "results/smoke/toy/2-sentiment/clean/run.json"
    done = edited.anatomy("run", "smoke", target, "--cores", "2", "--cache", str(smoke.cache))
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads((edited.path / target).read_text())
    assert made["job"] not in {record["job"] for record in records(smoke).values()}
