import json
import logging
import shutil

import pytest
from tiny_tokenizer import CHAT_TEMPLATE, build_tokenizer
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from llmrun.engine.session import Message
from llmrun.engine.tokenizer import ChatTokenizer
from llmrun.errors import CheckpointError, UsageError

ENDOFTEXT, IM_START, IM_END = 0, 1, 2
QUESTION = [Message("system", "be short"), Message("user", "the cat 🙂")]


@pytest.fixture
def folder(tokenizer_folder, tmp_path):
    return shutil.copytree(tokenizer_folder, tmp_path / "model")


def with_template(tmp_path, template):
    return ChatTokenizer.load(build_tokenizer(tmp_path, template))


def text_of(tokenizer, ids):
    """The text with its special tokens."""
    return tokenizer._tokenizer.decode(ids)


def test_a_conversation_is_what_the_template_makes_of_it(tokenizer_folder):
    tokenizer = ChatTokenizer.load(tokenizer_folder)
    ids = tokenizer.encode_chat(QUESTION)
    assert all(type(token_id) is int for token_id in ids)
    assert (
        text_of(tokenizer, ids)
        == "<|im_start|>system\nbe short<|im_end|>\n<|im_start|>user\nthe cat 🙂<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ids.count(IM_START) == 3
    without = tokenizer.encode_chat(QUESTION, generation_prompt=False)
    assert text_of(tokenizer, without).endswith("the cat 🙂<|im_end|>\n")


def test_the_history_begins_with_the_tokens_that_were_generated(tokenizer_folder):
    """So that the KV cache of the last turn can be used again."""
    tokenizer = ChatTokenizer.load(tokenizer_folder)
    prompt = tokenizer.encode_chat(QUESTION)
    answer = tokenizer.encode_text("the mat ate the hat 🙂")
    turns = [*QUESTION, Message("assistant", tokenizer.decode([*answer, IM_END])), Message("user", "and?")]
    seen = [*prompt, *answer, IM_END]
    assert tokenizer.encode_chat(turns)[: len(seen)] == seen


def test_decode_leaves_out_special_tokens(tokenizer_folder):
    tokenizer = ChatTokenizer.load(tokenizer_folder)
    ids = tokenizer.encode_text("the hat")
    assert tokenizer.decode([IM_START, *ids, IM_END]) == "the hat"
    assert "".join(map(tokenizer.stream().push, [IM_START, *ids, IM_END])) == "the hat"
    assert "".join(map(tokenizer.stream(["hat"]).push, ids)) == "the "


def test_spaces_before_punctuation_stay_whatever_the_checkpoint_says(tmp_path):
    """Cleaning up would change text that has been shown already. Transformers does it for all but BPE."""
    words = Tokenizer(models.WordLevel({"a": 0, ",": 1, "[UNK]": 2}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, clean_up_tokenization_spaces=True).save_pretrained(tmp_path)
    tokenizer = ChatTokenizer.load(tmp_path)
    assert tokenizer._tokenizer.decode([0, 1]) == "a,"
    assert tokenizer.decode([0, 1]) == "a ,"


@pytest.mark.parametrize(
    ("files", "ends"),
    [
        ({}, {IM_END}),
        ({"generation_config.json": {"eos_token_id": ENDOFTEXT}}, {ENDOFTEXT, IM_END}),
        ({"generation_config.json": {"eos_token_id": [ENDOFTEXT, 7]}}, {ENDOFTEXT, 7, IM_END}),
        ({"generation_config.json": {"eos_token_id": None}, "config.json": {"eos_token_id": 9}}, {IM_END}),
        ({"config.json": {"eos_token_id": 9}}, {9, IM_END}),
        ({"config.json": {"text_config": {"eos_token_id": 9}}}, {9, IM_END}),
    ],
)
def test_end_tokens_are_those_of_the_generation_config_and_of_the_tokenizer(folder, files, ends):
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    assert ChatTokenizer.load(folder).end_token_ids == ends


@pytest.mark.parametrize("text", ['{"eos_token_id": ', "[]"])
def test_a_broken_generation_config_is_an_error(folder, text):
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"generation_config\.json") as caught:
        ChatTokenizer.load(folder)
    assert caught.value.reference == "bad-generation-config"


@pytest.mark.parametrize("others", [[], ["config.json", "tokenizer_config.json", "model.safetensors"]])
def test_a_folder_without_tokenizer_is_an_error(tmp_path, others):
    for name in others:
        (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError) as caught:
        ChatTokenizer.load(tmp_path)
    assert caught.value.reference == "no-tokenizer"
    assert str(tmp_path) in caught.value.message
    assert "tokenizer.json" in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["", "{", "{}", '{"model": {"type": "none of ours"}}'])
def test_a_broken_tokenizer_is_an_error(folder, text):
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        ChatTokenizer.load(folder)
    assert caught.value.reference == "broken-tokenizer"
    assert str(folder) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_sentencepiece_file_alone_says_what_is_missing(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError) as caught:
        ChatTokenizer.load(tmp_path)
    assert caught.value.reference == "broken-tokenizer"
    assert "sentencepiece" in (caught.value.hint or "")


