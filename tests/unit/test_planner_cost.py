"""What choices cost, worked out by hand from round figures."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_spec import model

from llmrun.checkpoint.spec import UnitKind
from llmrun.hardware.speeds import DeviceSpeed, DiskSpeed, LinkSpeed, Speeds, Spread, WeightSpeed
from llmrun.planner.choices import Choice, all_choices
from llmrun.planner.simulation.cost import NO_LINK, cost, weight_bytes_per_s
from llmrun.settings import Workload
from llmrun.units import MIB

GB = 1_000_000_000


def steady(figure):
    return Spread(figure, figure, figure)


def device(name, memory, flops, link=None):
    """Multiplies bf16 at its memory's speed until its FLOP/s end that: 2 FLOPs for the 2 bytes of a weight."""
    tokens = (1, 8, 64, 512)
    curve = WeightSpeed("BF16", tokens, tuple(min(memory, flops / n) for n in tokens))
    return DeviceSpeed(name, name, steady(memory), (curve,), memory, flops, layer_s=1e-4, element_s=1e-10, link=link)


CPU = device("cpu", 40 * GB, 800 * GB)
GPU = device("gpu:0", 400 * GB, 40_000 * GB, LinkSpeed(steady(12 * GB), 6 * GB, 12 * GB, 6 * GB, 1e-5))
DISK = DiskSpeed(steady(3 * GB), 1.5 * GB, 1e-4)
SPEEDS = Speeds("", "", DISK, (CPU, GPU), reading_slowdown=1.2, startup_s=3.0, token_s=0.001)
GPUS = ["gpu:0"]
CHOICES = all_choices(GPUS)
RESIDENT, STREAMED = Choice("cpu", "cpu", "cpu"), Choice("disk", "cpu", "cpu")
ON_GPU, TO_GPU = Choice("gpu:0", "gpu:0", "gpu:0"), Choice("cpu", "gpu:0", "gpu:0")
DISK_TO_GPU, PROMPT_ON_GPU = Choice("disk", "gpu:0", "gpu:0"), Choice("cpu", "cpu", "gpu:0")
LAYER_BYTES, HEAD_BYTES, KV_BYTES = 300 * MIB, 40 * MIB, 1024
WIDTH = 64 + 256  # hidden and intermediate size of the model of numbers


def dense(spec, share=1.0):
    """Every weight, or a share of them, is multiplied for each token."""
    units = tuple(
        replace(unit, flops_per_token=int(unit.nbytes * share))
        if unit.kind in (UnitKind.LAYER, UnitKind.HEAD)
        else unit
        for unit in spec.units
    )
    return replace(spec, units=units)


SPEC = dense(model([LAYER_BYTES] * 3, HEAD_BYTES, kv_bytes_per_token=KV_BYTES))
WORK = Workload(prompt_tokens=600, new_tokens=100, prefill_chunk_tokens=512)


def costs(spec=SPEC, speeds=SPEEDS, work=WORK):
    return cost(spec, speeds, work, CHOICES, GPUS)


def compute_s(one_pass, choice, stage=0):
    return one_pass.compute_s[stage, CHOICES.index(choice)]


def test_reading_and_copying_are_bytes_by_speed():
    found = costs()
    assert found.read_s == pytest.approx([LAYER_BYTES / (3 * GB)] * 3 + [HEAD_BYTES / (3 * GB)])
    assert found.lead_s == pytest.approx(4096 / (3 * GB))  # the small tensors
    copy_s = LAYER_BYTES / (12 * GB) + 1e-5
    assert found.load_s[0, CHOICES.index(ON_GPU)] == found.decode.copy_s[0, CHOICES.index(TO_GPU)]
    assert found.decode.copy_s[0, CHOICES.index(TO_GPU)] == pytest.approx(copy_s)
    assert found.decode.copy_s[0, CHOICES.index(ON_GPU)] == 0
    assert found.startup_rate == 0.5


