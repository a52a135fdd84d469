"""The dashboard, sign for sign, at four widths, in runs that exist only as events."""

import io
import re
from pathlib import Path

import pytest
from golden_files import held
from hypothesis import given
from hypothesis import strategies as st
from made_runs import decode, decode_on_gpu, drafted, facts_of, finished, fold, on_cpu, on_gpu, prefill
from rich.cells import cell_len
from rich.console import Console

from llmrun.metrics import MetricsState
from llmrun.tui.dashboard.lines import Lines
from llmrun.tui.dashboard.screen import dashboard

FOLDER = Path(__file__).parent
WIDTHS = (60, 80, 120, 200)
STYLE = re.compile(r"\x1b\[[\d;]*m")
CASES = {
    "starting": (MetricsState(), facts_of(on_cpu())),
    "prefill": (fold(prefill()), facts_of(on_cpu())),
    "decode": (fold(decode()), facts_of(on_cpu())),
    "prefill_gpu": (fold(prefill()), facts_of(on_gpu(126))),
    "decode_gpu": (fold(decode_on_gpu()), facts_of(on_gpu())),
    "drafted": (fold(drafted()), facts_of(on_cpu())),
    "finished": (fold(finished()), facts_of(on_cpu())),
}


def drawn(name, width, height=60, *, unicode=True):
    """Half a second after the last event."""
    state, known = CASES[name]
    now_s = state.recent[-1].at_s + 0.5 if state.recent else 0.0
    return dashboard(state, known, width, height, now_s, unicode=unicode)


def printed(lines: Lines, colours: str | None = None) -> str:
    console = Console(
        file=io.StringIO(), width=300, color_system=colours, force_terminal=bool(colours), legacy_windows=False
    )
    console.print(lines, end="")
    return console.file.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", CASES)
def test_picture_is_as_it_was(name, width):
    held(printed(drawn(name, width)), FOLDER / f"dashboard_{name}_{width}.txt")


@pytest.mark.parametrize("name", ["prefill", "decode_gpu"])
def test_ascii_where_there_is_no_unicode(name):
    text = printed(drawn(name, 80, unicode=False))
    assert text.isascii()
    held(text, FOLDER / f"dashboard_{name}_80_ascii.txt")


@pytest.mark.parametrize(("width", "height"), [(20, 5), (40, 10), (80, 12)])
def test_small_windows_show_what_matters_most(width, height):
    text = "".join(f"-- {name}\n{printed(drawn(name, width, height))}" for name in CASES)
    held(text, FOLDER / f"dashboard_small_{width}x{height}.txt")


@pytest.mark.parametrize("name", CASES)
def test_colours_change_no_sign(name):
    coloured = printed(drawn(name, 80), "standard")
    assert "\x1b[" in coloured
    assert STYLE.sub("", coloured) == printed(drawn(name, 80))


def test_colours_of_the_tiers():
    coloured = printed(drawn("decode_gpu", 200), "standard")
    assert "\x1b[32mGGGGGGGGGGGGGGGG\x1b[0m\x1b[36mrrrrrrrrrrrrrrrr\x1b[0m\x1b[33mdddddddddddddddd\x1b[0m" in coloured


@given(st.sampled_from(list(CASES)), st.integers(1, 250), st.integers(1, 60), st.booleans())
def test_it_fits_every_window(name, width, height, unicode):
    lines = drawn(name, width, height, unicode=unicode).text.splitlines()
    assert 1 <= len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    assert unicode or "".join(lines).isascii()


def test_taller_windows_show_all_that_shorter_ones_do():
    for height in range(2, 40):
        less, more = (set(drawn("decode_gpu", 80, h).text.splitlines()) for h in (height, height + 1))
        assert less <= more | {""}, height


def test_it_says_which_units_move_and_which_is_computed():
    text = drawn("decode_gpu", 120).text
    assert "computing     layer 20 on gpu:0" in text
    map_row, signs = next(
        pair for pair in zip(text.splitlines(), text.splitlines()[1:], strict=False) if "GGG" in pair[0]
    )
    column = map_row.index("G")
    assert [signs.find(sign) - column for sign in ("▲", "↓")] == [20, 11]
    assert signs.rindex("↓") - column == 21


def test_the_note_stands_in_the_title():
    state, known = CASES["decode"]
    assert dashboard(state, known, 80, 40, 0.0, note="tg128  2 of 5").text.startswith("decode  tg128  2 of 5  numbers")
