import pytest

from llmrun.bench.case import Case
from llmrun.bench.counts import MOST_VALUES, cases, parse_counts, parse_pairs
from llmrun.errors import UsageError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("512", (512,)),
        ("0", (0,)),
        ("128,256", (128, 256)),
        ("128, 256", (128, 256)),
        ("256,128,256", (256, 128, 256)),
        ("3-6", (3, 4, 5, 6)),
        ("128-512+128", (128, 256, 384, 512)),
        ("10-20+3", (10, 13, 16, 19)),
        ("64-512*2", (64, 128, 256, 512)),
        ("64-500*2", (64, 128, 256)),
        ("7-7*9", (7,)),
        ("1,4-16*4,20-21", (1, 4, 16, 20, 21)),
    ],
)
def test_numbers_lists_and_ranges(text, values):
    assert parse_counts("-p", text) == values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lacks a number"),
        ("128,", "lacks a number"),
        ("many", "'many', which is no number of tokens"),
        ("-5", "'-5'"),
        ("1.5", "'1.5'"),
        ("1-", "'1-'"),
        ("1-9-2", "'1-9-2'"),
        ("1-9+", r"'1-9+'"),
        ("٣", "no number"),
        ("1000000000", "no number"),
        ("9-1", "ends before it begins: 9-1"),
        ("1-9+0", "never ends"),
        ("1-9*1", "never ends"),
        ("0-9*2", "never ends"),
        ("0-999999999", f"more than {MOST_VALUES:,} values"),
    ],
)
def test_what_is_no_number_of_tokens_is_told_with_an_example(text, words):
    with pytest.raises(UsageError) as caught:
        parse_counts("-p", text)
    assert caught.value.reference == "bad-option"
    assert caught.value.message.startswith(f"-p {text!r} ")
    assert words in caught.value.message
    assert "`-p 512`" in caught.value.hint


def test_as_many_values_as_are_allowed():
    assert len(parse_counts("-p", f"1-{MOST_VALUES}")) == MOST_VALUES


def test_pairs():
    assert parse_pairs("-pg", ["512,128", " 1, 2 "]) == ((512, 128), (1, 2))
    assert parse_pairs("-pg", []) == ()


@pytest.mark.parametrize("text", ["512", "512,128,1", "a,b", "", "1-2,3", "-1,2"])
def test_what_is_no_pair(text):
    with pytest.raises(UsageError, match="is not a pair of numbers") as caught:
        parse_pairs("-pg", ["512,128", text])
    assert caught.value.reference == "bad-option"
    assert "`-pg 512,128`" in caught.value.hint


def test_cases_come_in_the_order_of_llama_bench():
    names = [case.name for case in cases((512, 64), (128,), ((512, 128),), (0, 4096))]
    assert names == [
        *("pp512", "pp64", "tg128", "pp512+tg128"),
        *("pp512 @ d4096", "pp64 @ d4096", "tg128 @ d4096", "pp512+tg128 @ d4096"),
    ]


def test_zeros_are_left_out_and_each_case_comes_once():
    found = cases((0, 512, 512), (0,), ((0, 0), (512, 0), (0, 8)), (0, 0))
    assert found == (Case(512, 0), Case(0, 8))


def test_nothing_to_measure():
    with pytest.raises(UsageError, match="nothing to measure"):
        cases((0,), (0,), ((0, 0),), (0, 512))
