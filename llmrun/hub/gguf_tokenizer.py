"""The tokenizer that a GGUF file describes, saved as transformers saves one: vocabulary, special tokens, template."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from llmrun.errors import CheckpointError


def save_tokenizer(source: Path, folder: Path) -> None:
    """Write ``tokenizer.json``, ``tokenizer_config.json`` and the chat template into ``folder``.

    Raises:
        CheckpointError: ``gguf-tokenizer``: the file has none, or one that transformers cannot rebuild.
        OSError: writing failed.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf import convert_gguf_tokenizer, get_gguf_tokenizer

    try:
        architecture, vocabulary, settings = get_gguf_tokenizer(str(source))
        backend, extra = convert_gguf_tokenizer(architecture, vocabulary)
        _split_digits(backend, vocabulary.get("pre_tokenizer_type"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **settings, **extra)
    except OSError:
        raise
    except Exception as error:  # a broken vocabulary can make transformers or tokenizers raise anything
        raise CheckpointError(
            "gguf-tokenizer", f"{source} has no tokenizer that transformers can rebuild: {error!r}"
        ) from error
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # the tokenizers library is Rust, which gives the system's error as text only
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(folder)) from error
        raise


def _split_digits(backend: Any, pre_tokenizer: str | None) -> None:  # noqa: ANN401 - a tokenizers.Tokenizer
    """SmolLM takes every digit by itself, which transformers' reader of GGUF files does not know (5.23)."""
    from tokenizers import pre_tokenizers

    if pre_tokenizer == "smollm":
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