def test_what_the_imports_read_is_not_left_for_the_weights():
    third = replace(SPEEDS, startup_bytes=2 * 3 * GB)  # 2 of the 3 s of a startup
    found = costs(speeds=third)
    assert found.startup_rate == pytest.approx(1 / 3)
    all_of_it = costs(speeds=replace(SPEEDS, startup_bytes=100 * GB))
    assert 0 < all_of_it.startup_rate < 0.1


def test_choices_say_what_moves_when():
    found = costs()
    columns = [CHOICES.index(c) for c in (RESIDENT, STREAMED, ON_GPU, TO_GPU, DISK_TO_GPU, PROMPT_ON_GPU)]
    assert found.streamed[columns].tolist() == [False, True, False, False, True, False]
    assert found.in_ram[columns].tolist() == [True, False, False, True, False, True]
    assert found.load_link[columns].tolist() == [NO_LINK, NO_LINK, 0, NO_LINK, NO_LINK, NO_LINK]
    assert found.decode.link[columns].tolist() == [NO_LINK, NO_LINK, NO_LINK, 0, 0, NO_LINK]
    assert found.prefill.link[columns].tolist() == [NO_LINK, NO_LINK, NO_LINK, 0, 0, 0]
    assert found.decode.device[columns].tolist() == [0, 0, 1, 1, 1, 0]
    assert found.prefill.device[columns].tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(("choice", "memory"), [(RESIDENT, 40 * GB), (ON_GPU, 400 * GB)])
def test_a_token_reads_the_weights_and_the_past_from_memory(choice, memory):
    kv_bytes = KV_BYTES * (600 + 50 + 1)
    expected_s = LAYER_BYTES / memory + kv_bytes / memory + 1e-4 + 1e-10 * WIDTH
    assert compute_s(costs().decode, choice) == pytest.approx(expected_s)
    assert compute_s(costs().decode, choice, stage=3) == pytest.approx(HEAD_BYTES / memory)


def test_a_longer_past_costs_what_there_is_more_to_read():
    longer = costs(work=replace(WORK, past_tokens=1000)).decode
    assert compute_s(longer, RESIDENT) - compute_s(costs().decode, RESIDENT) == pytest.approx(
        1000 * KV_BYTES / (40 * GB)
    )


def test_a_sliding_window_bounds_the_past():
    windowed = dense(model([LAYER_BYTES], HEAD_BYTES, kv_bytes_per_token=KV_BYTES, windows=[100]))
    difference_s = compute_s(costs().decode, RESIDENT) - compute_s(costs(windowed).decode, RESIDENT)
    assert difference_s == pytest.approx((650 - 100) * KV_BYTES / (40 * GB))


def test_a_prompt_takes_its_chunks_bound_by_flops():
    """512 tokens at 800 GFLOP/s, 2 FLOPs for 2 bytes; then 88, whose rate lies between those of 64 and 512."""
    attention_s = sum(4 * 4 * 16 * n * (past + n) / (800 * GB) for past, n in ((0, 512), (512, 88)))
    matrices_s = LAYER_BYTES * 600 / (800 * GB)  # on a log-log scale the rate falls as 1 / tokens all the way
    overhead_s = 2 * 1e-4 + 1e-10 * 600 * WIDTH
    assert compute_s(costs().prefill, RESIDENT) == pytest.approx(matrices_s + attention_s + overhead_s, rel=0.02)


def test_the_head_sees_one_token_of_a_prompt():
    assert compute_s(costs().prefill, RESIDENT, stage=3) == pytest.approx(HEAD_BYTES / (40 * GB))


