import pytest

from llmrun.cli.options import budget_within, parse_size, speculating
from llmrun.errors import UsageError
from llmrun.settings import Budget

DEFAULT = Budget(8 * 2**30, {"gpu:0": 6 * 2**30, "gpu:1": 4 * 2**30})


def test_sizes():
    assert parse_size("--ram", "2.5GiB") == 2560 * 2**20
    assert parse_size("--ram", "8G") == 8 * 2**30
    assert parse_size("--ram", None) is None


@pytest.mark.parametrize("text", ["banana", "", "-1GiB", "8 GiB RAM", "1e9", "nan"])
def test_bad_size_names_option_and_text(text):
    with pytest.raises(UsageError) as caught:
        parse_size("--vram", text)
    assert caught.value.reference == "bad-size"
    assert caught.value.exit_code == 2
    assert f"--vram {text!r}" in caught.value.message
    assert "8GiB" in caught.value.hint


def test_default_budget_where_nothing_is_set():
    assert budget_within(DEFAULT, None, None) == DEFAULT


def test_limits_replace_the_default():
    assert budget_within(DEFAULT, 2**30, 2**29) == Budget(2**30, {"gpu:0": 2**29, "gpu:1": 2**29})


def test_no_vram_leaves_the_gpus_alone():
    assert budget_within(DEFAULT, None, 0) == Budget(8 * 2**30, {})


def test_vram_makes_no_gpu_where_there_is_none():
    assert budget_within(Budget(2**30), None, 2**30) == Budget(2**30)


def test_what_is_none_of_the_words_is_a_model():
    assert [speculating(how, None).model for how in (None, "auto", "off", "self", "ngram")] == [None] * 5
    assert [speculating(how, 7).model for how in ("./self", "org/small", "small.gguf")] == [
        "./self",
        "org/small",
        "small.gguf",
    ]
