"""Plans that take equally long: the one that moves less."""

import numpy as np
import pytest
from hosts import SPEEDS
from tiny_spec import model

from llmrun.planner.problem import Effort, make_problem
from llmrun.planner.searches.aco import aco
from llmrun.planner.searches.search import Search
from llmrun.planner.searches.seeds import filled
from llmrun.planner.searches.settle import TOLERANCE, settled
from llmrun.settings import Budget, Workload
from llmrun.units import GIB, MIB

WORK = Workload(context_tokens=1024, prompt_tokens=64, new_tokens=200)


def problem(vram_bytes):
    spec = model([100 * MIB] * 12, kv_bytes_per_token=1024)
    return make_problem(spec, WORK, Budget(8 * GIB, {"gpu:0": vram_bytes}), (SPEEDS,))


def moving(problem, candidate):
    return sum(problem.choices[code].home != problem.choices[code].device for code in candidate.codes[0])


@pytest.fixture
def roomy():
    return problem(16 * GIB)


def streamed(problem, n):
    """The first ``n`` stages copied from RAM for every token, all others on the GPU."""
    names = [(choice.home, choice.device, choice.prefill_device) for choice in problem.choices]
    best = filled(problem).take(np.array([0]))
    best.codes[:] = names.index(("gpu:0", "gpu:0", "gpu:0"))
    best.codes[0, :n] = names.index(("cpu", "gpu:0", "gpu:0"))
    return best


def settle(problem, start, most_s=np.inf):
    """As at the end of a search that found ``start``."""
    search = Search(problem, Effort(evaluations=500))
    search.weigh_all(start)
    return settled(search, most_s)


def test_what_moves_for_nothing_stays_where_it_is_computed(roomy):
    start = streamed(roomy, 1)
    assert moving(roomy, settle(roomy, start)) == 0


def test_it_never_takes_longer_than_told(roomy):
    start = streamed(roomy, 3)
    seconds = float(roomy.seconds(start)[0])
    found = settle(roomy, start, seconds)
    assert roomy.seconds(found)[0] <= seconds
    assert roomy.seconds(settle(roomy, start))[0] <= seconds * (1 + TOLERANCE) * (1 + 1e-12)


def test_what_has_no_room_is_not_forced_into_it():
    tight = problem(2 * GIB)
    start = aco(tight, Effort(evaluations=300)).best
    assert tight.fit.fits(settle(tight, start))[0]
