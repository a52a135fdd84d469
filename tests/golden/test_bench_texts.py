"""What a benchmark prints in a terminal, word for word. To renew after a change: LLMRUN_WRITE_GOLDEN=1."""

import io
import os
import pty
import termios
from pathlib import Path

import pytest
from golden_files import held
from made_rows import made_row, text_of, write_rows

from llmrun.tui.bars import has_blocks, sweep_text
from llmrun.units import GIB

FOLDER = Path(__file__).parent
LARGE = {
    "model_type": "llama 70B BF16",
    "model_size": 141_107_412_992,
    "model_n_params": 70_553_706_496,
    "ram_budget_bytes": 12 * GIB,
    "cache_state": "cold",
}
ROWS = [
    made_row([1311.2, 1320.9], n_prompt=512, n_gen=0, ceiling_ts=None, predicted_ts=1402.1, ttft_ms=390.0),
    made_row(),
    made_row([4.031], n_prompt=512, ttft_ms=31_200.0),
    made_row([0.0312, 0.0319], n_depth=16384, ceiling_ts=0.0391, predicted_ts=None, ttft_ms=None, **LARGE),
    made_row([0.4], n_gen=64, sweep="8GiB", model_type="a name|that is\nlonger than its column", ttft_ms=250_000.0),
]


def swept():
    cases = (
        ({}, ((2, 0.84), (4, 1.9), (8, 64.0))),
        ({"n_prompt": 512, "n_gen": 0, "cache_state": "cold"}, ((2, 120.0), (4, 310.0), (16, 1311.0))),
    )
    return [made_row()] + [
        made_row([rate * 0.99, rate * 1.01], sweep=f"{n}GiB", **case) for case, points in cases for n, rate in points
    ]


def test_the_table():
    held(text_of("md", ROWS), FOLDER / "bench_table.txt")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_in_a_terminal(width):
    """What is longer than its column makes its own line longer, and no other."""
    text = on_a_terminal(ROWS, width)
    assert sorted(map(len, text.splitlines()))[-2] <= width
    held(text, FOLDER / f"bench_table_{width}.txt")


def test_a_wide_terminal_has_the_table_of_a_pipe():
    assert on_a_terminal(ROWS, 200) == text_of("md", ROWS)


def on_a_terminal(rows, width):
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, width))
    stream = io.StringIO()
    stream.fileno = lambda: slave
    write_rows("md", rows, stream)
    os.close(slave)
    os.close(master)
    return stream.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("blocks", [True, False])
def test_the_bars(width, blocks):
    text = sweep_text(swept(), width, blocks)
    assert max(map(len, text.splitlines())) == width
    assert blocks or text.isascii()
    held(text + "\n", FOLDER / f"bench_bars_{width}{'' if blocks else '_ascii'}.txt")


def test_bars_are_as_long_as_the_rates():
    """No bar is empty, however slow: the highest rate fills the width, half of it fills half."""
    rows = [made_row([rate], sweep=f"{n}GiB") for n, rate in enumerate((1.0, 500.0, 1000.0), start=2)]
    lengths = [line.count("#") for line in sweep_text(rows, 63, blocks=False).splitlines()[1:]]
    assert lengths == [1, 20, 40]


@pytest.mark.parametrize("width", [1, 20, 30])
def test_a_narrow_terminal(width):
    assert max(map(len, sweep_text(swept(), width).splitlines())) <= width


def test_without_a_sweep_there_are_no_bars():
    assert sweep_text([made_row()], 80) == ""


@pytest.mark.parametrize(("encoding", "has"), [("utf-8", True), ("ascii", False), ("latin-1", False), ("cp437", False)])
def test_which_streams_have_blocks(encoding, has):
    assert has_blocks(io.TextIOWrapper(io.BytesIO(), encoding=encoding)) is has
