"""A finished study goes through a DVC remote into a fresh checkout, and counts as done there."""

import json
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from anatomy.provenance.ledger import is_hazard, render_ledger
from anatomy.provenance.manifest import manifest_path, read_manifest
from anatomy.spec.read import load_study

from .conftest import ALL_RULES, ARM_RULES, NOTEBOOKS, Checkout

pytestmark = pytest.mark.workflow

ENDS = {"write_report", "write_manifest", "write_crate"}
# What a learning rate has no part in.
DATA_ONLY = {"make_toy_data", "render_concept"}


@dataclass(frozen=True)
class Remote:
    """A DVC remote: its URL, its options, and the variables that open it."""

    url: str
    options: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Archive:
    """A checkout that archived the smoke study, where it was pushed, and how to get a fresh one beside it."""

    source: Checkout
    remote: Remote
    fresh: Callable[[], Checkout]

    def restored(self) -> Checkout:
        """A fresh checkout into which the study was restored."""
        fresh = self.fresh()
        told = fresh.anatomy("restore", "smoke", **self.remote.variables)
        assert told.returncode == 0, told.stdout + told.stderr
        return fresh


def opened(checkout: Checkout, remote: Remote) -> Checkout:
    """The checkout with a repository of its own, as DVC wants one, the smoke study's ledger, and the remote."""
    subprocess.run(["git", "init", "-q"], cwd=checkout.path, check=True)
    ledger = render_ledger(load_study("smoke", checkout.path))
    (checkout.path / "dvc.yaml").write_text(ledger, encoding="utf-8")
    commands = [["add", "-q", "-d", "store", remote.url], *(["modify", "store", *o] for o in remote.options.items())]
    for words in commands:
        subprocess.run([sys.executable, "-m", "dvc", "remote", *words], cwd=checkout.path, check=True)
    return checkout


@pytest.fixture(scope="module")
def archive_to(
    smoke: Checkout, make_checkout: Callable[[], Checkout], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Archive]:
    """Archive the smoke study to a remote, with these words added to its study file."""

    def archive(remote: Remote, added: str = "") -> Archive:
        def with_words(checkout: Checkout) -> Checkout:
            with (checkout.path / "config/smoke.yaml").open("a", encoding="utf-8") as file:
                file.write(added)
            return opened(checkout, remote)

        def fresh() -> Checkout:
            checkout = with_words(make_checkout())
            shutil.copy2(source.path / "dvc.lock", checkout.path)
            pointers = shutil.ignore_patterns("*.gz")
            shutil.copytree(source.path / "archive", checkout.path / "archive", ignore=pointers)
            return checkout

        first = tmp_path_factory.mktemp("first") / "checkout"
        shutil.copytree(smoke.path, first, symlinks=True)
        source = with_words(Checkout(first))
        told = source.anatomy("archive", "smoke", **remote.variables)
        assert told.returncode == 0, told.stdout + told.stderr
        assert source.stale() == set()  # archiving touched no time stamp
        return Archive(source, remote, fresh)

    return archive


