"""``fill``: literal placements on a model of six layers of 100 MiB; and the account of memory line by line.

A placement is written as one letter a unit (`tiny_spec.LETTERS`): embedding, rest, the layers, head.
"""

from dataclasses import replace

import pytest
from tiny_spec import letters, model

from llmrun.planner.memory import (
    CUDA_CONTEXT_BYTES,
    LOADED_TOKENIZER_BYTES_PER_ENTRY,
    PROCESS_BYTES,
    account,
    kv_bytes,
    kv_capacity_tokens,
    process_bytes,
    rings,
    workspace_bytes,
)
from llmrun.planner.plan import DEFAULT_SLOTS, Placement, RingSpec, Slots
from llmrun.planner.searches.fill import fill, last, spread
from llmrun.settings import Budget, Workload
from llmrun.units import GIB, MIB

SPEC = model([100 * MIB] * 6, 40 * MIB)
WORK = Workload(context_tokens=1024)
KV_BYTES = 6 * 1024 * 1024
REST_BYTES = 4096
RAM_BESIDE = process_bytes(SPEC, WORK) + workspace_bytes(SPEC, WORK) + REST_BYTES  # what no placement can send away
VRAM_BESIDE = CUDA_CONTEXT_BYTES + workspace_bytes(SPEC, WORK) + REST_BYTES
GREEDY, EVEN = last, spread


def placed(ram_bytes, vram_bytes=None, choose=EVEN, spec=SPEC, slots=DEFAULT_SLOTS):
    return letters(fill(spec, WORK, Budget(ram_bytes, vram_bytes or {}), choose, slots))


def lines(memory):
    return {line.label: line.nbytes for line in memory.lines}


@pytest.mark.parametrize(
    ("weights_mib", "greedy", "even"),
    [
        (680, "RRRRRRRRR", "RRRRRRRRR"),  # 40 + 6 x 100 + 40
        (679, "dRRRRRRRR", "dRRRRRRRR"),  # only rows of the embedding are read
        (640, "dRRRRRRRR", "dRRRRRRRR"),
        (639, "dRRRRRddd", "dRRdRRdRd"),  # a ring of 2 x 100; with the head streamed a layer more stays
        (580, "RRRRRdddR", "RRRdRdRdR"),  # three layers, ring, head, and room for the embedding
        (540, "dRRRRdddR", "dRRdRdRdR"),
        (440, "dRRRddddR", "dRdRddRdR"),
        (240, "dRddddddR", "dRddddddR"),
        (239, "dRddddddd", "dRddddddd"),
        (200, "dRddddddd", "dRddddddd"),
    ],
)
def test_ram_is_filled_with_what_saves_most_reading(weights_mib, greedy, even):
    ram_bytes = RAM_BESIDE + KV_BYTES + weights_mib * MIB
    assert placed(ram_bytes, choose=GREEDY) == greedy
    assert placed(ram_bytes, choose=EVEN) == even


@pytest.mark.parametrize(
    ("weights_mib", "placement"),
    [(640, "RRRRRRRRR"), (639, "dRRdRRdRd"), (540, "RRRdRdRdR"), (539, "dRRdRdRdd"), (200, "dRddddddd")],
)
def test_a_tied_embedding_is_where_the_head_is(weights_mib, placement):
    spec = model([100 * MIB] * 6, 40 * MIB, tied=True)
    assert placed(RAM_BESIDE + KV_BYTES + weights_mib * MIB, spec=spec) == placement


@pytest.mark.parametrize(
    ("vram_mib", "ram_mib", "greedy", "even"),
    [
        (640, 240, "R00000000", "R00000000"),  # the GPU holds all, RAM the ring through which it comes, and embedding
        (640, 239, "d00000000", "d00000000"),
        (540, 540, "R0000aaa0", "R00a0a0a0"),  # three layers stay in RAM and pass a ring on the GPU
        (540, 300, "d0000axx0", "d00x0a0x0"),  # RAM has room for its ring and one of them
        (540, 200, "d0000xxx0", "d00x0x0x0"),
        (240, 200, "d0xxxxxx0", "d0xxxxxx0"),
    ],
)
def test_gpu_first_then_ram_then_disk(vram_mib, ram_mib, greedy, even):
    ram_bytes = RAM_BESIDE - REST_BYTES + ram_mib * MIB
    vram_bytes = {"gpu:0": VRAM_BESIDE + KV_BYTES + vram_mib * MIB}
    assert placed(ram_bytes, vram_bytes, GREEDY) == greedy
    assert placed(ram_bytes, vram_bytes, EVEN) == even


def test_two_gpus_share_the_layers_by_their_memory():
    assert placed(2 * GIB, {"gpu:0": 2 * GIB, "gpu:1": 2 * GIB}) == "R10001111"
    assert placed(2 * GIB, {"gpu:0": 4 * GIB, "gpu:1": 2 * GIB}) == "R10000111"
    assert placed(2 * GIB, {"gpu:0": 2 * GIB, "gpu:1": 4 * GIB}) == "R10011111"


def test_each_of_two_gpus_streams_what_it_cannot_hold():
    small = VRAM_BESIDE + KV_BYTES // 2 + 240 * MIB
    assert placed(2 * GIB, {"gpu:0": small, "gpu:1": small}) == "R1aaabbb1"
    assert placed(2 * GIB, {"gpu:0": small + 60 * MIB, "gpu:1": small}, GREEDY) == "R1000bbb1"


def test_a_gpu_of_which_nothing_may_be_used_is_left_alone():
    assert placed(2 * GIB, {"gpu:0": 0}) == "RRRRRRRRR"
    assert placed(2 * GIB, {"gpu:0": 0, "gpu:1": 2 * GIB}) == "R11111111"


