import pytest
from made_rows import made_row

from llmrun.bench.sweep import Sweep, parse_sweep, swept_option
from llmrun.errors import UsageError
from llmrun.units import GIB


@pytest.mark.parametrize(
    ("text", "sweep"),
    [
        ("ram=2GiB,4GiB,8GiB", Sweep("ram", ("2GiB", "4GiB", "8GiB"))),
        ("ram= 512MiB , 1.5G", Sweep("ram", ("512MiB", "1.5G"))),
        ("ram=2GiB,2048MiB,1GiB", Sweep("ram", ("2GiB", "1GiB"))),
        ("vram=0,6GB", Sweep("vram", ("0", "6GB"))),
        ("context=4096", Sweep("context", ("4096",))),
        ("context=1024-8192*2,1024", Sweep("context", ("1024", "2048", "4096", "8192"))),
    ],
)
def test_what_can_be_swept(text, sweep):
    assert parse_sweep(text) == sweep


@pytest.mark.parametrize(
    ("text", "reference", "words"),
    [
        ("", "bad-option", "is none of ram=..., vram=..., context=..."),
        ("ram", "bad-option", "is none of"),
        ("threads=1,2", "bad-option", "is none of"),
        ("ram=", "bad-size", "'' is not an amount of memory"),
        ("ram=2GiB,", "bad-size", "'' is not an amount of memory"),
        ("ram=banana", "bad-size", "'banana' is not an amount of memory"),
        ("ram=0", "bad-size", "no process runs in 0 of memory"),
        ("ram=-1", "bad-size", "'-1'"),
        ("context=8GiB", "bad-option", "'8GiB', which is no number of tokens"),
        ("context=0", "bad-option", "a context of no tokens"),
    ],
)
def test_what_cannot(text, reference, words):
    with pytest.raises(UsageError) as caught:
        parse_sweep(text)
    assert caught.value.reference == reference
    assert words in caught.value.message
    assert caught.value.hint


def ram(text, nbytes, **changes):
    return made_row(sweep=text, ram_budget_bytes=nbytes, **changes)


@pytest.mark.parametrize(
    ("rows", "option"),
    [
        ([made_row(sweep="4096"), made_row(sweep="8192")], "context"),
        ([ram("2GiB", 2 * GIB), ram("4GiB", 4 * GIB)], "ram"),
        ([ram("2147483648", 2 * GIB)], "ram"),
        ([ram("2GiB", GIB)], "ram"),
        ([ram("2GiB", 2 * GIB, vram_budget_bytes=GIB), ram("4GiB", 4 * GIB, vram_budget_bytes=GIB)], "ram"),
        ([made_row(sweep="0"), made_row(sweep="6GiB", vram_budget_bytes=12 * GIB)], "vram"),
    ],
)
def test_what_was_swept_is_seen_in_the_rows(rows, option):
    assert swept_option([made_row(), *rows]) == option
