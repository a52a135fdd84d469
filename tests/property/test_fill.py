"""What holds for ``greedy`` and ``even`` as they fill memory, whatever the model and the budget."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from planning import equal_layers, model_of, rams, unlike_layers, vrams, works

from llmrun.checkpoint.spec import UnitKind
from llmrun.planner.memory import account
from llmrun.planner.plan import CPU, DISK
from llmrun.planner.searches.fill import fill, last, spread
from llmrun.settings import Budget
from llmrun.units import GIB

chooses = st.sampled_from([last, spread])
# a GPU that is used at all has room for its context and one ring
roomy_vrams = st.dictionaries(st.sampled_from(["gpu:0", "gpu:1"]), st.just(0) | st.integers(7 * GIB // 2, 5 * GIB))
many = settings(deadline=None)


def filled_or_none(spec, work, budget, choose):
    placements = fill(spec, work, budget, choose)
    return placements if all(memory.fits for memory in account(spec, work, budget, placements)) else None


def read_bytes_per_token(spec, placements):
    """Bytes from disk for every token; of the embedding it is only rows."""
    homes = [(spec.unit(placement.unit), placement.home) for placement in placements]
    return sum(unit.nbytes for unit, home in homes if home == DISK and unit.kind is not UnitKind.EMBEDDING)


@many
@given(model_of(unlike_layers), works, rams, vrams, chooses)
def test_every_unit_is_placed_where_it_may_be(spec, work, ram_bytes, vram_bytes, choose):
    placements = fill(spec, work, Budget(ram_bytes, vram_bytes), choose)
    assert [placement.unit for placement in placements] == [unit.name for unit in spec.units]
    for placement in placements:
        assert placement.home in (DISK, CPU, placement.device)
        assert placement.device == CPU or vram_bytes[placement.device] > 0
    assert placements[1].resident  # rest


@many
@given(model_of(unlike_layers), works, rams, rams)
def test_with_more_ram_greedy_reads_no_more(spec, work, one, other):
    assert_more_ram_reads_no_more(spec, work, one, other, {}, last)


@many
@given(model_of(equal_layers), works, rams, rams, roomy_vrams, chooses)
def test_with_more_ram_equal_layers_are_read_no_more(spec, work, one, other, vram_bytes, choose):
    assert_more_ram_reads_no_more(spec, work, one, other, vram_bytes, choose)


def assert_more_ram_reads_no_more(spec, work, one, other, vram_bytes, choose):
    less, more = (
        filled_or_none(spec, work, Budget(ram_bytes, vram_bytes), choose) for ram_bytes in sorted((one, other))
    )
    if less:
        assert more
        assert read_bytes_per_token(spec, more) <= read_bytes_per_token(spec, less)


@many
@given(model_of(equal_layers), works, rams)
def test_greedy_and_even_keep_as_much(spec, work, ram_bytes):
    found = [filled_or_none(spec, work, Budget(ram_bytes), choose) for choose in (last, spread)]
    assert len({placements and read_bytes_per_token(spec, placements) for placements in found}) == 1


@many
@given(model_of(unlike_layers), works, rams)
def test_even_streams_at_even_distances(spec, work, ram_bytes):
    homes = [p.home for p in fill(spec, work, Budget(ram_bytes), spread) if p.unit.startswith("layer")]
    streamed = [index for index, home in enumerate(homes) if home == DISK]
    if streamed:
        # round the circle, since the readers go on with the first layer of the next token
        gaps = [after - before for before, after in pairwise([*streamed, streamed[0] + len(homes)])]
        assert max(gaps) - min(gaps) <= 1


@many
@given(model_of(unlike_layers), works, rams)
def test_greedy_streams_the_last_layers(spec, work, ram_bytes):
    homes = [p.home for p in fill(spec, work, Budget(ram_bytes), last) if p.unit.startswith("layer")]
    assert homes == sorted(homes)  # "cpu" before "disk"