def test_a_gpu_too_small_to_help_is_left_alone():
    assert placed(2 * GIB, {"gpu:0": 100 * MIB}) == "RRRRRRRRR"
    assert placed(2 * GIB, {"gpu:0": 100 * MIB, "gpu:1": 2 * GIB}) == "R11111111"


def test_smaller_rings_leave_room_for_layers():
    ram_bytes = RAM_BESIDE + KV_BYTES + 440 * MIB
    assert placed(ram_bytes, choose=GREEDY) == "dRRRddddR"
    assert placed(ram_bytes, choose=GREEDY, slots=Slots(1, 1)) == "dRRRRdddR"
    assert placed(ram_bytes, choose=GREEDY, slots=Slots(4, 1)) == "dRddddddR"


@pytest.mark.parametrize(("count", "chosen"), [(1, [3]), (2, [1, 4]), (3, [1, 3, 5]), (5, [0, 1, 3, 4, 5])])
def test_spread_puts_streamed_layers_apart(count, chosen):
    assert spread("012345", count) == {str(index) for index in chosen}


def test_last_takes_the_block_at_the_end():
    assert last("012345", 2) == {"4", "5"}
    assert last("012345", 6) == set("012345")


def filled(budget):
    placements = fill(SPEC, WORK, budget, GREEDY)
    return placements, account(SPEC, WORK, budget, placements)


def test_account_of_a_model_in_ram():
    placements, (cpu,) = filled(Budget(2 * GIB))
    assert letters(placements) == "RRRRRRRRR"
    assert lines(cpu) == {
        "weights": 680 * MIB + REST_BYTES,
        "KV cache": KV_BYTES,
        "workspace": workspace_bytes(SPEC, WORK),
        "process": PROCESS_BYTES + 1024 * LOADED_TOKENIZER_BYTES_PER_ENTRY,
    }
    assert cpu.nbytes == sum(lines(cpu).values())
    assert rings(SPEC, placements) == ()


def test_account_of_a_model_streamed_from_disk():
    placements, (cpu,) = filled(Budget(RAM_BESIDE + KV_BYTES + 540 * MIB))
    assert lines(cpu)["weights"] == 340 * MIB + REST_BYTES
    assert lines(cpu)["weight ring"] == 200 * MIB
    assert rings(SPEC, placements) == (RingSpec("cpu", 2, 100 * MIB),)
    assert cpu.nbytes == cpu.budget_bytes
    assert cpu.fits


def test_account_of_a_gpu_and_the_ram_beside_it():
    budget = Budget(RAM_BESIDE + 300 * MIB, {"gpu:0": VRAM_BESIDE + KV_BYTES + 540 * MIB})
    placements, (cpu, gpu) = filled(budget)
    assert letters(placements) == "d0000axx0"
    assert (cpu.device, gpu.device) == ("cpu", "gpu:0")
    assert "KV cache" not in lines(cpu)
    assert lines(cpu)["weight ring"] == 200 * MIB
    assert lines(gpu) == {
        "weights": 340 * MIB + REST_BYTES,
        "weight ring": 200 * MIB,
        "KV cache": KV_BYTES,
        "workspace": workspace_bytes(SPEC, WORK),
        "process": CUDA_CONTEXT_BYTES,
    }


def test_a_ring_slot_holds_the_largest_unit_that_passes_it():
    spec = model([100 * MIB, 130 * MIB, 90 * MIB], 150 * MIB)
    names = [unit.name for unit in spec.units]

    def slot_bytes(*streamed):
        placements = [Placement(name, "disk" if name in streamed else "cpu", "cpu") for name in names]
        return [ring.slot_bytes for ring in rings(spec, placements)]

    assert slot_bytes("layer 0", "layer 2") == [100 * MIB]
    assert slot_bytes("layer 0", "layer 1") == [130 * MIB]
    assert slot_bytes("layer 0", "head") == [150 * MIB]
    assert slot_bytes("embedding") == []  # its rows are read one by one


def test_a_buffer_is_whole_pages():
    assert [model([n]).unit("layer 0").buffer_bytes for n in (2, 4096, 4098)] == [4096, 4096, 8192]


@pytest.mark.parametrize(
    ("window", "context_tokens", "chunk_tokens", "capacity_tokens"),
    [
        (None, 4096, 512, 4096),
        (1024, 4096, 512, 1536),  # the window, and the chunk that is written before the oldest leave
        (4000, 4096, 512, 4096),
        (1024, 100, 512, 100),
    ],
)
def test_a_sliding_window_needs_less_cache(window, context_tokens, chunk_tokens, capacity_tokens):
    layer = model([MIB], windows=[window]).unit("layer 0")
    work = Workload(context_tokens=context_tokens, prefill_chunk_tokens=chunk_tokens, batch=3)
    assert kv_capacity_tokens(layer, work) == capacity_tokens
    assert kv_bytes(layer, work) == 3 * 1024 * capacity_tokens


def test_workspace_grows_with_chunk_context_and_batch():
    small = workspace_bytes(SPEC, WORK)
    assert small < workspace_bytes(SPEC, replace(WORK, context_tokens=8192))
    assert small < workspace_bytes(SPEC, replace(WORK, prefill_chunk_tokens=1024))
    assert small < workspace_bytes(SPEC, replace(WORK, batch=2))


def test_account_counts_every_device_of_the_budget():
    placements, _ = filled(Budget(2 * GIB))
    memories = account(SPEC, WORK, Budget(1, {"gpu:1": 3, "gpu:0": 2}), placements)
    assert [(memory.device, memory.budget_bytes, memory.fits) for memory in memories] == [
        ("cpu", 1, False),
        ("gpu:0", 2, True),
        ("gpu:1", 3, True),
    ]
