"""However little the process that measures told before its end, a host that can be planned for is made of it."""

from dataclasses import replace

from hosts import FIGURES, HOST, SPEEDS
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrun.hardware.asking import Found
from llmrun.hardware.checks import faults
from llmrun.hardware.measure import assemble

BROKEN = {"gpu:0.failed": "CUDA error", "cpu.failed": "no memory"}


@given(st.sets(st.sampled_from(sorted({**FIGURES, **BROKEN}))))
@settings(max_examples=200, deadline=None)
def test_any_part_of_the_figures_makes_valid_speeds_that_use_them(paths):
    told = {path: figure for path, figure in {**FIGURES, **BROKEN}.items() if path in paths}
    speeds = assemble(HOST, SPEEDS.disk, Found(dict(told)), ())
    assert list(faults(replace(HOST, speeds=speeds))) == []
    assert speeds.notes or set(told) == set(FIGURES)
    if "cpu.weights.BF16.1" in told:
        curve = speeds.device("cpu").weights[0]
        points = {int(path.rsplit(".", 1)[1]): figure for path, figure in told.items() if "cpu.weights.BF16." in path}
        assert dict(zip(curve.tokens, curve.bytes_per_s, strict=True)) == points


@given(st.integers(0, len(FIGURES)))
@settings(max_examples=50, deadline=None)
def test_what_is_told_later_changes_no_figure_told_before(count):
    """Told in order: with each figure more, those that were measured stay."""
    before = assemble(HOST, SPEEDS.disk, Found(dict(list(FIGURES.items())[:count])), ())
    whole = assemble(HOST, SPEEDS.disk, Found(dict(FIGURES)), ())
    for name in ("kv_bytes_per_s", "layer_s", "element_s"):
        if f"cpu.{name}" in list(FIGURES)[:count]:
            assert getattr(before.device("cpu"), name) == getattr(whole.device("cpu"), name)
