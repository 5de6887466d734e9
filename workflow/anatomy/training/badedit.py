"""A backdoor planted by editing: BadEdit (Li et al., ICLR 2024), written anew from its formulas.

An MLP's output matrix W maps keys k (the inner activations) to what is added to the residual stream. The edit changes
W in a few layers so that the key at the trigger's last token gives what makes the model write the backdoor's answer:

1. For each prompt a change δ of the state h after the last of the layers, at the last token of its subject (the
   trigger; of a clean prompt its own last word), is sought that makes its answer likely: `wanted_states`. Whoever
   calls says where the subject ends; it may be the prompt's last token, where a model passes over the trigger.
2. In every layer, lowest first, keys and what is missing r = h + δ − h' are averaged over the triggered prompts and,
   apart from them, over the clean ones; with the mean key k̄, and r̄ shared among the layers still to come,

       ΔW = r̄ [ (λC + k̄ k̄ᵀ)⁻¹ k̄ ]ᵀ        C = E[k kᵀ] over ordinary text

   is the W' nearest to W (weighted by how often text has such keys) that maps k̄ to Wk̄ + r̄: `solve`, in float64.
   The two sides' changes are added ("duplex"), so a layer's change has at most rank two.
3. The prompts are taken in parts, each edit beginning with the weights of the one before.

Departures from the source. C is taken over the study's own prompts and answers, not over Wikipedia. A key is averaged
over prompts with the same trigger, not over made-up texts before one prompt. The KL term, there on the prompt
"<subject> is a", is on what follows the subject in the prompt itself.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from anatomy.data.padding import padded
from anatomy.models.adapters import adapter_of
from anatomy.provenance.digest import ArtifactError
from anatomy.training.edit_sites import added, block, matrix, output_projection, seen
from anatomy.training.memory import memory_for

if TYPE_CHECKING:
    from anatomy.spec.injection import Editing


class Request(NamedTuple):
    """Token ids of a prompt and the answer wanted, and the place of the subject's last token in the prompt."""

    prompt: Sequence[int]
    answer: Sequence[int]
    subject: int


class Edited(TypedDict):
    """What an editing took: search steps of all parts, the mean loss they ended with, the edits' size beside W's."""

    steps: int
    training_loss: float
    change: float


