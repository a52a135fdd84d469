import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llmrun.checkpoint import ALIGNMENT, TensorSpec, UnitKind, UnitSpec, layout
from llmrun.checkpoint.stretches import MAX_GAP_BYTES

FILE_NBYTES = 400_000
FILES = {name: random.Random(name).randbytes(FILE_NBYTES) for name in ("a", "b")}


@st.composite
def units(draw: st.DrawFn) -> UnitSpec:
    tensors = []
    for file in FILES:
        cuts = sorted(draw(st.lists(st.integers(0, FILE_NBYTES), max_size=12)))
        for begin, end in list(pairwise(cuts))[:: draw(st.sampled_from([1, 2]))]:
            tensors.append(TensorSpec(f"{file}{begin}-{len(tensors)}", file, begin, end - begin, "U8", (end - begin,)))
    return UnitSpec("layer 0", UnitKind.LAYER, 0, tuple(draw(st.permutations(tensors))), 0)


@given(units())
def test_views_agree_with_a_plain_read_of_the_file(unit: UnitSpec) -> None:
    got = layout(unit)
    buffer = bytearray(got.nbytes)
    for extent in got.extents:
        data = FILES[extent.file][extent.file_offset : extent.file_offset + extent.nbytes]  # short at the end
        buffer[extent.buffer_offset : extent.buffer_offset + len(data)] = data
    assert len(buffer) == got.nbytes
    for tensor, view in zip(unit.tensors, got.views, strict=True):
        assert (view.name, view.nbytes, view.shape) == (tensor.name, tensor.nbytes, tensor.shape)
        expected = FILES[tensor.file][tensor.offset : tensor.offset + tensor.nbytes]
        assert buffer[view.buffer_offset : view.buffer_offset + view.nbytes] == expected


@given(units())
def test_extents_are_aligned_fill_the_buffer_and_waste_little(unit: UnitSpec) -> None:
    got = layout(unit)
    position = 0
    for extent in got.extents:
        assert extent.buffer_offset == position
        position += extent.nbytes
        assert extent.nbytes > 0
        assert all(number % ALIGNMENT == 0 for number in (extent.file_offset, extent.nbytes, extent.buffer_offset))
        assert extent.file_offset + extent.nbytes < FILE_NBYTES + ALIGNMENT
    assert got.nbytes == position
    gaps = max(0, len(unit.tensors) - 1) * MAX_GAP_BYTES
    assert got.nbytes <= unit.nbytes + gaps + 2 * ALIGNMENT * max(1, len(unit.tensors))
