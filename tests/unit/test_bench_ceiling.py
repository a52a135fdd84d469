"""What bandwidths allow, worked out by hand on models and hosts that are only numbers."""

from dataclasses import replace

import pytest
from hosts import speeds
from tiny_spec import LETTERS, model

from llmrun.bench.case import Case
from llmrun.bench.ceiling import Ceiling, Limit, ceiling
from llmrun.hardware.speeds import LayerSpeed
from llmrun.planner.plan import Placement, Plan
from llmrun.settings import Workload
from llmrun.units import MIB

PLACES = {letter: place for place, letter in LETTERS.items()}
DISK, RAM, LINK, GPU = 2e9, 3e10, 1.1e10, 4e11  # bytes per second of hosts.speeds
CPU_FLOPS, GPU_FLOPS = 2 * 512 * 1e9 / 2, 2 * 2 * 3e11 / 2  # of the curve's last point
LAYER, HEAD, REST = 100 * MIB, 40 * MIB, 4096


def top(letters, case, spec=None, host=None, **options):
    """Embedding, rest, four layers, head, a letter each."""
    spec = spec or model([LAYER] * 4, HEAD)
    placements = [Placement(unit.name, *PLACES[letter]) for unit, letter in zip(spec.units, letters, strict=True)]
    plan = Plan(spec.name, "literal", Workload(), tuple(placements), (), ())
    return ceiling(spec, plan, host or speeds(1), case, **options)


def test_a_token_waits_for_the_bytes_that_are_read_from_disk():
    found = top("dRRddRR", Case(0, 10))
    assert found.resource == "disk"
    assert found.tokens_per_s == pytest.approx(DISK / (2 * LAYER))


def test_resident_weights_are_read_from_memory_with_the_kv_cache():
    found = top("dRRRRRR", Case(0, 10, n_depth=100))
    past = 100 + 1 + 10 // 2
    nbytes = REST + 4 * LAYER + HEAD + 4 * 1024 * (past + 1)
    assert found.resource == "cpu"
    assert found.tokens_per_s == pytest.approx(RAM / nbytes)


def test_a_window_bounds_what_is_read_of_the_kv_cache():
    spec = model([LAYER] * 4, HEAD, windows=[8, 8, None, None])
    found = top("dRRRRRR", Case(0, 2, n_depth=98), spec)
    assert found.token.seconds == pytest.approx((REST + 4 * LAYER + HEAD + 1024 * (2 * 8 + 2 * 101)) / RAM)


def test_devices_compute_one_after_the_other_and_copies_go_on_beside_them():
    computing_s = (2 * (LAYER + 1024 * 3)) / GPU + (REST + 2 * (LAYER + 1024 * 3) + HEAD) / RAM
    assert top("dRR0R0R", Case(0, 2)).token.seconds == pytest.approx(computing_s)
    assert top("dRR0R0R", Case(0, 2)).resource == "cpu and gpu:0"
    copied = top("d000aa0", Case(0, 2))
    assert (copied.resource, copied.seconds) == ("link gpu:0", pytest.approx(2 * 2 * LAYER / LINK))


def test_a_prompt_is_bounded_by_flops_or_by_one_read_of_what_is_streamed():
    flops = 4 * LAYER * 2000 + HEAD  # a made layer has as many FLOPs as bytes; the head sees one token
    assert top("dRRRRRR", Case(2000, 0)).tokens_per_s == pytest.approx(2000 * CPU_FLOPS / flops)
    assert top("d000000", Case(2000, 0)).seconds == pytest.approx(flops / GPU_FLOPS)
    read = top("RRddddd", Case(2, 0))
    assert (read.resource, read.seconds) == ("disk", pytest.approx((4 * LAYER + HEAD) / DISK))


def test_the_models_own_layers_may_be_faster_than_a_large_matrix():
    spec = model([LAYER] * 4, HEAD)
    own = LayerSpeed(spec.layer_shape, LAYER, (1, 512), (1.0, 512 * LAYER / (2 * CPU_FLOPS)))
    host = replace(speeds(), layers=(own,))
    slow, fast = top("dRRRRRR", Case(2000, 0), spec), top("dRRRRRR", Case(2000, 0), spec, host)
    assert fast.seconds == pytest.approx(slow.seconds / 2)


def test_prompt_and_tokens_add_up():
    both, prompt = top("dRRdRRR", Case(64, 10)), top("dRRdRRR", Case(64, 0))
    assert both.seconds == pytest.approx(prompt.seconds + 10 * both.token.seconds)
    assert both.tokens_per_s == pytest.approx(74 / both.seconds)
    assert prompt.token is None


def test_a_cold_prompt_reads_everything():
    assert top("dRRRRRR", Case(1, 0), cold=True).seconds == pytest.approx((REST + 4 * LAYER + HEAD) / DISK)
    assert top("dRRRRRR", Case(0, 3), cold=True) == top("dRRRRRR", Case(0, 3))


def test_the_share_of_the_bandwidth_that_was_reached():
    found = top("dRRdddd", Case(0, 10))
    assert found.mbu(2 * found.token.seconds) == pytest.approx(0.5)
    assert found.mbu(None) is None
    assert top("dRRdddd", Case(10, 0)).mbu(1.0) is None


def test_where_nothing_takes_time_there_is_no_ceiling():
    assert Ceiling(Case(0, 1), None, Limit("cpu", 0.0)).tokens_per_s is None
