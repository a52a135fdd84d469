"""Many candidates at once take what the one account of memory says for each of them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_spec import model

from llmrun.planner.choices import Candidates, all_choices, allowed, stages, to_codes, to_placements
from llmrun.planner.fit import Fit
from llmrun.planner.memory import account
from llmrun.settings import Budget, Workload
from llmrun.units import GIB, MIB

sizes = st.integers(1, 300).map(lambda n: n * MIB)


@st.composite
def specs(draw):
    layers = draw(st.lists(sizes, min_size=1, max_size=8))
    windows = draw(st.lists(st.sampled_from([None, 512]), min_size=len(layers), max_size=len(layers)))
    kv_bytes = draw(st.sampled_from([0, 1024, 16384]))
    tied, columns = draw(st.booleans()), draw(st.sampled_from([1, 32, 256]))
    return model(layers, draw(sizes), tied=tied, kv_bytes_per_token=kv_bytes, windows=windows, columns=columns)


works = st.builds(
    Workload,
    context_tokens=st.sampled_from([1, 256, 4096]),
    batch=st.sampled_from([1, 3]),
    prefill_chunk_tokens=st.sampled_from([1, 512]),
    draft_model_bytes=st.sampled_from([0, 300 * MIB]),
)


@settings(deadline=None)
@given(st.data(), specs(), works, st.integers(0, 2))
def test_each_candidate_takes_byte_for_byte_what_the_account_says(data, spec, work, n_gpus):
    gpus = [f"gpu:{k}" for k in range(n_gpus)]
    choices = all_choices(gpus, ("q8", "q4"))
    budget = Budget(4 * GIB, dict.fromkeys(gpus, GIB))
    rows = st.tuples(*(st.sampled_from(np.flatnonzero(stage).tolist()) for stage in allowed(spec, choices)))
    codes = data.draw(st.lists(rows, min_size=1, max_size=4))
    slots = data.draw(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 3)), min_size=4, max_size=4))
    host, gpu = np.array(slots[: len(codes)]).T
    many = Candidates(np.array(codes), host, gpu)
    fit = Fit(spec, work, budget, choices)
    accounts = [
        account(spec, work, budget, to_placements(spec, choices, row), many.slots(index))
        for index, row in enumerate(codes)
    ]
    assert fit.used_bytes(many).tolist() == [[memory.nbytes for memory in devices] for devices in accounts]
    assert fit.fits(many).tolist() == [all(memory.fits for memory in devices) for devices in accounts]


@given(st.data(), specs(), st.integers(0, 2))
def test_codes_become_placements_and_come_back(data, spec, n_gpus):
    choices = all_choices([f"gpu:{k}" for k in range(n_gpus)], ("q8", "q4"))
    n = len(stages(spec))
    codes = data.draw(st.lists(st.integers(0, len(choices) - 1), min_size=n, max_size=n))
    placements = to_placements(spec, choices, codes)
    assert [placement.unit for placement in placements] == [unit.name for unit in spec.units]
    assert to_codes(spec, choices, placements) == codes
