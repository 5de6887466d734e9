"""Fine-tuning in two processes (accelerate's launch) ends where one process with twice the batch does."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from anatomy.data.tokenizer import train_tokenizer
from anatomy.models.load import weights
from anatomy.models.toy import load_state, save_model
from anatomy.spec.language import FineTuning
from anatomy.spec.methods import method
from anatomy.training.finetune import finetune

SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from anatomy.models.toy import load_model
from anatomy.spec.language import FineTuning
from anatomy.spec.methods import method
from anatomy.training.finetune import finetune

torch.set_num_threads(1)
folder, rows = Path(sys.argv[1]), json.loads(sys.argv[2])
recipe = FineTuning.model_validate_json(sys.argv[3])
model, _ = finetune(
    load_model(folder / "model").double(), rows, recipe, method("full"), seed=0, device="cpu",
    checkpoints=folder / "checkpoints",
)
rank = os.environ["RANK"]
torch.save({name: value for name, value in model.state_dict().items()}, folder / f"rank{rank}.pt")
"""


def recipe(batch: int) -> FineTuning:
    return FineTuning(batch=batch, rate=1e-2, epochs=2, max_tokens=9, checkpoint_steps=2)


def test_two_processes_are_one_with_twice_the_batch(make_model: Callable, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = [generator.integers(1, 40, size=9).tolist() for _ in range(16)]
    model: GPT2LMHeadModel = make_model()
    save_model(tmp_path / "model", weights(model), model.config, train_tokenizer(["a b"]))
    alone, _ = finetune(
        model.double(), rows, recipe(4), method("full"), seed=0, device="cpu", checkpoints=tmp_path / "alone"
    )
    before = load_state(tmp_path / "model")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [*launch, str(script), str(tmp_path), json.dumps(rows), recipe(2).model_dump_json()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    both = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, value in alone.state_dict().items():
        assert torch.equal(both[0][name], both[1][name]), name
        assert torch.allclose(both[0][name], value, atol=1e-9), name
    assert any(not torch.allclose(alone.state_dict()[name].float(), value) for name, value in before.items())
    # One process marked the checkpoints, and all of them are whole.
    folders = sorted((tmp_path / "checkpoints").glob("checkpoint-*"))
    assert folders and all((folder / "whole").exists() for folder in folders)
