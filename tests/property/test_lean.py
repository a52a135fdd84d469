"""Where the leanest placement does not fit, none of all placements does."""

from itertools import product

import numpy as np
from hosts import speeds
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import sizes
from tiny_spec import model

from llmrun.planner.choices import Candidates
from llmrun.planner.memory import CUDA_CONTEXT_BYTES, process_bytes, workspace_bytes
from llmrun.planner.problem import make_problem
from llmrun.planner.searches.lean import leanest
from llmrun.settings import Budget, Workload
from llmrun.units import GIB, MIB

WORK = Workload(prefill_chunk_tokens=64)
KV_BYTES = 65536 * WORK.context_tokens  # of a layer that sees the whole context
shares = st.floats(0, 1)


@st.composite
def problems(draw):
    """Up to three layers on memory in which only some of them find room; they differ where that is no packing."""
    n, n_gpus = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    n_kinds = n if n_gpus < 2 else 1
    kinds = draw(st.lists(st.tuples(sizes, st.sampled_from([None, 512])), min_size=n_kinds, max_size=n_kinds))
    layers, windows = zip(*(kinds * n)[:n], strict=True)
    spec = model(layers, draw(sizes), tied=draw(st.booleans()), kv_bytes_per_token=65536, windows=windows)
    beside, largest = workspace_bytes(spec, WORK), max(unit.nbytes for unit in spec.units)
    ram_bytes = process_bytes(spec, WORK) + beside + largest + int(draw(shares) * n * KV_BYTES)
    vram_bytes = {
        f"gpu:{k}": CUDA_CONTEXT_BYTES + beside + int(draw(shares) * largest) + int(draw(shares) * n * KV_BYTES)
        for k in range(n_gpus)
    }
    return make_problem(spec, WORK, Budget(ram_bytes, vram_bytes), (speeds(2),))


@settings(deadline=None, max_examples=150)
@given(problems())
def test_if_the_leanest_does_not_fit_nothing_does(problem):
    rows = np.array(list(product(*(np.flatnonzero(stage).tolist() for stage in problem.allowed))))
    ones = np.ones(len(rows), dtype=np.int64)
    if problem.fit.fits(Candidates(rows, ones, ones)).any():
        over_bytes = problem.fit.used_bytes(leanest(problem)) - problem.fit.budget_bytes
        assert over_bytes.max() <= problem.fit.rest_bytes  # which the last layer takes with it


def test_all_on_the_cpu_where_that_fits():
    problem = make_problem(model([MIB] * 3), WORK, Budget(GIB, {"gpu:0": GIB}), (speeds(1),))
    lean = leanest(problem)
    assert {problem.choices[code].device for code in lean.codes[0]} == {"cpu"}
    assert (lean.host_slots.tolist(), lean.gpu_slots.tolist()) == ([1], [1])


def test_as_few_layers_on_the_gpu_as_it_needs():
    spec = model([MIB] * 10, MIB, kv_bytes_per_token=65536)
    ram_bytes = process_bytes(spec, WORK) + workspace_bytes(spec, WORK) + 2 * MIB + 6 * KV_BYTES
    problem = make_problem(spec, WORK, Budget(ram_bytes, {"gpu:0": 64 * GIB}), (speeds(1),))
    devices = [problem.choices[code].device for code in leanest(problem).codes[0]]
    assert devices == ["gpu:0"] * 4 + ["cpu"] * 7
