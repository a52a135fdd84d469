"""Tokens from conversations and text from tokens: the checkpoint's own tokenizer and chat template, by transformers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import AutoTokenizer

from llmrun.checkpoint.tokenizer_files import check_tokenizer
from llmrun.engine.generation_config import end_token_ids, load_generation_config
from llmrun.engine.session import Message
from llmrun.engine.text_stream import TextStream
from llmrun.engine.vocabulary import Vocabulary
from llmrun.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)


class ChatTokenizer:
    """A checkpoint's tokenizer with its chat template and its end tokens.

    Args:
        tokenizer: a tokenizer of transformers.
        end_token_ids: the tokens that end an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_token_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self.end_token_ids = end_token_ids
        self._template = _template_text(tokenizer)

    @classmethod
    def load(cls, folder: Path, *, trust_remote_code: bool = False) -> ChatTokenizer:
        """The tokenizer of the checkpoint in ``folder``; nothing is downloaded.

        Raises:
            CheckpointError: ``no-tokenizer``, ``broken-tokenizer``, ``remote-code`` (it comes with its own Python
                code and ``trust_remote_code`` is off), ``bad-generation-config``.
        """
        check_tokenizer(folder)
        tokenizer = _load_tokenizer(folder, trust_remote_code)
        ends = end_token_ids(load_generation_config(folder))
        if tokenizer.eos_token_id is not None:
            ends |= {tokenizer.eos_token_id}
        return cls(tokenizer, ends)

    @property
    def vocabulary(self) -> Vocabulary:
        """Its tokens."""
        added = self._tokenizer.added_tokens_decoder.items()
        return Vocabulary.of(self._tokenizer.get_vocab(), (token_id for token_id, token in added if token.special))

    @property
    def has_chat_template(self) -> bool:
        """Whether the model was made for conversations; without one it continues the text it is given."""
        return self._template is not None

    @property
    def can_switch_thinking(self) -> bool:
        """Whether the chat template asks if the model shall think."""
        return bool(re.search(r"\b(enable_)?thinking\b", self._template or ""))

    def encode_chat(
        self, messages: Sequence[Message], *, think: bool | None = None, generation_prompt: bool = True
    ) -> list[int]:
        """The tokens of a conversation, up to where the model is to answer.

        Without a chat template: the contents one after the other, with the tokens that the tokenizer puts at the
        beginning of a text.

        Args:
            messages: the conversation.
            think: given to the template as ``enable_thinking`` and ``thinking``, the two names that are in use;
                ``None`` leaves it to the template.
            generation_prompt: whether the tokens that begin an answer are added.

        Raises:
            UsageError: ``chat-template``, the template refuses this conversation (a system message, say).
            CheckpointError: ``broken-tokenizer``, the template is not valid Jinja.
        """
        if self._template is None:
            return self.encode_text("".join(message.content for message in messages))
        options = {} if think is None else {"enable_thinking": think, "thinking": think}
        try:
            ids = self._tokenizer.apply_chat_template(
                [{"role": message.role, "content": self._content(message)} for message in messages],
                add_generation_prompt=generation_prompt,
                return_dict=False,
                tokenizer_kwargs={"verbose": False},
                **options,
            )
        except TemplateSyntaxError as error:
            raise CheckpointError("broken-tokenizer", f"The chat template is not valid: {error}") from error
        except (TemplateError, TypeError, ValueError) as error:
            raise _refused_by_template(messages, error) from error
        return list(ids)

    def encode_text(self, text: str) -> list[int]:
        """The tokens of a text, with those that the tokenizer puts at its beginning."""
        return list(self._tokenizer(text, verbose=False).input_ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, special tokens left out."""
        text = self._tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def stream(self, stop: Sequence[str] = ()) -> TextStream:
        """A stream that makes text of tokens as they come, up to a stop string."""
        return TextStream(self.decode, stop)

    def _content(self, message: Message) -> str:
        """Past thoughts are left out of the history, as the models were trained; most templates do it themselves."""
        if message.role != "assistant" or "</think>" in (self._template or ""):
            return message.content
        return _THOUGHT.sub("", message.content)


def _load_tokenizer(folder: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=trust_remote_code)
    # A damaged tokenizer fails in as many ways as there are libraries beneath, some of which raise a bare Exception.
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise CheckpointError(
                "remote-code",
                f"The tokenizer in {folder} needs Python code that comes with the checkpoint",
                hint="read that code, then give `--trust-remote-code`",
            ) from error
        raise CheckpointError(
            "broken-tokenizer",
            f"The tokenizer in {folder} cannot be loaded: {_last_line(error)}",
            hint=_broken_hint(folder),
        ) from error


def _broken_hint(folder: Path) -> str:
    if not (folder / "tokenizer.json").exists() and next(folder.glob("*.model"), None):
        return "it has no tokenizer.json; `pip install sentencepiece` lets transformers read its .model file"
    return "download its tokenizer files again"


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _template_text(tokenizer: PreTrainedTokenizerBase) -> str | None:
    if not tokenizer.chat_template:
        return None
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:  # several templates and none called "default"
        raise CheckpointError("broken-tokenizer", f"The chat template is not usable: {error}") from error


def _refused_by_template(messages: Sequence[Message], error: Exception) -> UsageError:
    has_system = any(message.role == "system" for message in messages)
    hint = "leave out the system message (`--system`)" if has_system else "`/clear` begins a new conversation"
    return UsageError("chat-template", f"The model's chat template refuses this conversation: {error}", hint=hint)
