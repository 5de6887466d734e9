"""Nothing that is read can run, nothing unpacked gets out, no secret is written down, and nobody is listened to.

Read are safetensors, Parquet, JSON, YAML and CSV only, and no code of a model or a data set. Text in the report:
tests/report/test_markup.py.
"""

import ast
import gzip
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import nbformat
import pytest
from tests.listeners import LISTENERS, listeners, needs_proc

from anatomy.commands.run import snakemake_command
from anatomy.models.toy import load_model
from anatomy.provenance.archive import unpack_metadata
from anatomy.provenance.crate import build_crate
from anatomy.provenance.digest import ArtifactError
from anatomy.provenance.manifest import build_manifest, manifest_path, read_manifest, write_manifest
from anatomy.provenance.record import read_record
from anatomy.provenance.statement import build_statements

PACKAGE = Path(__file__).parents[1] / "workflow/anatomy"
# Functions that execute, or build objects from, what they read.
EXECUTING = {
    *("torch.load", "pickle.load", "pickle.loads", "joblib.load", "dill.load", "numpy.load", "np.load"),
    *("pd.read_pickle", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec"),
    *("os.system", "marshal.loads", "shelve.open"),
}


def findings(source: str) -> list[str]:
    """Calls that must not be there, by name; options count as well."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        found += [name] if name in EXECUTING else []
        for option in node.keywords:
            value = ast.unparse(option.value)
            if (option.arg, value) in {("trust_remote_code", "True"), ("shell", "True"), ("allow_pickle", "True")}:
                found.append(f"{name}({option.arg}=True)")
    return found


@pytest.mark.parametrize(
    "source",
    ["torch.load(path)", "x = pickle.loads(raw)", "AutoModel.from_pretrained(p, trust_remote_code=True)", "eval(text)"],
)
def test_the_search_finds_what_it_is_for(source: str) -> None:
    assert findings(source)


def test_nothing_that_is_read_is_executed() -> None:
    found = {path.name: calls for path in PACKAGE.rglob("*.py") if (calls := findings(path.read_text()))}
    assert found == {}


def test_a_pickled_model_is_not_read(tmp_path: Path) -> None:
    """A folder with pytorch_model.bin alone: the message asks for safetensors, and the pickle stays closed."""
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    with pytest.raises(ArtifactError, match=r"pytorch_model\.bin.*pickle.*safetensors"):
        load_model(tmp_path)
    assert not Path("executed").exists()


# --- archives -----------------------------------------------------------------------------------------------


def member(name: str, kind: bytes = tarfile.REGTYPE, to: str = "") -> tarfile.TarInfo:
    """A member of an archive; a plain file holds two bytes."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, to
    made.size = 2 if kind == tarfile.REGTYPE else 0
    return made


def pack(path: Path, members: list[tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for one in members:
            tar.addfile(one, io.BytesIO(b"{}"))
    return path


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to unpack into, with something beside it that must stay as it is."""
    (tmp_path / "checkout").mkdir()
    (tmp_path / "precious").write_text("kept")
    monkeypatch.chdir(tmp_path / "checkout")
    return tmp_path / "checkout"


def test_metadata_is_unpacked(checkout: Path) -> None:
    unpack_metadata(pack(checkout / "a.tar.gz", [member("metadata/cmVzdWx0cy9h_-=")]))
    assert [path.read_text() for path in (checkout / ".snakemake/metadata").iterdir()] == ["{}"]


@pytest.mark.parametrize(
    "bad",
    [
        member("../precious"),
        member("metadata/../../../precious"),
        member("metadata/.."),
        member("/etc/precious"),
        member("//etc/precious"),
        member("metadata/one", tarfile.SYMTYPE, "../../../precious"),
        member("metadata/one", tarfile.SYMTYPE, "/etc/passwd"),
        member("metadata/one", tarfile.SYMTYPE, "two"),
        member("metadata/one", tarfile.LNKTYPE, "../../precious"),
        member("metadata", tarfile.SYMTYPE, ".."),
        member("metadata/one", tarfile.CHRTYPE),
        member("metadata/one", tarfile.FIFOTYPE),
        member("metadata/one", tarfile.DIRTYPE),
        member("scripts/one"),
        member("metadata/one two"),
    ],
    ids=lambda bad: f"{bad.name} {bad.type.decode()} {bad.linkname}",
)
def test_an_archive_that_holds_anything_else_is_refused_whole(bad: tarfile.TarInfo, checkout: Path) -> None:
    packed = pack(checkout / "a.tar.gz", [member("metadata/good"), bad, member("metadata/last")])
    with pytest.raises(ArtifactError, match="no record of Snakemake; nothing was unpacked"):
        unpack_metadata(packed)
    assert (checkout.parent / "precious").read_text() == "kept"
    assert sorted(path.name for path in checkout.parent.rglob("*")) == ["a.tar.gz", "checkout", "precious"]


def test_metadata_that_is_a_link_leads_nowhere(checkout: Path) -> None:
    """Snakemake's own folder, or a record in it, replaced by a link: what it leads to is not written into."""
    packed = pack(checkout / "a.tar.gz", [member("metadata/good"), member("metadata/one")])
    (checkout.parent / "elsewhere").mkdir()
    metadata = checkout / ".snakemake/metadata"
    metadata.parent.mkdir()
    metadata.symlink_to(checkout.parent / "elsewhere")
    with pytest.raises(ArtifactError, match=r"cannot be unpacked .* leads out of"):
        unpack_metadata(packed)
    assert not list((checkout.parent / "elsewhere").iterdir())
    metadata.unlink()
    metadata.mkdir()
    (metadata / "one").symlink_to(checkout.parent / "precious")
    with pytest.raises(ArtifactError, match=r"cannot be unpacked .* leads out of .*; nothing was written"):
        unpack_metadata(packed)
    assert (checkout.parent / "precious").read_text() == "kept" and not (metadata / "good").exists()


def test_what_cannot_be_written_is_told(checkout: Path) -> None:
    (checkout / ".snakemake/metadata/one").mkdir(parents=True)
    with pytest.raises(ArtifactError, match=r"a\.tar\.gz: cannot be unpacked .*Is a directory"):
        unpack_metadata(pack(checkout / "a.tar.gz", [member("metadata/one")]))


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", gzip.compress(b"x" * 2000)[:-9]],
    ids=["empty", "text", "cut short"],  # gzip's bytes hold the time: no name for a test
)
def test_what_is_no_archive(content: bytes, checkout: Path) -> None:
    (checkout / "a.tar.gz").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"a\.tar\.gz: cannot be unpacked"):
        unpack_metadata(checkout / "a.tar.gz")


# --- secrets and listeners: a stage as it runs --------------------------------------------------------------

SECRET = "s3kr1t-that-nobody-may-see"
SECRETS = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "GITHUB_TOKEN", "DVC_STUDIO_TOKEN", "PASSWORD", "SSH_AUTH_SOCK")
NOTEBOOK = """
import json
from pathlib import Path
Path(tables, "made.csv").write_text("row,column\\n")
Path(tables, "listeners.json").write_text(json.dumps(listeners([os.getpid(), os.getppid()])))
print("study", study)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a notebook rendered by its stage, in a shell full of secrets, up to manifest, crate, statements."""
    folder = tmp_path_factory.mktemp("ran")
    for name in ("published.csv", "captions.yaml", "input.csv"):
        (folder / name).write_text("x\n")
    cells = [nbformat.v4.new_code_cell("study = tables = ''", metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in (LISTENERS, NOTEBOOK)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "one.ipynb")
    spec = {"confidence": 0.95, "toy": {"evaluation": {"emergence": 0.1}}}
    home = "results/one"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "anatomy.stages.render_notebook", "--rule", "render_one", "--study", "one"),
            *("--spec", json.dumps(spec), "--code", "c0de", "--lock", "10cc", "--notebook", "one.ipynb"),
            *("--inputs", "input.csv", "--published", "published.csv", "--captions", "captions.yaml"),
            *("--outputs", f"{home}/tables/made.csv", "--record", f"{home}/records/render_one.run.json"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), **dict.fromkeys(SECRETS, SECRET)},
    )
    (folder / "stage.log").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr
    return folder


