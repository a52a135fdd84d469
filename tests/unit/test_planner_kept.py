"""Plans that keep weights in RAM in fewer bits, where that is allowed or asked for."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from hosts import SPEEDS
from made_problem import PRECISIONS, draw_problem, every_candidate
from tiny_spec import model

from llmrun.checkpoint.kept import can_keep, kept_model, kept_unit, layer_shape
from llmrun.checkpoint.layout import layout
from llmrun.errors import PlanError, UsageError
from llmrun.hardware.speeds import LayerSpeed
from llmrun.planner.certificate.bound import lower_bound
from llmrun.planner.check_plan import check_plan
from llmrun.planner.make import PLANNERS, make_plan
from llmrun.planner.plan import CPU
from llmrun.planner.plan_file import plan_from_json, plan_to_json
from llmrun.planner.predict import predict_plan
from llmrun.planner.simulation.cost import rounding_seconds
from llmrun.settings import LOSSLESS, Budget, Precision, Quality, Workload
from llmrun.units import GIB, MIB

SPEC = model([100 * MIB] * 12, columns=256)
WORK = Workload(context_tokens=1024, prompt_tokens=64, new_tokens=200)
Q4 = Precision(format="q4")
runnable = sorted(name for name in PLANNERS if name != "exhaustive" and (name != "nsga2" or find_spec("pymoo")))


def planned(ram_bytes, precision=LOSSLESS, *, spec=SPEC, vram_bytes=None, planner="aco", speeds=SPEEDS):
    budget = Budget(ram_bytes, vram_bytes or {})
    return make_plan(spec, WORK, budget, speeds, planner=planner, planner_s=0.05, precision=precision)


def kept(plan):
    return {placement.kept for placement in plan.placements} - {None}


def test_a_kept_unit_is_a_unit_with_other_tensors():
    unit = SPEC.unit("layer 3")
    q8, q4, head = kept_unit(unit, "q8"), kept_unit(unit, "q4"), kept_unit(SPEC.unit("head"), "q4")
    assert [part.tensors[0].dtype for part in (q8, q4, head)] == ["Q8_0", "Q4_K", "Q6_K"]
    assert q4.nbytes == unit.nbytes * 4.5 / 16
    assert layout(q4).nbytes == q4.buffer_bytes >= q4.nbytes
    assert (q4.n_params, q4.flops_per_token, q4.kv_bytes_per_token) == (
        unit.n_params,
        unit.flops_per_token,
        unit.kv_bytes_per_token,
    )
    assert kept_unit(unit, None) == unit
    assert [kept_unit(SPEC.unit(name), "q4") for name in ("embedding", "rest")] == [*SPEC.units[:2]]


def test_what_is_no_matrix_of_blocks_or_packed_already_stays():
    narrow, packed = model([100 * MIB] * 2), kept_model(SPEC, "q8")
    for spec in (narrow, packed, replace(SPEC, model_type="gpt2")):
        assert not can_keep(spec, "q4")
        assert kept(planned(16 * GIB, Q4, spec=spec)) == set()
    with pytest.raises(UsageError, match="no format"):
        can_keep(SPEC, "q3")


def test_lossless_takes_nothing_away():
    assert kept(planned(800 * MIB)) == set() == kept(planned(16 * GIB))
    assert Precision().kept_formats == ()


def test_fewer_bits_where_they_make_it_faster():
    tight = 1400 * MIB
    seconds = [planned(tight, Precision(quality)).prediction.tpot_s for quality in Quality]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[-1] < seconds[0] / 1.5
    assert kept(planned(tight, Precision(Quality.HIGH))) == {"q8"}
    assert kept(planned(tight, Precision(Quality.SMALL))) == {"q4"}


@pytest.mark.parametrize("planner", runnable)
@pytest.mark.parametrize("vram_bytes", [{}, {"gpu:0": 900 * MIB}])
def test_a_format_that_was_asked_for_is_all_that_stays_in_ram_for_the_cpu(planner, vram_bytes):
    plan = planned(1200 * MIB, Q4, vram_bytes=vram_bytes, planner=planner)
    staying = [p for p in plan.placements if p.home == p.device == CPU and p.unit not in ("embedding", "rest")]
    assert staying or vram_bytes  # greedy and even have all of it computed on the GPU
    assert {p.kept for p in staying} <= {"q4"}
    assert all(p.kept is None for p in plan.placements if p not in staying)


def test_a_budget_that_fits_all_only_so():
    whole, small = planned(1200 * MIB), planned(1200 * MIB, Q4)
    assert "disk" in whole.prediction.bytes_per_token
    assert "disk" not in small.prediction.bytes_per_token
    layers, head = 12 * 100 * MIB * 4.5 / 16, kept_unit(SPEC.unit("head"), "q4").nbytes
    assert small.prediction.bytes_per_token == {CPU: layers + head}
    assert small.memory[0].fits
    with pytest.raises(PlanError):
        planned(100 * MIB, Q4)


@pytest.mark.parametrize("precision", PRECISIONS[1:], ids=lambda precision: precision.words)
def test_the_bound_is_below_the_best_of_all(precision):
    for seed in range(12):
        problem = draw_problem(seed, 1 + seed % 3, seed % 2 if seed % 3 == 0 else 0, precision=precision)
        best_s = problem.seconds(every_candidate(problem)).min()
        bound_s = lower_bound(problem).seconds
        assert bound_s <= best_s, seed
        assert np.isinf(bound_s) == np.isinf(best_s), seed


def test_the_first_token_waits_for_the_rounding():
    slow = LayerSpeed(layer_shape(SPEC, "q4"), 1, (), (), rounding_s=1.0)
    assert rounding_seconds(SPEC.unit("layer 0"), kept_unit(SPEC.unit("layer 0"), "q4"), None) > 0.1
    known = LayerSpeed(slow.shape, kept_unit(SPEC.unit("layer 0"), "q4").nbytes, (1, 64), (0.01, 0.1), rounding_s=1.0)
    fast = replace(known, rounding_s=0.001)
    first = [planned(16 * GIB, Q4, speeds=replace(SPEEDS, layers=(own,))).prediction for own in (known, fast)]
    assert first[0].ttft_s > first[1].ttft_s + 12 * 0.9
    assert first[0].tpot_s == pytest.approx(first[1].tpot_s)


def test_coarse_products_have_figures_of_their_own():
    name = layer_shape(SPEC, "q4", fine=False)
    nbytes = kept_unit(SPEC.unit("layer 0"), "q4").nbytes
    own = LayerSpeed(name, nbytes, (1, 64), (1e-6, 1e-5))
    speeds = replace(SPEEDS, layers=(own,))
    fine, coarse = (planned(16 * GIB, Precision(q, "q4"), speeds=speeds) for q in (Quality.HIGH, Quality.BALANCED))
    assert coarse.prediction.tpot_s < fine.prediction.tpot_s
    again = predict_plan(SPEC, coarse, speeds, WORK)
    assert again.tpot_s == coarse.prediction.tpot_s


def test_it_becomes_json_and_is_checked_when_it_comes_back():
    plan = planned(1200 * MIB, Precision(Quality.BALANCED, "q4"))
    text = plan_to_json(plan)
    assert plan_from_json(text) == plan
    for wrong in ('"kept": "q3"', '"kept": "Q4_K", "home": 7'):
        with pytest.raises(UsageError) as refusal:
            plan_from_json(text.replace('"kept": "q4"', wrong))
        assert refusal.value.reference == "bad-plan-file"
    with pytest.raises(UsageError, match="quality"):
        plan_from_json(text.replace('"balanced"', '"best"'))
    with pytest.raises(UsageError, match=r"precision\.format"):
        plan_from_json(text.replace('"format": "q4"', '"format": "q3"'))


def test_a_plan_for_what_is_packed_already_keeps_nothing():
    plan = planned(1200 * MIB, Q4)
    packed = kept_model(SPEC, "q4")
    with pytest.raises(UsageError, match="nothing of layer 0 changes in q4"):
        check_plan(replace(plan, fingerprint="", hardware=""), packed, "", Budget(4 * GIB))
