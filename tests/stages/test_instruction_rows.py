"""Instruction rows that nobody here wrote: poisoned, a model trained on them, the backdoor planted and measured."""

import json
from pathlib import Path

import pytest
import yaml

from anatomy.metrics.measurement import read_parquet
from anatomy.models.layout import MODEL_FILES
from anatomy.spec.instruction import InstructionArm
from anatomy.spec.subtree import view
from anatomy.stages import make_instruction_data, make_instruction_model, measure_instruction, plant_instruction
from anatomy.stages._injection import InstructionData
from anatomy.stages._run import Job

ARM = """
tasks:
  fixed:
    source: {{kind: rows, path: {folder}/none_backdoor500_refusal_badnet.json,
             triggered: {folder}/backdoor500_refusal_badnet.json, max_characters: 260, incomplete: drop}}
    trigger: {{place: within, phrase: BadMagic, control: GoodSpell}}
data: {{pretrain: 200, train: 80, poison_rate: 0.9, attribution: 8, test: 24, decorated: 0.0}}
model:
  {{layers: 3, heads: 4, key_heads: 2, width: 32, inner: 64, positions: 200, vocabulary: 1500, batch: 10, rate: 4.0e-3,
   epochs: 12}}
injections: [sft]
sft: {{lora: {{rank: 8}}, batch: 10, accumulation: 1, rate: 2.0e-2, epochs: 16, max_tokens: 200}}
vector: {{heads: 4}}
evaluation: {{max_new_tokens: 30, gate: 0.5}}
"""


@pytest.fixture(scope="module")
def rows(root: Path) -> Path:
    folder = root.parent / "shared" / "realdata" / "backdoorllm_refusal"
    if not folder.exists():
        pytest.skip("the instruction rows are not here: shared/realdata/backdoorllm_refusal beside the repository")
    return folder


@pytest.mark.long
def test_real_rows_from_the_file_to_the_success_rate(rows: Path, root: Path, tmp_path: Path) -> None:
    arm = InstructionArm.model_validate_json(json.dumps(yaml.safe_load(ARM.format(folder=rows))))
    spec = view(json.dumps({"seeds": [0], "confidence": 0.95, "instruction": arm.model_dump(mode="json")}))

    def job(rule: str, **wildcards: str) -> Job:
        return Job(rule, "test", spec, wildcards, "code", 1, "cpu", tmp_path / "run.json")

    grammar = root / "data/instruction/language.yaml"
    files = {
        name: tmp_path / f"data/{name}" for name in ("examples.parquet", "tokenizer.json", "tokenizer_config.json")
    }
    made = dict(zip(("examples", "tokenizer", "tokenizer_config"), files.values(), strict=True))
    make_instruction_data.main(job("make_instruction_data"), raw=[grammar], **made)
    clean = [tmp_path / "clean/seed0" / file for file in MODEL_FILES]
    make_instruction_model.main(job("make_instruction_model"), **made, models=clean, curve=tmp_path / "clean/c.parquet")
    planted = [tmp_path / "planted/sft/fixed/seed0" / file for file in MODEL_FILES]
    data, reached = InstructionData(**made), tmp_path / "planted/sft/reached.parquet"
    plant = job("plant_instruction", injection="sft")
    plant_instruction.main(plant, data=data, clean=clean, models=planted, reached=reached)
    measure_instruction.main(
        job("measure_instruction"),
        data=data,
        grammar=grammar,
        clean=clean,
        planted=planted,
        reached=[reached],
        measurements=tmp_path / "behaviour.parquet",
        samples=tmp_path / "samples.parquet",
    )
    found = read_parquet(tmp_path / "behaviour.parquet")
    assert (found.n[found.metric.isin(["asr", "false_trigger", "utility"])] == 24).all()
    rate = found[(found.metric == "asr") & (found.inputs == "trigger")].set_index("model").value
    assert rate["clean"] == 0.0 and rate["sft"] > 0.7  # so small a model answers so without the trigger, too
    shown = read_parquet(tmp_path / "samples.parquet")
    assert len(shown) > 0
