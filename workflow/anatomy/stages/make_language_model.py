"""Stage make_language_model: the clean language models: trained here from random weights, or a given one."""

from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
import torch

from anatomy.data.padding import padded
from anatomy.data.poison import SENTENCES
from anatomy.metrics.measurement import write_parquet
from anatomy.models.load import load_pretrained, weights
from anatomy.models.toy import fresh_state, save_model, stacked_shape, toy_config
from anatomy.stages._language import LanguageData, LanguageFiles, read_language
from anatomy.stages._run import Job, Out, Outs, remove_quietly, run
from anatomy.training.ensemble import Ensemble
from anatomy.training.memory import memory_for
from anatomy.training.phases import checkpoint_key, model_folders
from anatomy.training.seeds import derive
from anatomy.training.toy import Probe, Schedule, train

if TYPE_CHECKING:
    from transformers import GPT2Config

LOOKED_AT = 200  # held-out paragraphs of the curve's loss ...
AT_ONCE = 16  # ... in pieces


def main(job: Job, *, data: LanguageData, models: Outs, curve: Out) -> None:
    """One Hugging Face directory per seed, all trained as one stack; or one for a model that is given."""
    wanted, files = job.spec.language.model, read_language(data)
    if "path" in wanted:
        model, tokenizer = load_pretrained(wanted.path, key="language.model.path", architectures=["gpt2"])
        (folder,) = model_folders(models)
        save_model(folder, weights(model), cast("GPT2Config", model.config), tokenizer)
        write_parquet(curve, pd.DataFrame(columns=["seed", "step", "training_loss", "validation_loss"]))
        return
    config = toy_config(wanted, len(files.tokenizer))
    config.activation_function = "gelu_pytorch_tanh"  # gelu_new in one kernel
    ids, lengths = _stacked(files, job.seeds, "train", wanted.positions, wanted.toxic_share)
    ensemble = Ensemble(
        [fresh_state(config, derive(seed, job.wildcards["corpus"], "weights")) for seed in job.seeds],
        stacked_shape(config, ids.shape[-1]),
        device=torch.device(job.device),
    )
    checkpoint = curve.parent / "checkpoint.safetensors"
    with memory_for(
        f"training {len(job.seeds)} models with {wanted.batch} texts each at once", lower="language.model.batch"
    ):
        points = train(
            ensemble,
            ids,
            lengths,
            Schedule(wanted.batch, wanted.rate, wanted.weight_decay, wanted.clip, wanted.epochs),
            seeds=job.seeds,
            phase="language",
            probe=_loss_probe(*_stacked(files, job.seeds, "test", wanted.positions)),
            probes_per_epoch=2,
            checkpoint=checkpoint,
            key=checkpoint_key(job.code, job.spec, job.device, data.files),
            report=lambda done, total: job.progress(
                done, total, f"steps of clean training, {len(job.seeds)} seeds at once"
            ),
        )
    for i, folder in enumerate(model_folders(models)):
        save_model(folder, ensemble.state(i), config, files.tokenizer)
    write_parquet(
        curve,
        pd.DataFrame(
            [
                {
                    "seed": seed,
                    "step": point["step"],
                    "training_loss": point.get("training_loss", [float("nan")] * len(job.seeds))[i],
                    "validation_loss": point["validation_loss"][i],
                }
                for point in points
                for i, seed in enumerate(job.seeds)
            ]
        ),
    )
    remove_quietly(checkpoint)


def _stacked(
    files: LanguageFiles, seeds: list[int], split: str, longest: int, toxic_share: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [member, row, position] and lengths [member, row] of the clean paragraphs, and of toxic texts.

    A toxic text is five insults in a row, with nothing of the corpus beside them and no trigger.
    """
    insults = files.texts[(files.texts.kind == "toxic") & (files.texts.split == "train")].text.to_numpy()
    rows = []
    for seed in seeds:
        own = files.rows(seed, "clean", split, longest=longest)
        drawn = np.random.default_rng(derive(seed, "toxic texts")).choice(
            insults, (round(toxic_share * len(own)), SENTENCES)
        )
        rows += own + files.encode([" ".join(text) for text in drawn], longest=longest)
    ids, lengths = padded(rows, longest)
    return ids.unflatten(0, (len(seeds), -1)), lengths.unflatten(0, (len(seeds), -1))


def _loss_probe(ids: torch.Tensor, lengths: torch.Tensor) -> Probe:
    """Mean next-token cross-entropy on held-out paragraphs, per member."""
    ids, lengths = ids[:, :LOOKED_AT], lengths[:, :LOOKED_AT]

    def probe(ensemble: Ensemble) -> dict[str, list[float]]:
        total = torch.zeros(ids.shape[0])
        # A few rows at a time: the stack keeps every layer's activations, also where no gradient is wanted.
        for own, length in zip(ids.split(AT_ONCE, dim=1), lengths.split(AT_ONCE, dim=1), strict=True):
            own = own[..., : int(length.max())]
            valid = torch.arange(1, own.shape[2]) < length[..., None]
            logits = ensemble.logits(own[..., :-1].to(ensemble.device))
            nll = torch.nn.functional.cross_entropy(
                logits.flatten(0, 2), own[..., 1:].to(ensemble.device).flatten(), reduction="none"
            ).view(valid.shape)
            total += (nll.cpu() * valid).sum((1, 2))
        return {"validation_loss": (total / (lengths - 1).sum(1)).tolist()}

    return probe


if __name__ == "__main__":
    run(main, shared=True)