def test_code_in_a_checkpoint_does_not_run_unless_allowed(tmp_path):
    ran = tmp_path / "ran"
    (tmp_path / "tokenization_mine.py").write_text(f"open({str(ran)!r}, 'w')\nclass MyTokenizer: pass\n")
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "MyTokenizer", "auto_map": {"AutoTokenizer": [null, "tokenization_mine.MyTokenizer"]}}'
    )
    with pytest.raises(CheckpointError) as caught:
        ChatTokenizer.load(tmp_path)
    assert caught.value.reference == "remote-code"
    assert "--trust-remote-code" in (caught.value.hint or "")
    assert not ran.exists()


@pytest.mark.parametrize(("think", "seen"), [(None, "<none><none>"), (True, "<True><True>"), (False, "<False><False>")])
def test_think_reaches_the_template_under_both_names(tmp_path, think, seen):
    template = "<{{ enable_thinking | default('none') }}><{{ thinking | default('none') }}>"
    tokenizer = with_template(tmp_path, template)
    assert tokenizer.can_switch_thinking
    assert text_of(tokenizer, tokenizer.encode_chat(QUESTION, think=think)) == seen


def test_a_template_without_thinking_cannot_switch_it(tokenizer_folder):
    tokenizer = ChatTokenizer.load(tokenizer_folder)
    assert tokenizer.has_chat_template
    assert not tokenizer.can_switch_thinking
    assert tokenizer.encode_chat(QUESTION, think=True) == tokenizer.encode_chat(QUESTION)


ANSWERED = [Message("user", "q"), Message("assistant", "<think>\nhm, a\n</think>\n\nyes"), Message("user", "r")]


def test_thoughts_are_taken_out_of_the_history_where_the_template_does_not(tokenizer_folder):
    tokenizer = ChatTokenizer.load(tokenizer_folder)
    text = text_of(tokenizer, tokenizer.encode_chat(ANSWERED))
    assert "<|im_start|>assistant\nyes<|im_end|>" in text


@pytest.mark.parametrize(
    ("role", "text"), [("assistant", "the tag </think> ends a <think>"), ("user", "<think>what</think> is this?")]
)
def test_only_the_thoughts_of_the_model_are_taken_out(tokenizer_folder, role, text):
    tokenizer = ChatTokenizer.load(tokenizer_folder)
    assert text in text_of(tokenizer, tokenizer.encode_chat([Message(role, text)]))


def test_thoughts_are_left_to_a_template_that_knows_them(tmp_path):
    template = CHAT_TEMPLATE.replace("message['content']", "message['content'].split('</think>')[0]")
    tokenizer = with_template(tmp_path, template)
    assert "assistant\n<think>\nhm, a\n<|im_end|>" in text_of(tokenizer, tokenizer.encode_chat(ANSWERED))


def test_a_model_without_template_continues_the_text(tmp_path):
    tokenizer = with_template(tmp_path, None)
    assert not tokenizer.has_chat_template
    messages = [Message("user", "the cat"), Message("assistant", " sat"), Message("user", " on")]
    assert tokenizer.encode_chat(messages) == tokenizer.encode_text("the cat sat on")


REFUSING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + CHAT_TEMPLATE
)


def test_a_template_that_refuses_is_a_usage_error(tmp_path):
    tokenizer = with_template(tmp_path, REFUSING)
    with pytest.raises(UsageError, match="System role not supported") as caught:
        tokenizer.encode_chat(QUESTION)
    assert caught.value.reference == "chat-template"
    assert "--system" in (caught.value.hint or "")
    assert tokenizer.encode_chat(QUESTION[1:])


@pytest.mark.parametrize("template", ["{{ 1 + 'a' }}", "{{ messages[7].content }}", "{{ raise_exception('no') }}"])
def test_a_template_that_fails_is_a_usage_error(tmp_path, template):
    tokenizer = with_template(tmp_path, template)
    with pytest.raises(UsageError) as caught:
        tokenizer.encode_chat(QUESTION[1:])
    assert caught.value.reference == "chat-template"
    assert "/clear" in (caught.value.hint or "")


def test_a_template_with_broken_syntax_is_the_checkpoints_fault(tmp_path):
    tokenizer = with_template(tmp_path, "{% for %}")
    with pytest.raises(CheckpointError) as caught:
        tokenizer.encode_chat(QUESTION)
    assert caught.value.reference == "broken-tokenizer"


@pytest.fixture
def transformers_log(caplog):
    """What transformers would say on stderr; its logger hands nothing up."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_a_long_text_makes_no_noise(folder, transformers_log):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 8}))
    tokenizer = ChatTokenizer.load(folder)
    assert len(tokenizer.encode_chat(QUESTION)) > 8
    assert transformers_log.text == ""


def test_a_long_plain_text_makes_no_noise(folder, transformers_log):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 8}))
    assert len(ChatTokenizer.load(folder).encode_text("the cat " * 20)) > 8
    assert transformers_log.text == ""