def test_of_a_mixture_of_experts_a_token_reads_what_it_uses_and_a_prompt_all():
    mixture = dense(model([LAYER_BYTES], HEAD_BYTES, kv_bytes_per_token=0), share=0.25)
    whole = dense(model([LAYER_BYTES], HEAD_BYTES, kv_bytes_per_token=0))
    short = replace(WORK, prompt_tokens=2)
    fixed_s = 1e-4 + 1e-10 * WIDTH
    assert compute_s(costs(mixture).decode, RESIDENT) - fixed_s == pytest.approx(0.25 * LAYER_BYTES / (40 * GB))
    memory_s = compute_s(costs(mixture, work=short).prefill, RESIDENT) - 1e-4 - 2e-10 * WIDTH
    assert memory_s == pytest.approx(0.5 * LAYER_BYTES / (40 * GB))
    flops_s = [compute_s(costs(spec).prefill, RESIDENT) - 2e-4 - 600e-10 * WIDTH for spec in (mixture, whole)]
    assert flops_s[0] / flops_s[1] == pytest.approx(0.25, rel=0.02)


def test_reading_takes_from_a_computation_that_waits_for_memory():
    """With a slowdown of 1.2, a sixth of the time of reading goes from the computation beside it."""
    found = costs()
    stolen_s = compute_s(found.decode, STREAMED) - compute_s(found.decode, RESIDENT)
    assert stolen_s == pytest.approx(found.read_s[0] / 6)
    assert compute_s(found.decode, DISK_TO_GPU) == compute_s(found.decode, ON_GPU)
    undisturbed = costs(speeds=replace(SPEEDS, reading_slowdown=1.0)).decode
    assert compute_s(undisturbed, STREAMED) == compute_s(undisturbed, RESIDENT)


def test_keys_and_values_of_a_prompt_computed_elsewhere_come_back():
    found = costs()
    back_s = KV_BYTES * 600 / (6 * GB) + 1e-5
    assert compute_s(found.prefill, PROMPT_ON_GPU) == pytest.approx(compute_s(found.prefill, ON_GPU) + back_s)
    assert compute_s(found.decode, PROMPT_ON_GPU) == compute_s(found.decode, RESIDENT)


def test_hidden_states_cross_the_link_between_devices():
    found, (cpu, gpu) = costs(), (CHOICES.index(RESIDENT), CHOICES.index(ON_GPU))
    hidden_bytes = 64 * 2
    assert found.decode.hop_s[cpu, gpu] == pytest.approx(1e-5 + hidden_bytes / (6 * GB))
    assert found.prefill.hop_s[gpu, cpu] == pytest.approx(1e-5 + 600 * hidden_bytes / (6 * GB))
    assert found.decode.hop_s[cpu, cpu] == found.decode.hop_s[gpu, gpu] == 0
    assert found.decode.hop_s[cpu, CHOICES.index(STREAMED)] == 0


def test_a_batch_shares_the_weights_and_not_the_past():
    one, two = costs().decode, costs(work=replace(WORK, batch=2)).decode
    difference_s = compute_s(two, RESIDENT) - compute_s(one, RESIDENT)
    assert difference_s == pytest.approx(651 * KV_BYTES / (40 * GB) + 1e-10 * WIDTH)


def test_rates_between_measured_numbers_of_tokens():
    curve = WeightSpeed("BF16", (1, 4, 16), (80.0, 80.0, 20.0))
    device = replace(CPU, weights=(curve,))
    rates = [weight_bytes_per_s(device, "BF16", tokens) for tokens in (1, 2, 4, 8, 16, 64)]
    assert rates == pytest.approx([80, 80, 80, 40, 20, 5])
    assert weight_bytes_per_s(device, "F16", 1) == 80  # a dtype that was not measured takes the first that was


def test_a_gpu_that_was_not_measured_is_a_key_error():
    with pytest.raises(KeyError):
        cost(SPEC, replace(SPEEDS, devices=(CPU,)), WORK, CHOICES, GPUS)


def test_a_link_twice_as_fast_halves_a_copy_but_for_its_latency():
    faster = replace(GPU.link, h2d_pinned_bytes_per_s=steady(24 * GB))
    speeds = replace(SPEEDS, devices=(CPU, replace(GPU, link=faster)))
    before, after = (found.decode.copy_s[:, CHOICES.index(TO_GPU)] - 1e-5 for found in (costs(), costs(speeds=speeds)))
    np.testing.assert_allclose(after, before / 2)
