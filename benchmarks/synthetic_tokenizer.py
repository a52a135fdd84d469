"""Byte-level BPE tokenizers of any size, for measuring what a vocabulary costs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice, product
from pathlib import Path

LETTERS = "etaoinsr"


def write_tokenizer(folder: Path, entries: int, merges_per_entry: int = 1) -> Path:
    """Write a tokenizer of so many entries to ``folder`` and return it.

    After the 256 bytes come all words of eight letters, the short ones first: at 128k entries most have six letters, as
    those of real vocabularies. Each can be cut in two entries at every place, so there may be several merges for one:
    real vocabularies have one (GPT-2, Qwen) or two (Llama 3, Gemma).
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = list(islice(_words(), entries - len(alphabet)))
    vocabulary = {token: index for index, token in enumerate([*alphabet, *words])}
    merges = [(word[:at], word[at:]) for word in words for at in range(1, len(word))[:merges_per_entry]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=alphabet[0]).save_pretrained(folder)
    return folder


def _words() -> Iterator[str]:
    for length in count(2):
        yield from map("".join, product(LETTERS, repeat=length))
