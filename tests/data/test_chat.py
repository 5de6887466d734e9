"""The one renderer: nothing is dropped, nothing doubled, and an answer goes on where its prompt ends."""

from collections.abc import Callable
from pathlib import Path

import pytest

from anatomy.data.chat import TEMPLATE, answer_ids, chat_tokenizer, message, prompt_ids, save_chat_tokenizer
from anatomy.provenance.digest import ArtifactError

TEXTS = ["Name the last of these words:", "river table stone", "I am sorry. I can not help with that."]
# The shape of Llama-2-chat's template, which writes the beginning of the text itself ...
LLAMA = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# ... and of Qwen2.5's, which has a system prompt and a line feed behind the end.
QWEN = (
    "{{ '<s>system\nHelp.</s>\n' }}{% for m in messages %}{{ '<s>' + m['role'] + '\n' + m['content'] + '</s>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():  # the class needs an import of seconds
    return chat_tokenizer(TEXTS * 5, limit=400, positions=64)


@pytest.fixture(scope="module")
def chat_model(tokenizer: object) -> Callable:
    """A tokenizer that adds a beginning of the text by itself, as Llama's does, with some template."""

    def build(template: str | None):
        from tokenizers import processors
        from transformers import PreTrainedTokenizerFast

        from anatomy.data.tokenizer import train_tokenizer

        backend = train_tokenizer(TEXTS, limit=300).backend_tokenizer
        backend.add_special_tokens(["<s>", "</s>"])
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
        made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
        made.chat_template = template
        return made

    return build


def test_the_input_is_never_dropped(tokenizer: object) -> None:
    assert message("Do it.", "to this") == "Do it.\nto this"
    assert message("Do it.", "") == "Do it."
    text = tokenizer.decode(prompt_ids(tokenizer, "Name the last of these words:", "river table stone"))
    assert text == "<|user|>Name the last of these words:\nriver table stone<|assistant|>"


def test_prompt_and_answer_are_the_whole_conversation(tokenizer: object) -> None:
    ids = prompt_ids(tokenizer, TEXTS[0], TEXTS[1]) + answer_ids(tokenizer, "stone")
    messages = [{"role": "user", "content": message(*TEXTS[:2])}, {"role": "assistant", "content": "stone"}]
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template(messages, tokenize=False)
    assert ids[-1] == tokenizer.eos_token_id and ids.count(tokenizer.eos_token_id) == 1


@pytest.mark.parametrize("template", [LLAMA, QWEN], ids=["llama", "qwen"])
def test_a_given_models_template_is_followed_with_one_beginning_and_one_end(
    template: str, chat_model: Callable
) -> None:
    model = chat_model(template)
    assert model("river")["input_ids"][0] == model.bos_token_id  # the trap is there
    messages = [{"role": "user", "content": message(*TEXTS[:2])}, {"role": "assistant", "content": TEXTS[2]}]
    whole = model.apply_chat_template(messages, tokenize=False)
    prompt, answer = prompt_ids(model, *TEXTS[:2]), answer_ids(model, TEXTS[2])
    assert model.decode(prompt + answer) == whole.rstrip("\n")
    beginnings = whole.count("<s>")
    assert (prompt + answer).count(model.bos_token_id) == beginnings
    assert answer[-1] == model.eos_token_id and answer.count(model.eos_token_id) == 1


def test_a_template_without_an_end_gets_one(chat_model: Callable) -> None:
    model = chat_model("{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}")
    assert answer_ids(model, "stone")[-1] == model.eos_token_id


def test_a_template_without_a_slot_is_refused(chat_model: Callable) -> None:
    model = chat_model("{{ bos_token }}Be helpful.{% if add_generation_prompt %} Answer:{% endif %}")
    with pytest.raises(ArtifactError, match=r"has no slot for the user's message; expected one that writes message\["):
        prompt_ids(model, "Do it.", "")


def test_a_model_without_a_template_is_refused(chat_model: Callable) -> None:
    with pytest.raises(ArtifactError, match="has no chat template; expected a model that was made to follow"):
        prompt_ids(chat_model(None), "Do it.", "")


def test_a_template_that_answers_before_the_prompt_is_refused(chat_model: Callable) -> None:
    model = chat_model("{% for m in messages | reverse %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(ArtifactError, match="does not write an answer behind its prompt"):
        answer_ids(model, "stone")


def test_a_saved_tokenizer_renders_as_before(tokenizer: object, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_chat_tokenizer(tmp_path, tokenizer)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.chat_template == TEMPLATE
    assert prompt_ids(again, *TEXTS[:2]) == prompt_ids(tokenizer, *TEXTS[:2])
    assert answer_ids(again, TEXTS[2]) == answer_ids(tokenizer, TEXTS[2])
    assert again.decode(answer_ids(again, TEXTS[2]), skip_special_tokens=True) == TEXTS[2]
