from pathlib import Path

import pytest
from made_rows import made_row

from llmrun.bench import plot
from llmrun.bench.plot import check_plot, draw, write_plot
from llmrun.errors import DeviceError, UsageError
from llmrun.units import GIB


def swept(case=None, rates=(1.0, 2.0, 4.0), **changes):
    """Memory from the most to the least."""
    return [
        made_row([rate * 0.9, rate * 1.1], sweep=f"{n}GiB", ram_budget_bytes=n * GIB, **(case or {}), **changes)
        for n, rate in zip((8, 4, 2), reversed(rates), strict=True)
    ]


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PNG", b"\x89PNG")])
def test_a_picture_is_written(tmp_path, suffix, magic):
    path = tmp_path / f"sweep{suffix}"
    check_plot(path)
    assert not path.exists()
    write_plot([made_row(), *swept(model_type="$x_{ 模型\n")], path)
    assert path.read_bytes().startswith(magic)
    check_plot(path)  # over an earlier picture


def test_one_line_a_case_with_error_bars_ceiling_and_prediction():
    prompt = {"n_prompt": 512, "n_gen": 0, "ceiling_ts": None}
    axes = draw([*swept(ceiling_ts=9.0), *swept(prompt)]).axes[0]
    assert [bars.get_label() for bars in axes.containers] == ["tg128, warm", "pp512, warm"]
    line, _, spans = axes.containers[0].lines
    assert list(line.get_xdata()) == [2, 4, 8]
    assert list(line.get_ydata()) == pytest.approx([1, 2, 4])
    low, high = spans[0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((1 - 0.1 * 2**0.5, 1 + 0.1 * 2**0.5))
    dashed = [list(each.get_ydata()) for each in axes.lines if each.get_linestyle() == "--" and len(each.get_xdata())]
    assert dashed == [[9.0, 9.0, 9.0]]
    predicted = [each for each in axes.lines if each.get_linestyle() == "-." and len(each.get_xdata())]
    assert len(predicted) == 2
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {
        *("tg128, warm", "pp512, warm", "ceiling", "predicted")
    }


def test_axes_are_labelled_with_what_was_swept():
    axes = draw(swept()).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("memory of the process (GiB)", "tokens a second")
    vram = [made_row(sweep=f"{n}GiB", vram_budget_bytes=n * GIB) for n in (2, 4)]
    assert draw(vram).axes[0].get_xlabel() == "memory on each GPU (GiB)"
    context = draw([made_row(sweep="8192"), made_row(sweep="4096")]).axes[0]
    assert context.get_xlabel() == "context (tokens)"
    assert list(context.containers[0].lines[0].get_xdata()) == [4096, 8192]


def test_rates_far_apart_are_drawn_on_a_logarithmic_scale():
    assert draw(swept()).axes[0].get_yscale() == "linear"
    assert draw([*swept(), *swept({"n_gen": 1}, (100.0, 200.0, 400.0))]).axes[0].get_yscale() == "log"


def test_nothing_swept_nothing_written(tmp_path):
    write_plot([made_row()], tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["sweep", "sweep.pdf", "png"])
def test_another_kind_of_file_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="no picture") as caught:
        check_plot(tmp_path / name)
    assert caught.value.reference == "bad-option"


def test_a_folder_that_is_not_there_or_stands_in_the_way(tmp_path):
    (tmp_path / "b.png").mkdir()
    for path in (tmp_path / "no" / "a.png", tmp_path / "b.png"):
        with pytest.raises(DeviceError) as caught:
            check_plot(path)
        assert caught.value.reference == "write-failed"
        assert str(tmp_path) in caught.value.message


def test_a_folder_that_goes_away_meanwhile(tmp_path):
    with pytest.raises(DeviceError, match="No such file") as caught:
        write_plot(swept(), tmp_path / "gone" / "a.svg")
    assert caught.value.reference == "write-failed"


def test_without_matplotlib_the_hint_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        check_plot(Path("a.svg"))
    assert caught.value.reference == "missing-extra"
    assert caught.value.hint == "`pip install 'llmrun[plot]'`"
