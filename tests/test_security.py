"""Nothing that is read can run: safetensors, Parquet, JSON, YAML and CSV only, no code of a model or a data set."""

import ast
from pathlib import Path

import pytest

from anatomy.models.toy import load_model
from anatomy.provenance.digest import ArtifactError

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
