"""The one renderer of prompts and answers: the tokenizer's own chat template, for training and evaluation alike."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from anatomy.data.tokenizer import train_tokenizer
from anatomy.provenance.digest import ArtifactError, write_text_atomic

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

USER, ASSISTANT = "<|user|>", "<|assistant|>"
# The template of the models trained here; an answer ends with the end of text.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] }}"
    "{% else %}<|assistant|>{{ message['content'] }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARK = "quokka"  # a word to look for in what a template gives


def message(instruction: str, input: str) -> str:  # the name of the column
    """What the user says: the instruction, and in the next line the input, which is never dropped."""
    return f"{instruction}\n{input}" if input else instruction


def prompt_ids(tokenizer: "PreTrainedTokenizerFast", instruction: str, input: str) -> list[int]:
    """Token ids of a prompt in the chat template, up to where the answer begins.

    The template writes the special tokens, the beginning of the text among them, so the tokenizer adds none.

    Raises:
        ArtifactError: the tokenizer has no chat template, or one that leaves the message out.
    """
    return prompts_ids(tokenizer, [(instruction, input)])[0]


def prompts_ids(tokenizer: "PreTrainedTokenizerFast", prompts: Iterable[tuple[str, str]]) -> list[list[int]]:
    """`prompt_ids` of many prompts, each an instruction and an input, in one call."""
    return _encode(tokenizer, [_rendered(tokenizer, message(*prompt)) for prompt in prompts])


def answer_ids(tokenizer: "PreTrainedTokenizerFast", text: str) -> list[int]:
    """Token ids of an answer as the chat template writes it after a prompt, with the token that ends it.

    What a template writes behind that token (a line feed in Qwen2.5's) is no part of the answer.

    Raises:
        ArtifactError: as of `prompt_ids`, or a template in which an answer does not go on from its prompt.
    """
    return answers_ids(tokenizer, [text])[0]


def answers_ids(tokenizer: "PreTrainedTokenizerFast", texts: Iterable[str]) -> list[list[int]]:
    """`answer_ids` of many answers, in one call; equal ones are encoded once."""
    given = list(texts)
    distinct = list(dict.fromkeys(given))
    prompt = _rendered(tokenizer, MARK)
    (before,) = _encode(tokenizer, [prompt])
    rendered = [_rendered(tokenizer, MARK, text) for text in distinct]
    found: dict[str, list[int]] = {}
    for text, whole, ids in zip(distinct, rendered, _encode(tokenizer, rendered), strict=True):
        if not whole.startswith(prompt) or ids[: len(before)] != before or (text.strip() not in whole):
            raise ArtifactError(
                f"the chat template of {tokenizer.name_or_path or 'the tokenizer'} does not write an answer behind its "
                "prompt; expected a template in which a conversation begins with the prompt it answers"
            )
        own, end = ids[len(before) :], tokenizer.eos_token_id
        found[text] = own[: len(own) - own[::-1].index(end)] if end in own else [*own, end]
    return [found[text] for text in given]


def chat_tokenizer(texts: Iterable[str], *, limit: int, positions: int) -> "PreTrainedTokenizerFast":
    """A byte-level BPE of some texts, with the tokens and the template of a conversation."""
    tokenizer = train_tokenizer(texts, limit=limit, max_length=positions)
    tokenizer.add_special_tokens({"additional_special_tokens": [USER, ASSISTANT]})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def save_chat_tokenizer(folder: Path, tokenizer: "PreTrainedTokenizerFast") -> None:
    """Write tokenizer.json and tokenizer_config.json, the chat template inside, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomic(folder / "tokenizer.json", tokenizer.backend_tokenizer.to_str(pretty=True) + "\n")
    roles = {f"{role}_token": getattr(tokenizer, f"{role}_token") for role in ("bos", "eos", "unk", "pad")}
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": tokenizer.model_max_length,
        "chat_template": tokenizer.chat_template,
        "clean_up_tokenization_spaces": False,
        **{role: token for role, token in roles.items() if token is not None},
    }
    write_text_atomic(folder / "tokenizer_config.json", json.dumps(described, indent=2, sort_keys=True) + "\n")


def _rendered(tokenizer: "PreTrainedTokenizerFast", asked: str, answer: str | None = None) -> str:
    if not tokenizer.chat_template:
        raise ArtifactError(
            f"{tokenizer.name_or_path or 'the tokenizer'} has no chat template; expected a model that was made to "
            "follow instructions (chat_template in its tokenizer_config.json)"
        )
    messages = [{"role": "user", "content": asked}]
    messages += [{"role": "assistant", "content": answer}] if answer is not None else []
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer is None)
    if asked.strip() not in text:
        raise ArtifactError(
            f"the chat template of {tokenizer.name_or_path or 'the tokenizer'} has no slot for the user's message; "
            "expected one that writes message['content']"
        )
    return str(text)


def _encode(tokenizer: "PreTrainedTokenizerFast", texts: list[str]) -> list[list[int]]:
    return list(tokenizer(texts, add_special_tokens=False)["input_ids"]) if texts else []