@pytest.fixture(scope="module")
def archived(archive_to: Callable[..., Archive], tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """The smoke study in a remote that is a folder, hazards at home."""
    return archive_to(Remote(str(tmp_path_factory.mktemp("remote"))))


@pytest.fixture(scope="module")
def whole(archive_to: Callable[..., Archive], tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """The same with hazards pushed."""
    return archive_to(Remote(str(tmp_path_factory.mktemp("whole"))), "\narchive: {push_hazards: true}\n")


@pytest.fixture
def s3() -> Iterator[Remote]:
    """An empty bucket of a server on this machine, with credentials that no one else has."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        key, secret = secrets.token_hex(10), secrets.token_hex(20)
        boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret
        ).create_bucket(Bucket="study")
        variables = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_DEFAULT_REGION": "us-east-1"}
        yield Remote("s3://study/archive", {"endpointurl": url}, variables)
    finally:
        server.stop()


def files(checkout: Checkout) -> set[str]:
    """The artefacts and records that are there, of those that the manifest names."""
    entries = read_manifest(manifest_path("smoke", checkout.path)).entries
    named = {entry["path"] for entry in entries} | {entry["record"] for entry in entries}
    return {path for path in named if (checkout.path / path).exists()}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def faster(checkout: Checkout) -> Checkout:
    """The study with another learning rate."""
    edit(checkout.path / "config/smoke.yaml", "rate: 3.0e-3", "rate: 2.0e-3")
    return checkout


def remote_files(remote: Path) -> list[bytes]:
    return [file.read_bytes() for file in remote.rglob("*") if file.is_file()]


def test_a_restored_study_counts_as_done_and_keeps_its_hazards_at_home(archived: Archive, smoke: Checkout) -> None:
    restored = archived.restored()
    assert restored.stale() == set()
    away = files(smoke) - files(restored)
    assert away == {path for path in files(smoke) if is_hazard(path)}
    assert {Path(path).name for path in away} >= {"corpus.parquet", "model.safetensors"}
    pushed = remote_files(Path(archived.remote.url))
    # Of a model that stays, the configuration is no secret: the clean one's has the same bytes.
    hazards = [path for path in away if Path(path).suffix in (".parquet", ".safetensors")]
    assert hazards and not [path for path in hazards if (smoke.path / path).read_bytes() in pushed]
    told = restored.anatomy("audit", "smoke")
    assert told.returncode == 0, told.stdout
    assert f"{len(away)} were not fetched" in told.stdout and "dvc.lock: holds this manifest" in told.stdout
    assert "restored from an archive" in told.stdout
    again = restored.anatomy("restore", "smoke")  # nothing to write over
    assert again.returncode == 0, again.stderr
    told = restored.anatomy("archive", "smoke")
    assert told.returncode == 2 and f"{len(away)} files were left out when it was restored" in told.stderr


@pytest.mark.long
def test_a_byte_changed_on_the_way_is_found_and_not_written_over(archived: Archive) -> None:
    restored = archived.restored()
    table = next((restored.path / "results/smoke/tables").glob("*.csv"))
    table.write_bytes(table.read_bytes().replace(b"0", b"1", 1))
    told = restored.anatomy("audit", "smoke", "--json")
    assert told.returncode == 1
    found = {finding["path"]: finding["verdict"] for finding in json.loads(told.stdout)["findings"]}
    changed = [path for path, verdict in found.items() if verdict not in ("intact", "withheld")]
    assert changed == [table.relative_to(restored.path).as_posix()] and found[changed[0]] == "changed"
    kept = table.read_bytes()
    for words in (("restore", "smoke"), ("run", "smoke", "--tier", "render")):
        told = restored.anatomy(*words)
        assert told.returncode == 2 and f"1 files are not those of the archive any more ({changed[0]}" in told.stderr
    assert table.read_bytes() == kept


def test_results_made_here_are_not_written_over(archived: Archive) -> None:
    told = archived.source.anatomy("run", "smoke", "--tier", "audit")
    assert told.returncode == 2 and "holds results that were made here" in told.stderr
    assert archived.source.stale() == set()


@pytest.mark.long
def test_a_changed_plot_is_made_again_without_training(archived: Archive) -> None:
    restored = archived.restored()
    before = files(restored)
    for name in ("concept", "mean_ablation"):
        notebook = restored.path / f"notebooks/{name}.ipynb"
        kept = notebook.read_bytes()
        edit(notebook, '"Image(save_figure(', '"figure.set_facecolor(\\"ivory\\")\\n", "Image(save_figure(')
        assert restored.stale() == {f"render_{name}"} | ENDS
        if name != "mean_ablation":
            notebook.write_bytes(kept)
            assert restored.stale() == set()
    done = restored.anatomy("run", "smoke", "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert restored.stale() == set() and files(restored) == before
    told = restored.anatomy("audit", "smoke")
    assert told.returncode == 0 and "were not fetched" in told.stdout, told.stdout


@pytest.mark.long
def test_a_changed_learning_rate_makes_again_what_depends_on_it(archived: Archive, whole: Archive) -> None:
    toy = ALL_RULES - ARM_RULES
    assert faster(whole.restored()).stale() == toy - DATA_ONLY
    # The corpus stays at home otherwise, so that the data are made first, and come out as they were.
    restored = archived.restored()
    assert faster(restored).stale() == toy
    done = restored.anatomy("run", "smoke", "poison", "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert restored.stale() == toy - DATA_ONLY


@pytest.mark.long
def test_pushed_hazards_are_restored_too(whole: Archive, smoke: Checkout) -> None:
    restored = whole.restored()
    assert restored.stale() == set() and files(restored) == files(smoke)
    told = restored.anatomy("audit", "smoke")
    assert told.returncode == 0 and "not fetched" not in told.stdout


@pytest.mark.long
def test_an_s3_remote(archive_to: Callable[..., Archive], s3: Remote, smoke: Checkout) -> None:
    archive = archive_to(s3)
    restored = archive.restored()
    assert restored.stale() == set()
    assert files(restored) == {path for path in files(smoke) if not is_hazard(path)}
    told = restored.anatomy("run", "smoke", "--tier", "audit", **s3.variables)
    assert told.returncode == 0 and "intact: " in told.stdout, told.stdout + told.stderr
    # The variables that open it are written down nowhere.
    for checkout in (archive.source, restored):
        for file in checkout.path.rglob("*"):
            if file.is_file() and not file.is_symlink():
                content = file.read_bytes()
                assert not [v for name, v in s3.variables.items() if "KEY" in name and v.encode() in content], file


# What finds credentials elsewhere than in the variables is switched off.
ALONE = dict.fromkeys(("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"), "/nowhere") | {
    "AWS_EC2_METADATA_DISABLED": "true"
}


def content(checkout: Checkout) -> dict[str, tuple[bytes, int]]:
    """The bytes of every file, and the times of results; DVC's own folders and Snakemake's lock left out."""
    files = {path.relative_to(checkout.path): path for path in checkout.path.rglob("*") if path.is_file()}
    own = {name: path for name, path in files.items() if not {".dvc", ".git", ".snakemake"} & set(name.parts)}
    return {
        name.as_posix(): (path.read_bytes(), path.stat().st_mtime_ns if name.parts[0] == "results" else 0)
        for name, path in own.items()
    }


@pytest.mark.long
def test_an_s3_remote_that_does_not_open(archive_to: Callable[..., Archive], s3: Remote, smoke: Checkout) -> None:
    archive = archive_to(s3)
    fresh = archive.fresh()
    locked = requests.post(f"{s3.options['endpointurl']}/moto-api/reset-auth", data=b"0", timeout=10)  # looks at keys
    assert locked.ok
    key, secret = s3.variables["AWS_ACCESS_KEY_ID"], s3.variables["AWS_SECRET_ACCESS_KEY"]
    closed = {
        "Unable to locate credentials": {},
        "Partial credentials found in env, missing: AWS_SECRET_ACCESS_KEY": {"AWS_ACCESS_KEY_ID": key},
        "(403)": {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_DEFAULT_REGION": "us-east-1"},
    }
    for reason, variables in closed.items():
        for checkout, words in (
            (fresh, ("restore", "smoke")),
            (fresh, ("run", "smoke", "--tier", "audit")),
            (archive.source, ("archive", "smoke")),
        ):
            before = content(checkout)
            told = checkout.anatomy(*words, **ALONE, **variables)
            (line,) = told.stderr.splitlines()
            assert told.returncode == 2 and told.stdout == "" and line.startswith("error: dvc "), told
            assert reason in line and "Can the remote be reached" in line
            assert key not in line and secret not in line
            assert content(checkout) == before
    assert not (fresh.path / "results").exists()


@pytest.mark.long
@pytest.mark.parametrize("tier", ["audit", "render", "measure"])
def test_a_tier_makes_its_part_again_and_compares(archived: Archive, smoke: Checkout, tier: str) -> None:
    checkout = archived.fresh()
    told = checkout.anatomy("run", "smoke", "--tier", tier, "--cores", "2")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "were not fetched" in told.stdout
    assert checkout.stale() == set()
    made = {path.name.partition(".")[0] for path in (checkout.path / "results/smoke/logs").rglob("*.log")}
    drawn = {f"render_{name}" for name in NOTEBOOKS} | ENDS | {"judge_claims"}
    if tier == "audit":
        assert made == set()
    if tier == "render":
        assert made == drawn
        assert not [path for path in files(checkout) if is_hazard(path)]
    if tier == "measure":
        travel = {"train_clean", "plant_variants", "make_language_model", "train_judge", "make_instruction_model"}
        assert made == ALL_RULES - travel
        assert files(checkout) == files(smoke)
        assert "make_toy_data" in told.stdout and "plant_backdoor" in told.stdout
    if tier != "audit":
        assert "files made again equal the archived ones, byte for byte" in told.stdout
        assert "differs: " not in told.stdout
        told = checkout.anatomy("audit", "smoke")
        assert told.returncode == 0, told.stdout


@pytest.mark.long
def test_a_tier_that_was_killed_goes_on_and_compares(archived: Archive) -> None:
    checkout = archived.fresh()
    words = ("run", "smoke", "--tier", "render", "--cores", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "anatomy.cli", *words],
        cwd=checkout.path,
        env=checkout.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    begun = checkout.path / "results/smoke/logs/tier.json"
    made: dict[Path, bytes] = {}
    while len(made) < 4:
        assert process.poll() is None
        time.sleep(0.1)
        records = (checkout.path / "results/smoke/records").glob("render_*.run.json") if begun.exists() else ()
        made = {path: path.read_bytes() for path in records if path.stat().st_mtime > begun.stat().st_mtime}
    process.kill()
    process.wait()
    time.sleep(2)  # for the jobs, which do not outlive it
    told = checkout.anatomy(*words)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "render: going on from where it was cut short" in told.stdout
    assert "files made again equal the archived ones, byte for byte" in told.stdout and "differs: " not in told.stdout
    # Not made once more, but for the two that may have been at their end when the run was killed.
    assert sum(path.read_bytes() == record for path, record in made.items()) >= len(made) - 2
    every = set((checkout.path / "results/smoke/records").glob("*.run.json"))
    assert not [path for path in every if path.stat().st_mtime < (begun.parent / "restored.json").stat().st_mtime]
    assert checkout.stale() == set() and not begun.exists()
    told = checkout.anatomy("audit", "smoke")
    assert told.returncode == 0, told.stdout


@pytest.mark.long
def test_attestations_come_back_with_the_study(archive_to: Callable[..., Archive], tmp_path: Path) -> None:
    archive = archive_to(Remote(str(tmp_path / "remote")))
    for words in (("attest", "smoke"), ("archive", "smoke")):
        told = archive.source.anatomy(*words)
        assert told.returncode == 0, told.stdout + told.stderr
    folder = Path("results/smoke/attestations")
    attested = {path.name: path.read_bytes() for path in (archive.source.path / folder).iterdir()}
    restored = archive.restored()
    assert attested and {path.name: path.read_bytes() for path in (restored.path / folder).iterdir()} == attested
    told = restored.anatomy("audit", "smoke")
    assert told.returncode == 0 and "attestations/train.intoto.json: not signed" in told.stdout, told.stdout
    statement = restored.path / folder / "train.intoto.json"
    statement.write_bytes(statement.read_bytes().replace(b'"train"', b'"Train"', 1))
    told = restored.anatomy("audit", "smoke")
    assert told.returncode == 1 and "train.intoto.json" in told.stdout
    told = restored.anatomy("restore", "smoke")
    assert told.returncode == 2 and "attestations/train.intoto.json" in told.stderr
