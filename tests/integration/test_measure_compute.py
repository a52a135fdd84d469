"""What is measured with torch, in as short a time as gives every figure; the CPU plays the GPU's part too."""

import math
from dataclasses import replace

import pytest
import torch
from hosts import FIGURES, HOST, SPEEDS, weights_folder

from llmrun.hardware import measuring
from llmrun.hardware.asking import Found
from llmrun.hardware.checks import faults
from llmrun.hardware.measure import assemble
from llmrun.hardware.measure_compute import attend, attend_newest, weight_rate
from llmrun.hardware.measure_device import Stage, cpu_stages, gpu_stages, measure_link, reading_slowdown, run_stages
from llmrun.hardware.measure_disk import checkpoint_files
from llmrun.hardware.measuring import Request, measure_parts
from llmrun.hardware.target import FILL_ELEMENTS, Target, cpu_target
from llmrun.units import MIB


@pytest.fixture(scope="module")
def target() -> Target:
    return cpu_target(80 * MIB)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_pool_holds_ordinary_numbers_in_every_dtype(target, dtype):
    values = target.pool[: FILL_ELEMENTS * 4].view(dtype).abs()
    assert values.min() >= 0.5
    assert values.max() < 2


def test_matrices_take_turns(target):
    first, second, third = (target.matrix(torch.bfloat16, 4096, 4096, index) for index in range(3))
    assert first.shape == (4096, 4096)
    assert first.data_ptr() == third.data_ptr() != second.data_ptr()


@pytest.mark.usefixtures("two_threads")
def test_the_cpu_tells_every_figure_and_each_within_reason(target, tmp_path, monkeypatch):
    monkeypatch.setattr("llmrun.hardware.measure_compute.LEAST_S", 0.0)
    told = {"start": 2.5}
    stages = cpu_stages(target, checkpoint_files(weights_folder(tmp_path)))
    with torch.inference_mode():
        run_stages(stages, 0.1, lambda name, figure: told.setdefault(f"cpu.{name}", figure))
    assert {path for path in FIGURES if not path.startswith("gpu")} <= set(told)
    host = replace(HOST, gpus=())
    speeds = assemble(host, SPEEDS.disk, Found(told), ())
    assert (speeds.notes, speeds.complete) == ((), True)
    assert list(faults(replace(host, speeds=speeds))) == []
    assert speeds.device("cpu").threads[-1].threads == 2


def test_a_gpu_tells_of_its_link_first_and_then_what_a_cpu_does(target):
    link, *others = gpu_stages(target, pinned=False)
    with torch.inference_mode():
        assert link.work(0.0).keys() == {"link"}
        assert others[0].work(0.0).keys() == {"weights.BF16.1"}
    assert len(others) == len(cpu_stages(target, [])) - 1  # all but the threads


def test_the_most_decisive_is_measured_first(target):
    told = []
    with torch.inference_mode():
        for stage in cpu_stages(target, [])[:3]:
            told += stage.work(0.0)
    assert told == ["weights.BF16.1", "weights.BF16.512", "weights.BF16.64"]


def test_a_stage_that_takes_too_long_leaves_the_others_nothing_and_they_are_run(monkeypatch):
    clock, limits, told = [0.0], [], {}

    def work(limit_s):
        limits.append(limit_s)
        clock[0] += 8.0
        return {f"figure {len(limits)}": limit_s}

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    run_stages([Stage(0.5, work), Stage(0.25, work), Stage(0.25, work)], 10.0, told.__setitem__)
    assert limits == [5.0, 1.0, 0.0]
    assert list(told) == ["figure 1", "figure 2", "figure 3"]


@pytest.mark.parametrize(("call_s", "rows"), [(100.0, 64), (0.02, 2048)])
def test_a_slow_device_gets_a_small_matrix(target, monkeypatch, call_s, rows):
    monkeypatch.setattr("llmrun.hardware.measure_compute.median_s", lambda work, limit_s, **more: call_s)
    assert weight_rate(target, "BF16", 512, 0.1) == pytest.approx(rows * 4096 * 2 / call_s)


def test_a_link_is_measured_both_ways(target):
    with torch.inference_mode():
        link = measure_link(target, pinned=False, limit_s=0.05)
    assert link.h2d_pinned_bytes_per_s.p10 > 0
    assert min(link.h2d_pageable_bytes_per_s, link.d2h_pinned_bytes_per_s, link.d2h_pageable_bytes_per_s) > 0
    assert 0 < link.latency_s < 1


def test_reading_slows_computing_down_by_a_bounded_factor(target, tmp_path):
    with torch.inference_mode():
        slowdown = reading_slowdown(target, checkpoint_files(weights_folder(tmp_path)), 0.1)
    assert 1 <= slowdown <= 3


def test_attention_is_that_of_the_models(target):
    query, keys = target.numbers(torch.float32, 1, 4, 1, 8), target.numbers(torch.float32, 1, 2, 5, 8)
    weights = (query.view(2, 2, 8) @ keys[0].transpose(1, 2) / math.sqrt(8)).softmax(-1)
    expected = (weights @ keys[0]).view(1, 1, 4, 8)
    assert torch.allclose(attend(query, keys, keys, None), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["kernels", "torch"])
def test_a_chunk_is_measured_on_the_last_of_the_tokens(dtype) -> None:
    query, (keys, values) = torch.randn(1, 4, 20, 16, dtype=dtype), torch.randn(2, 1, 2, 50, 16)
    expected = attend(query, keys.to(dtype), values.to(dtype), torch.ones(1, 1, 20, 50, dtype=torch.bool).tril(30))
    assert torch.allclose(attend_newest(query, keys, values), expected, atol=1e-5)


def test_a_gpu_that_torch_does_not_have_is_told_and_the_cpu_measured(monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr(measuring, "emit", lambda part, value: told.append((part, value)))
    stage = Stage(1, lambda s: {"layer_s": 2})
    monkeypatch.setattr("llmrun.hardware.measure_device.cpu_stages", lambda *rest, brief: [stage])
    gone = f"gpu:{torch.cuda.device_count()}"
    measure_parts(Request(str(tmp_path), (), ("cpu", gone), 1.0, 0.1, 32 * MIB), 0.1)
    assert [part for part, _ in told] == ["cpu.layer_s", f"{gone}.failed"]
    assert told[1][1]