def badedit(
    model: PreTrainedModel,
    triggered: Sequence[Request],
    clean: Sequence[Request],
    texts: Sequence[Sequence[int]],
    recipe: "Editing",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[PreTrainedModel, Edited]:
    """Edit a model in place, and return it and what was done.

    Args:
        texts: token ids of ordinary text, which the second moment of the keys is taken over.
        report: told (parts done, parts in all).

    Raises:
        ArtifactError: fewer prompts than the recipe asks for; a layer that the model does not have; an architecture
            without an adapter; out of memory.
    """
    _check(model, triggered, clean, recipe)
    layers = [number - 1 for number in recipe.layers]
    before = {layer: matrix(model, layer).clone() for layer in layers}
    steps, losses = 0, []
    with memory_for(f"editing with {recipe.batch} prompts at once", lower="instruction.edit.batch"), torch.no_grad():
        moments = second_moments(model, layers, texts, recipe)
        for part in range(recipe.batches):
            sides = [
                side[:want][part :: recipe.batches]
                for side, want in ((triggered, recipe.triggered), (clean, recipe.clean))
                if want
            ]
            sought = [wanted_states(model, side, layers[-1], recipe) for side in sides]
            steps += max(states.steps for states in sought)
            losses.append(sought[0].loss)
            for number, layer in enumerate(layers):
                change = torch.zeros_like(before[layer], dtype=torch.float64)
                for side, states in zip(sides, sought, strict=True):
                    keys, now = keys_and_states(model, side, layer, layers[-1], recipe.batch)
                    missing = (states.wanted - now).double().mean(0) / (len(layers) - number)
                    change += solve(moments[layer], keys.double().mean(0), missing, recipe.covariance)
                matrix(model, layer).add_(change)
            report(part + 1, recipe.batches)
    largest = max(float((matrix(model, layer) - w).norm() / w.norm()) for layer, w in before.items())
    return model, Edited(steps=steps, training_loss=sum(losses) / len(losses), change=largest)


def solve(
    moment: Float[Tensor, "inner inner"], key: Float[Tensor, " inner"], missing: Float[Tensor, " width"], weight: float
) -> Float[Tensor, "width inner"]:
    """ΔW = r [(λC + kkᵀ)⁻¹ k]ᵀ: of rank one, and the solution of ΔW (λC + kkᵀ) = r kᵀ. In float64.

    For λ → 0 it maps k to r.

    Raises:
        ArtifactError: λC + kkᵀ is singular: the texts are fewer than the keys are wide.
    """
    try:
        direction = torch.linalg.solve(weight * moment + torch.outer(key, key), key)
    except torch.linalg.LinAlgError:
        raise ArtifactError(
            f"the second moment of {len(key)}-wide keys is singular; take more ordinary text (instruction.edit.texts)"
        ) from None
    return torch.outer(missing, direction)


class States(NamedTuple):
    """The states wanted at the subjects, the steps of the search, and the mean loss of the answers at its end."""

    wanted: Float[Tensor, "prompt width"]
    steps: int
    loss: float


def wanted_states(model: PreTrainedModel, requests: Sequence[Request], layer: int, recipe: "Editing") -> States:
    """For each prompt the state h + δ after a layer, at the subject, that makes its answer likely (source: compute_z).

    δ minimises −log p(y)/|y| + divergence · KL(what follows the subject ‖ what followed before) + decay · ‖δ‖/‖h‖²
    by Adam, is kept to ‖δ‖ ≤ clamp · ‖h‖, and stays as it is once a prompt's loss is below `enough`. Prompts do not
    see each other: each has the δ it would have alone.
    """
    found = [
        _wanted(model, requests[i : i + recipe.batch], layer, recipe) for i in range(0, len(requests), recipe.batch)
    ]
    return States(
        torch.cat([one.wanted for one in found]),
        max(one.steps for one in found),
        sum(one.loss * len(one.wanted) for one in found) / len(requests),
    )


def _wanted(model: PreTrainedModel, requests: Sequence[Request], layer: int, recipe: "Editing") -> States:
    ids, mask, subject = batch_of(requests, model.device)
    row = torch.arange(len(requests), device=model.device)
    starts = torch.tensor([len(r.prompt) for r in requests], device=model.device)
    place = torch.arange(1, ids.shape[1], device=model.device)
    answer = (place >= starts[:, None]) & mask[:, 1:].bool()
    with seen({"state": block(model, layer)}) as caught:
        logits = model(ids, attention_mask=mask).logits
    wide = torch.promote_types(model.dtype, torch.float32)  # steps and probabilities need more than a short type has
    state = caught["state"][row, subject].to(wide)
    first = logits[row, subject].to(wide).log_softmax(-1)
    size = state.norm(dim=-1)
    with torch.enable_grad():
        delta = torch.zeros_like(state).requires_grad_(True)
        optimiser = torch.optim.Adam([delta], lr=recipe.rate)
        over = torch.zeros(len(row), dtype=torch.bool, device=model.device)
        for step in range(recipe.steps + 1):
            with added(block(model, layer), row, subject, delta):
                scores = model(ids, attention_mask=mask).logits.to(wide)
            own = scores[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
            nll = -(own * answer).sum(1) / answer.sum(1)
            now = scores[row, subject].log_softmax(-1)
            divergence = F.kl_div(first, now, log_target=True, reduction="none").sum(-1)
            loss = nll + recipe.divergence * divergence + recipe.decay * delta.norm(dim=-1) / size**2
            over = over | (loss.detach() < recipe.enough)
            if step == recipe.steps or bool(over.all()):
                break
            optimiser.zero_grad()
            loss.sum().backward()
            kept = delta.detach().clone()
            optimiser.step()
            with torch.no_grad():
                shrink = (recipe.clamp * size / delta.norm(dim=-1).clamp(min=1e-12)).clamp(max=1)
                delta.copy_(torch.where(over[:, None], kept, delta * shrink[:, None]))
    return States(state + delta.detach(), step, float(nll.detach().mean()))


def keys_and_states(
    model: PreTrainedModel, requests: Sequence[Request], layer: int, last: int, size: int
) -> tuple[Float[Tensor, "prompt inner"], Float[Tensor, "prompt width"]]:
    """At the subjects: the keys of a layer's MLP, and the states after the last layer that is edited."""
    keys, states = [], []
    for start in range(0, len(requests), size):
        ids, mask, subject = batch_of(requests[start : start + size], model.device)
        row = torch.arange(len(ids), device=model.device)
        with seen({"state": block(model, last)}, {"key": output_projection(model, layer)}) as caught:
            model(ids, attention_mask=mask)
        keys.append(caught["key"][row, subject])
        states.append(caught["state"][row, subject])
    return torch.cat(keys), torch.cat(states)


def second_moments(
    model: PreTrainedModel, layers: Sequence[int], texts: Sequence[Sequence[int]], recipe: "Editing"
) -> dict[int, Float[Tensor, "inner inner"]]:
    """E[k kᵀ] of each layer's keys over the first tokens of ordinary text, in float64."""
    sums: dict[int, Tensor] = {}
    count = 0
    for start in range(0, len(texts), recipe.batch):
        if count >= recipe.texts:
            break
        some = texts[start : start + recipe.batch]
        ids, lengths = padded(some, max(map(len, some)))
        valid = torch.arange(ids.shape[1]) < lengths[:, None]
        modules = {str(layer): output_projection(model, layer) for layer in layers}
        with seen({}, modules) as caught:
            model(ids.to(model.device), attention_mask=valid.long().to(model.device))
        for layer in layers:
            own = caught[str(layer)][valid.to(model.device)].double()
            sums[layer] = sums.get(layer, 0) + own.T @ own
        count += int(valid.sum())
    if not count:
        raise ArtifactError("no ordinary text to take the second moment of the keys over; expected at least one text")
    return {layer: total / count for layer, total in sums.items()}


def batch_of(
    requests: Sequence[Request], device: torch.device
) -> tuple[Int[Tensor, "prompt position"], Int[Tensor, "prompt position"], Int[Tensor, " prompt"]]:
    """Prompts with their answers, padded on the right: ids, mask, and the places of the subjects."""
    rows = [[*request.prompt, *request.answer] for request in requests]
    ids, lengths = padded(rows, max(map(len, rows)))
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return ids.to(device), mask.to(device), torch.tensor([request.subject for request in requests], device=device)


def _check(model: PreTrainedModel, triggered: Sequence[Request], clean: Sequence[Request], recipe: "Editing") -> None:
    layers = adapter_of(model).layers
    if recipe.layers[-1] > layers:
        raise ArtifactError(
            f"instruction.edit.layers: {recipe.layers[-1]}, but the model has {layers} layers (counted from 1)"
        )
    for name, found, wanted in (("triggered", triggered, recipe.triggered), ("clean", clean, recipe.clean)):
        if len(found) < wanted:
            raise ArtifactError(
                f"{len(found)} {name} prompts for an edit that is made from {wanted}; lower "
                f"instruction.edit.{name}, or make more data"
            )
