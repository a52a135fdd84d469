"""Whether two models have the same tokens: ids that both have, whatever ends an answer."""

import json
import shutil
from pathlib import Path

import pytest

from llmrun.engine.vocabulary import Vocabulary, check_same_tokens, read_vocabulary
from llmrun.errors import CheckpointError, UsageError

TOKENS = {"<end>": 0, "a": 1, "b": 2, "ab": 3}


def check(its: dict[str, int], theirs: dict[str, int], special: tuple[int, ...] = (0,)) -> None:
    check_same_tokens("large", Vocabulary.of(its, special), "small", Vocabulary.of(theirs, special))


@pytest.mark.parametrize(
    "theirs", [TOKENS, TOKENS | {"more": 4, "still more": 9}, {"a": 1, "b": 2}, TOKENS | {"<eos>": 0}]
)
def test_the_same_tokens_as_far_as_both_have_them(theirs):
    check(TOKENS, theirs)
    check(theirs, TOKENS)


def test_what_differs_is_told():
    with pytest.raises(UsageError) as refusal:
        check(TOKENS, {"<end>": 0, "b": 1, "a": 2, "ab": 3, "c": 4})
    error = refusal.value
    assert (error.reference, error.exit_code) == ("draft-tokenizer", 2)
    assert error.message == "small cannot draft for large: 2 of 4 tokens are others"
    assert [(row.label, row.amount, row.detail) for row in error.rows] == [
        ("large", "4", "tokens"),
        ("small", "5", "tokens"),
        ("token 1", "'a'", "'b' in small"),
        ("token 2", "'b'", "'a' in small"),
    ]


def test_a_special_token_of_one_of_them_alone_is_a_difference():
    with pytest.raises(UsageError):
        check_same_tokens("large", Vocabulary.of(TOKENS, [0]), "small", Vocabulary.of(TOKENS | {"x": 0}, []))


def test_a_folder_says_which_it_has(tokenizer_folder: Path):
    found = read_vocabulary(tokenizer_folder)
    ids = json.loads((tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert {token_id: token for token, token_id in ids.items()} == found.tokens
    assert {found.tokens[token_id] for token_id in found.special} == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}


def test_it_is_the_same_by_transformers(tokenizer_folder: Path):
    """Which reads the tokenizers that have no tokenizer.json."""
    from llmrun.engine.tokenizer import ChatTokenizer

    assert ChatTokenizer.load(tokenizer_folder).vocabulary == read_vocabulary(tokenizer_folder)


def test_a_tokenizer_without_tokenizer_json(tokenizer_folder: Path, tmp_path: Path):
    model = json.loads((tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(pair) for pair in model["merges"]))
    assert read_vocabulary(tmp_path).tokens.items() >= {(3, "!"), (4, '"')}


@pytest.mark.parametrize(
    ("text", "reference"), [("no JSON", "broken-tokenizer"), ("{}", "broken-tokenizer"), (None, "no-tokenizer")]
)
def test_a_broken_one_is_refused(tokenizer_folder: Path, tmp_path: Path, text: str | None, reference: str):
    folder = shutil.copytree(tokenizer_folder, tmp_path / "broken")
    path = folder / "tokenizer.json"
    path.write_text(text) if text is not None else path.unlink()
    with pytest.raises(CheckpointError) as refusal:
        read_vocabulary(folder)
    assert refusal.value.reference == reference