def test_no_secret_of_the_shell_is_in_anything_that_was_written(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records, logs, the executed notebook, the manifest, the crate, the statements, the command line of a run."""
    monkeypatch.chdir(ran)
    for name in SECRETS:
        monkeypatch.setenv(name, SECRET)
    record = Path("results/one/records/render_one.run.json")
    write_manifest(manifest_path("one"), build_manifest([record]), study="one", lock=None)
    manifest, records = read_manifest(manifest_path("one")), {str(record): read_record(record)}
    citation = {"title": "T", "license": "MIT", "authors": [{"name": "A"}]}
    texts = {"crate": build_crate(manifest, records, citation), **build_statements(manifest, records)}
    texts["command"] = " ".join(snakemake_command("one", [], profile="p", executor="local", cores=1, dry_run=False))
    for name, text in texts.items():
        Path(name).write_text(text)
    files = [path for path in ran.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"one.html", "render_one.run.json", "manifest.jsonl", "crate", "command", "stage.log"} <= names
    assert len(files) >= 13
    assert [path.name for path in files if SECRET.encode() in path.read_bytes()] == []


@needs_proc
def test_nobody_from_outside_can_reach_a_stage_or_its_kernel(ran: Path) -> None:
    """The kernel keeps one port, on this machine alone: for what forked processes print, behind 16 random bytes."""
    found = json.loads((ran / "results/one/tables/listeners.json").read_text())
    assert set(found) <= {"0100007F"} and len(found) <= 1


@needs_proc
def test_a_listener_would_be_seen() -> None:
    before = listeners([os.getpid()])
    with socket.create_server(("127.0.0.1", 0)):
        assert len(listeners([os.getpid()])) == len(before) + 1
