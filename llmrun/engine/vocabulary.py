"""Which tokens a checkpoint's tokenizer has, and whether two have the same: known before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmrun.checkpoint.tokenizer_files import check_tokenizer
from llmrun.errors import CheckpointError, Row, UsageError

SHOWN = 3
"""Of tokens that differ."""


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by their ids; ``special`` are the ids of those that stand for no text, as what ends an answer."""

    tokens: Mapping[int, str]
    special: frozenset[int]

    @classmethod
    def of(cls, ids: Mapping[str, int], special: Iterable[int]) -> Vocabulary:
        """As tokenizers have them: token -> id."""
        return cls({token_id: token for token, token_id in ids.items()}, frozenset(special))


def read_vocabulary(folder: Path, *, trust_remote_code: bool = False) -> Vocabulary:
    """The vocabulary of the tokenizer in ``folder``.

    Raises:
        CheckpointError: ``no-tokenizer``, ``broken-tokenizer``, ``remote-code``.
    """
    check_tokenizer(folder)
    path = folder / "tokenizer.json"
    if not path.is_file():
        from llmrun.engine.tokenizer import ChatTokenizer

        return ChatTokenizer.load(folder, trust_remote_code=trust_remote_code).vocabulary
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library is Rust, and says no more than that
        raise CheckpointError(
            "broken-tokenizer", f"{path} cannot be read: {error}", hint="download its tokenizer files again"
        ) from error
    special = (token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special)
    return Vocabulary.of(tokenizer.get_vocab(with_added_tokens=True), special)


def check_same_tokens(model: str, its: Vocabulary, draft_model: str, theirs: Vocabulary) -> None:
    """Refuse a model that drafts in other tokens. One of the two may have more; special ones may differ.

    Args:
        model: what the model is called that answers; ``its`` vocabulary.
        draft_model: what the one is called that drafts; ``theirs``.

    Raises:
        UsageError: ``draft-tokenizer``, with what differs.
    """
    both = its.tokens.keys() & theirs.tokens.keys()
    other = sorted(id_ for id_ in both - (its.special & theirs.special) if its.tokens[id_] != theirs.tokens[id_])
    if other:
        raise UsageError(
            "draft-tokenizer",
            f"{draft_model} cannot draft for {model}: {len(other):,} of {len(both):,} tokens are others",
            rows=tuple(_rows(model, its, draft_model, theirs, other[:SHOWN])),
            hint="smaller models of the same family have its tokenizer; `--speculate self` and `ngram` need no model",
        )


def _rows(model: str, its: Vocabulary, draft_model: str, theirs: Vocabulary, other: Iterable[int]) -> Iterator[Row]:
    yield Row(model, f"{len(its.tokens):,}", "tokens")
    yield Row(draft_model, f"{len(theirs.tokens):,}", "tokens")
    for token_id in other:
        yield Row(f"token {token_id:,}", repr(its.tokens[token_id]), f"{theirs.tokens[token_id]!r} in {draft_model}")
