from llmrun.checkpoint import Extent, TensorSpec, UnitKind, UnitSpec, layout


def unit(*places: tuple[str, int, int]) -> UnitSpec:
    tensors = tuple(
        TensorSpec(f"t{number}", file, offset, nbytes, "F32", (nbytes // 4,))
        for number, (file, offset, nbytes) in enumerate(places)
    )
    return UnitSpec("layer 0", UnitKind.LAYER, 0, tensors, 0)


def test_neighbours_become_one_extent() -> None:
    got = layout(unit(("a", 5000, 4000), ("a", 9000, 100)))
    assert got.extents == (Extent("a", 4096, 8192, 0),)
    assert [view.buffer_offset for view in got.views] == [904, 4904]
    assert got.nbytes == 8192


def test_a_wide_gap_is_not_read() -> None:
    got = layout(unit(("a", 0, 4096), ("a", 4096 + 65537, 4)))
    assert got.extents == (Extent("a", 0, 4096, 0), Extent("a", 69632, 4096, 4096))
    assert layout(unit(("a", 0, 4096), ("a", 4096 + 65536, 4))).extents == (Extent("a", 0, 73728, 0),)


def test_files_are_read_apart_and_views_keep_the_order_of_the_unit() -> None:
    got = layout(unit(("b", 8, 8), ("a", 16, 8)))
    assert got.extents == (Extent("a", 0, 4096, 0), Extent("b", 0, 4096, 4096))
    assert [(view.name, view.buffer_offset) for view in got.views] == [("t0", 4104), ("t1", 16)]


def test_a_unit_without_tensors_needs_nothing() -> None:
    got = layout(unit())
    assert (got.extents, got.views, got.nbytes) == ((), (), 0)
