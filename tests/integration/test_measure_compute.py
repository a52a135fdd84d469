"""What is measured with torch, in as short a time as gives every figure; the CPU plays the GPU's part too."""

import math
from dataclasses import replace

import pytest
import torch
from hosts import CPU_SPEED, HOST, SPEEDS, weights_folder

from llmrun.hardware import measuring
from llmrun.hardware.checks import faults
from llmrun.hardware.measure_compute import attend, weight_speed
from llmrun.hardware.measure_device import measure_cpu, measure_link, reading_slowdown
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


def test_the_cpu_has_every_figure_and_each_within_reason(target):
    with torch.inference_mode():
        computed = measure_cpu(target, "a processor", 0.1)
    assert 0 < computed.token_s < 10
    assert [curve.dtype for curve in computed.device.weights] == ["BF16", "F16", "F32"]
    assert computed.device.threads[-1].threads == torch.get_num_threads()
    assert list(faults(replace(HOST, speeds=replace(SPEEDS, devices=(computed.device,))))) == []


def test_a_device_too_slow_for_many_tokens_has_a_shorter_curve(target, monkeypatch):
    from llmrun.hardware import measure_compute

    monkeypatch.setattr(measure_compute, "median_s", lambda work, limit_s, **more: 100.0)
    curve = weight_speed(target, "F32", 0.1)
    assert curve.tokens == (1,)


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


def test_a_gpu_that_torch_does_not_have_is_noted_and_the_cpu_measured(monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr(measuring, "emit", lambda part, value: told.append((part, value)))
    monkeypatch.setattr("llmrun.hardware.measure_device.measure_cpu", lambda *rest: type("C", (), COMPUTED))
    gone = f"gpu:{torch.cuda.device_count()}"
    measure_parts(Request(str(tmp_path), (), "a processor", ((gone, "a GPU"),), 1.0, 32 * MIB), 0.1)
    assert [part for part, _ in told] == ["device", "token", "note"]
    assert f"{gone} (a GPU) could not be measured and is left out" in told[-1][1]


COMPUTED = {"device": CPU_SPEED, "token_s": 0.001}
