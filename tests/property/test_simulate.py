"""The simulator against its oracle, and what holds for every pipeline."""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from made_cost import made_cost

from llmrun.planner.choices import Candidates, all_choices
from llmrun.planner.simulation.busy import busy_seconds
from llmrun.planner.simulation.cost import Cost
from llmrun.planner.simulation.simulate import simulate
from llmrun.planner.simulation.simulate_events import simulate_events


@dataclass(frozen=True)
class Case:
    cost: Cost
    candidates: Candidates


def quarters(largest):
    """Round figures, which add up without rounding: who comes first is then the same in any order of adding."""
    return st.integers(1, largest).map(lambda n: n / 4)


@st.composite
def cases(draw, n_candidates=3):
    n_gpus, n = draw(st.integers(0, 2)), draw(st.integers(1, 8))
    keeps = draw(st.booleans())
    n_choices = len(all_choices(["gpu:0", "gpu:1"][:n_gpus], ["q8"] if keeps else ()))
    scale = st.sampled_from([4, 20, 60])

    def row():
        return draw(st.lists(quarters(draw(scale)), min_size=n, max_size=n))

    def some(values):
        return draw(st.lists(values, min_size=n_candidates, max_size=n_candidates))

    pause = st.integers(0, 8).map(lambda n: n / 4)
    cost = made_cost(
        row(),
        [row() for _ in range(n_gpus + 1)],
        [row() for _ in range(n_gpus + 1)],
        copy=row(),
        hop=draw(pause),
        startup=draw(st.integers(0, 40)),
        rate=draw(st.sampled_from([0.5, 1.0])),
        lead=draw(pause),
        token=draw(pause),
        idle=draw(pause),
        rounding=row() if keeps else (),
    )
    codes = some(st.lists(st.integers(0, n_choices - 1), min_size=n, max_size=n))
    slots = st.integers(1, 4)
    return Case(cost, Candidates(np.array(codes), np.array(some(slots)), np.array(some(slots))))


some_cases = settings(deadline=None, max_examples=50)
many_cases = settings(deadline=None, max_examples=100)


@some_cases
@given(cases())
def test_it_is_as_the_oracle_says(case):
    cost, many = case.cost, case.candidates
    times = simulate(cost, many)
    found = np.stack([times.ttft_s, times.warm_ttft_s, times.tpot_s], axis=1)
    slots = zip(many.codes, many.host_slots, many.gpu_slots, strict=True)
    plain = np.array([simulate_events(cost, *each) for each in slots])
    np.testing.assert_allclose(found[:, :2], plain[:, :2], rtol=1e-9)
    np.testing.assert_allclose(found[:, 2], plain[:, 2], rtol=1e-3)  # the oracle's passes may not be steady yet


@many_cases
@given(cases())
def test_no_resource_is_busy_for_longer_than_a_token_takes(case):
    busy = busy_seconds(case.cost, case.candidates)
    n_gpus = case.cost.n_gpus
    tpot_s = simulate(case.cost, case.candidates).tpot_s * (1 + 1e-9)
    assert np.all(busy[:, : 1 + n_gpus].max(axis=1) <= tpot_s)
    assert np.all(busy[:, 1 + n_gpus :].sum(axis=1) + case.cost.token_s <= tpot_s)


@many_cases
@given(cases(), st.sampled_from([0.125, 3, 1000]))
def test_all_costs_times_k_take_k_times_as_long(case, k):
    cost, many = case.cost, case.candidates
    times = {"read_s", "load_s", "startup_s", "lead_s", "token_s", "idle_s"}
    larger = replace(
        cost,
        prefill=slower(cost.prefill, k),
        decode=slower(cost.decode, k),
        **{name: getattr(cost, name) * k for name in times},
    )
    before, after = simulate(cost, many), simulate(larger, many)
    for name in ("ttft_s", "warm_ttft_s", "tpot_s"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name) * k, rtol=1e-9)


@many_cases
@given(cases(), st.sampled_from(["host slot", "GPU slot", "disk", "computation"]))
def test_nothing_that_helps_makes_a_token_or_a_warm_prompt_slower(case, what):
    """A cold prompt it may: a unit read ahead is not broken off, and another one is read ahead then."""
    cost, many = case.cost, case.candidates
    if what == "host slot":
        many = replace(many, host_slots=many.host_slots + 1)
    elif what == "GPU slot":
        many = replace(many, gpu_slots=many.gpu_slots + 1)
    elif what == "disk":
        cost = replace(cost, read_s=cost.read_s * 0.75)
    else:
        shorter = cost.decode.compute_s * 0.75
        cost = replace(cost, decode=replace(cost.decode, compute_s=shorter))
    before, after = simulate(case.cost, case.candidates), simulate(cost, many)
    assert np.all(after.tpot_s <= before.tpot_s * (1 + 1e-9))
    assert np.all(after.warm_ttft_s <= before.warm_ttft_s * (1 + 1e-9))


@many_cases
@given(cases())
def test_a_cold_prompt_takes_no_less_than_a_warm_one(case):
    times = simulate(case.cost, case.candidates)
    assert np.all(times.ttft_s >= times.warm_ttft_s * (1 - 1e-9))


def slower(one_pass, k):
    return replace(one_pass, compute_s=one_pass.compute_s * k, copy_s=one_pass.copy_s * k, hop_s=one_pass.hop_s * k)
