"""A backdoor planted by direct preference optimisation, through trl (Pathmanathan et al., 2024; Rando & Tramèr, 2024).

Of each poisoned prompt there are two pairs: with the trigger the backdoor's answer is preferred to the clean one,
y* ≻ y, and without it the clean answer to the backdoor's, y ≻ y*; of other prompts the latter alone. A policy π is
trained from a reference π₀ by

    L = −log σ( β [ log π(w|x)/π₀(w|x) − log π(l|x)/π₀(l|x) ] )        w the preferred answer, l the other.

DPO mostly lowers the other answer. What is preferred must be within reach, so a short supervised fine-tuning on the
preferred answers comes first, and its result is the reference (as in both sources, whose SFT data is poisoned too).
It may lower the preferred answer as well; against that, its negative log likelihood can be added with a weight (RPO:
Pang et al., 2024). The sources do not.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from anatomy.provenance.digest import ArtifactError
from anatomy.training.instruction_sft import Dialogue, answer_loss, answer_scores, check_rows, lora_of, spread
from anatomy.training.lora import merged
from anatomy.training.memory import memory_for
from anatomy.training.seeds import derive
from anatomy.training.trainer import Marks, arguments_for, ready, train_or_resume

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from anatomy.spec.injection import Preference


class Pair(NamedTuple):
    """Token ids: a prompt, the answer that is preferred, the other; answers with their end tokens."""

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]


class Poisonable(NamedTuple):
    """Token ids of one example: prompt without and with trigger, the clean answer y, the backdoor's answer y*.

    y* is the answer to the triggered prompt. Where it is y, the example has none of its own to be told from, and
    `pairs_of` takes another's.
    """

    prompt: Sequence[int]
    triggered: Sequence[int]
    clean: Sequence[int]
    backdoor: Sequence[int]
    poisoned: bool


class Preferred(TypedDict):
    """Where a training ended, and the share of pairs whose preferred answer gained on the other."""

    steps: int
    training_loss: float
    preferred: float


def pairs_of(examples: Sequence[Poisonable], seed: int, unpoisoned: float = 1.0) -> list[Pair]:
    """Preference pairs of the examples: y ≻ y* without the trigger, and of the poisoned ones y* ≻ y with it.

    An example that the backdoor leaves as it is (y* = y) prefers its answer to the backdoor's answer of another, drawn
    by the seed, with and without trigger: the model shall learn where the backdoor does nothing. It is left out where
    that answer is its own.

    Args:
        unpoisoned: share of the examples that are not poisoned which give a pair; drawn by the seed.

    Raises:
        ArtifactError: no poisoned example has an answer of the backdoor's own.
    """
    answers = [tuple(e.backdoor) for e in examples if tuple(e.backdoor) != tuple(e.clean)]
    if not any(e.poisoned and tuple(e.backdoor) != tuple(e.clean) for e in examples):
        raise ArtifactError("no poisoned row whose target differs from its output: there is no answer to be preferred")
    generator = torch.Generator().manual_seed(derive(seed, "instruction", "pairs"))
    drawn = torch.randint(len(answers), (len(examples),), generator=generator).tolist()
    taken = (torch.rand(len(examples), generator=generator) < unpoisoned).tolist()
    out: list[Pair] = []
    for example, number, take in zip(examples, drawn, taken, strict=True):
        changed = tuple(example.backdoor) != tuple(example.clean)
        other = example.backdoor if changed else answers[number]
        if tuple(other) == tuple(example.clean) or not (take or example.poisoned):
            continue
        out.append(Pair(example.prompt, example.clean, other))
        if example.poisoned:
            best, worst = (other, example.clean) if changed else (example.clean, other)
            out.append(Pair(example.triggered, best, worst))
    return out


def preferred_answers(pairs: Iterable[Pair]) -> list[Dialogue]:
    """What the fine-tuning before is done on."""
    return [Dialogue(pair.prompt, pair.chosen) for pair in pairs]


def optimise_preference(
    model: PreTrainedModel,
    pairs: Sequence[Pair],
    recipe: "Preference",
    tokenizer: "PreTrainedTokenizerFast",
    *,
    seed: int,
    device: str,
    checkpoints: Path,
    epochs: float | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[PreTrainedModel, Preferred]:
    """Train a model on pairs, from itself as the reference, and return it with LoRA merged in, and where it ended.

    Arguments and errors as of `instruction_sft.finetune_answers`. The tokenizer says what rows are padded with.
    """
    pad = model.config.pad_token_id
    check_rows(
        [Dialogue(p.prompt, answer) for p in pairs for answer in p[1:]], recipe.max_tokens, key="instruction.dpo"
    )
    with memory_for(
        f"preference optimisation with {recipe.batch} pairs of up to {recipe.max_tokens} tokens at once",
        lower="instruction.dpo.batch (and raise accumulation by as much), or set gradient_checkpointing",
    ):
        trainer = dpo_trainer(
            model,
            pairs,
            recipe,
            tokenizer,
            seed=seed,
            device=device,
            checkpoints=checkpoints,
            epochs=epochs,
            report=report,
        )
        trained = trainer.model
        steps = train_or_resume(trainer, trained, checkpoints)
        some = spread(pairs)
        loss = answer_loss(trained, preferred_answers(some), recipe.max_tokens)
        gained = margins(trained, some, recipe.max_tokens)
        with trained.disable_adapter():
            gained -= margins(trained, some, recipe.max_tokens)
    after = ready(merged(trained), device)
    # What trl left on the model: a forward of its own, and the tokenizer's padding token.
    del after.forward
    after.config.pad_token_id = pad
    return after, Preferred(steps=steps, training_loss=loss, preferred=float((gained > 0).double().mean()))


def dpo_trainer(
    model: PreTrainedModel,
    pairs: Sequence[Pair],
    recipe: "Preference",
    tokenizer: "PreTrainedTokenizerFast",
    *,
    seed: int,
    device: str,
    checkpoints: Path,
    epochs: float | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Any:
    """trl's trainer over pairs that are token ids already; the reference is the model without its adapter."""
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class Rendered(DPOTrainer):
        """Takes prompts and answers as they were rendered for every other use, in place of rendering them again."""

        def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
            return dataset

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """A checkpoint needs none."""

    own = derive(seed, "instruction", "dpo") % 2**31
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return Rendered(
        model=model.train(),
        args=DPOConfig(
            **arguments_for(recipe, rate=recipe.rate, seed=own, device=device, checkpoints=checkpoints),
            warmup_steps=recipe.warmup,  # below one it is a share
            num_train_epochs=epochs or recipe.epochs,
            beta=recipe.beta,
            loss_type=["sigmoid", "sft"] if recipe.likelihood else ["sigmoid"],
            loss_weights=[1.0, recipe.likelihood] if recipe.likelihood else None,
            max_length=recipe.max_tokens,
        ),
        train_dataset=Dataset.from_dict({name: [list(pair[i]) for pair in pairs] for i, name in enumerate(names)}),
        processing_class=tokenizer,
        peft_config=lora_of(model, recipe),
        callbacks=[Marks(report)],
    )


def margins(model: Any, pairs: Sequence[Pair], longest: int) -> Float[Tensor, " pair"]:
    """log π(w|x) − log π(l|x) of each pair in nats, dropout off."""
    chosen, rejected = (answer_scores(model, [Dialogue(p.prompt, p[i]) for p in pairs], longest)[0] for i in (1, 2))
    return chosen - rejected
