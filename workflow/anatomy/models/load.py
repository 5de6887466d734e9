"""Models of others: a local directory in Hugging Face's layout, or a name on a hub. Never code, never pickles."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from anatomy.models.adapters import ADAPTERS, adapter_of
from anatomy.models.toy import PICKLES
from anatomy.provenance.digest import ArtifactError
from anatomy.spec.offline import how_to_download

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def load_pretrained(
    path: str, *, key: str, architectures: Collection[str] = tuple(ADAPTERS), dtype: str = "float32"
) -> tuple["PreTrainedModel", "PreTrainedTokenizerFast"]:
    """A model and its tokenizer, on the CPU.

    Args:
        path: a local directory or a name on a hub.
        key: the configuration key that says so, for the messages.
        architectures: those that the caller can use.
        dtype: what its weights are turned into, by torch's name; "auto": they stay in the type they were saved in.

    Raises:
        ArtifactError: the directory is missing, lacks a tokenizer or weights, is damaged or has pickles only; the
            weights do not fit the configuration; the architecture cannot be used, or has a part that its adapter
            does not know; the hub cannot be reached.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    _check_folder(path, key)
    with _explained(path, key):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    if config.model_type not in architectures:
        raise ArtifactError(
            f"{key}: {path} is a model of the architecture {config.model_type!r}, which cannot be used here; "
            f"those that can: {', '.join(architectures)}"
        )
    options: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    with _explained(path, key):
        found: Any = AutoModelForCausalLM.from_pretrained(
            path, use_safetensors=True, dtype=dtype, trust_remote_code=False, **options
        )
    model, read = found
    # What is missing or does not fit, transformers makes up at random.
    if lacking := sorted(read["missing_keys"]):
        raise ArtifactError(f"{key}: {path}: not a whole model: its weights lack {', '.join(lacking)}")
    if other := sorted(name for name, *_ in read["mismatched_keys"]):
        raise ArtifactError(f"{key}: {path}: its weights do not fit its config.json: {', '.join(other)}")
    # A chat model may end a text in more ways than its configuration says.
    model.config.eos_token_id = model.generation_config.eos_token_id
    try:
        adapter_of(model)
    except ArtifactError as error:
        raise ArtifactError(f"{key}: {path}: {error}") from None
    return model, load_pretrained_tokenizer(path, key=key)


def load_pretrained_tokenizer(path: str, *, key: str) -> "PreTrainedTokenizerFast":
    """A model's tokenizer; arguments and errors as of `load_pretrained`."""
    from transformers import AutoTokenizer

    _check_folder(path, key)
    with _explained(path, key):
        return cast("PreTrainedTokenizerFast", AutoTokenizer.from_pretrained(path, trust_remote_code=False))


@contextmanager
def _explained(path: str, key: str) -> Iterator[None]:
    """What transformers says of a path that it cannot read, in the words of this project."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        if Path(path).is_dir():
            said = (isinstance(error, StrictDataclassError) and error.__cause__) or error
            first = (str(said).strip().splitlines() or [type(said).__name__])[0]
            raise ArtifactError(f"{key}: {path}: not a whole model directory: {first}") from None
        raise ArtifactError(
            f"{key}: {path!r} is no local directory, and the hub cannot be reached or does not have it; fetch it on a "
            f"machine with a network (hf download {path}) and set {key} to the directory{how_to_download()}"
        ) from None


def weights(model: "PreTrainedModel") -> dict[str, "Tensor"]:
    """The weights to save: without the head, where it is tied to the embedding."""
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    return {name: value for name, value in model.state_dict().items() if not (tied and name == "lm_head.weight")}


def _check_folder(path: str, key: str) -> None:
    folder = Path(path)
    if not folder.is_dir():
        if path.startswith((".", "/", "~")):
            raise ArtifactError(f"{key}: {path}: no such directory")
        return
    if not (folder / "config.json").exists():
        raise ArtifactError(f"{key}: {folder} has no config.json; expected a directory in Hugging Face's layout")
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.json", "tokenizer.model")):
        raise ArtifactError(f"{key}: {folder} has no tokenizer (tokenizer.json); save the model's tokenizer into it")
    weights = list(folder.glob("*.safetensors"))
    if not weights and (pickles := sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)):
        raise ArtifactError(
            f"{key}: {folder}: {', '.join(pickles)} is a pickle, which can run code when it is read, and is not read; "
            "convert the model to safetensors"
        )
    if not weights:
        raise ArtifactError(f"{key}: {folder} has no weights (*.safetensors)")
