"""The simulator on cases that can be worked out by hand."""

import numpy as np
import pytest
from made_cost import candidates, codes_of, made_cost

from llmrun.planner.choices import Candidates, all_choices
from llmrun.planner.simulation.busy import busy_seconds, resources
from llmrun.planner.simulation.simulate import simulate
from llmrun.planner.simulation.simulate_events import simulate_events


def one(cost, letters, host_slots=2, gpu_slots=2):
    """The times of one candidate: to the first token cold and warm, of a token; the oracle must agree."""
    times = simulate(cost, candidates([letters], cost.n_gpus, host_slots, gpu_slots))
    found = (float(times.ttft_s[0]), float(times.warm_ttft_s[0]), float(times.tpot_s[0]))
    assert simulate_events(cost, codes_of(letters, cost.n_gpus), host_slots, gpu_slots) == pytest.approx(found)
    return found


def tpot(cost, letters, host_slots=2, gpu_slots=2):
    return one(cost, letters, host_slots, gpu_slots)[2]


def test_resident_weights_take_their_computation_and_the_token():
    assert tpot(made_cost([9, 9, 9], [[1, 2, 3]], token=0.5), "RRR") == 6.5


@pytest.mark.parametrize(("read_s", "compute_s"), [(3, 2), (2, 3), (2, 2)])
def test_two_slots_overlap_reading_and_computation(read_s, compute_s):
    assert tpot(made_cost([read_s] * 5, [[compute_s] * 5]), "ddddd") == 5 * max(read_s, compute_s)


def test_one_slot_reads_and_computes_in_turn():
    assert tpot(made_cost([3] * 5, [[2] * 5]), "ddddd", host_slots=1) == 5 * (3 + 2)


def test_the_disk_goes_on_between_tokens():
    cost = made_cost([3] * 4, [[1] * 4], token=7)
    assert tpot(cost, "dddd", host_slots=3) == 12  # and not 7 more
    assert tpot(cost, "dddd", host_slots=2) == 8 + 7  # for the last of 7 seconds the ring is full


def test_spread_between_resident_layers_streamed_ones_hide_and_in_a_block_they_do_not():
    cost = made_cost([2] * 6, [[2] * 6])
    assert tpot(cost, "RdRdRd", host_slots=1) == 12
    assert tpot(cost, "RRRddd", host_slots=1) == 12 + 2 * 2  # the first comes in during the resident ones
    assert tpot(cost, "RRRddd", host_slots=2) == 12


def test_more_slots_let_the_disk_work_through_a_long_computation():
    cost = made_cost([4, 4, 4, 1], [[1, 1, 1, 20]])
    waits_s = [tpot(cost, "dddR", slots) - 23 for slots in (1, 2, 3, 8)]
    assert waits_s == [8, 3, 0, 0]  # with two, the third is read while one second is computed


def test_passes_that_differ_in_pairs_count_by_their_mean():
    """Two slots, let go in another order than taken: passes last 6 and 7 seconds in turn."""
    assert tpot(made_cost([3, 3], [[2, 2], [2, 2]], copy=[3, 3], hop=2), "dx") == 6.5


def test_a_cold_pass_reads_everything_once():
    cost = made_cost([3, 3, 3], [[1, 1, 1]], [[2, 2, 2]], lead=1, token=0.5)
    assert one(cost, "RRR")[0] == 1 + 9 + 2 + 0.5  # bound by the disk, then the last computation
    assert one(cost, "RRR")[1] == 6 + 0.5


def test_reading_goes_on_slower_during_the_startup_and_nothing_computes():
    cost = made_cost([3, 3, 3], [[2, 2, 2]], startup=8, rate=0.5)
    assert one(cost, "RRR")[0] == 9 - 4 + 2
    assert one(made_cost([3, 3, 3], [[2, 2, 2]], startup=100, rate=0.5), "RRR")[0] == 6
    assert one(made_cost([3, 3, 3], [[2, 2, 2]], startup=100, rate=0.5), "ddd")[0] == 7  # two slots: the third is not


def test_reading_goes_on_while_the_engine_waits_for_a_request():
    cost = made_cost([3, 3, 3], [[1, 1, 1]], startup=8, rate=0.5)
    assert one(cost, "RRR")[0] == 9 - 4 + 1
    assert one(cost.after_waiting(2), "RRR")[0] == 9 - 4 - 2 + 1
    assert one(cost.after_waiting(50), "RRR")[0] == 3


def test_while_the_ring_is_full_the_disk_reads_ahead_what_lives_in_ram():
    cost = made_cost([1, 1, 2, 2], [[6, 6, 1, 1]])
    # one slot: read 0-1, computed till 7; ahead 1-3 and 3-5; the second streamed one 7-8, computed till 14; 2 more
    assert one(cost, "ddRR", host_slots=1)[0] == 16
    # without reading ahead the two would come in from 8 on
    assert one(made_cost([1, 1, 9, 9], [[6, 6, 1, 1]]), "ddRR", host_slots=1)[0] == 21


def test_a_unit_read_ahead_is_not_broken_off():
    """So a later request may even wait longer: it finds the disk busy with what it does not need yet."""
    cost = made_cost([2.75, 0.25, 0.5, 4.25, 2.25], [[4.25, 12, 10.75, 2.75, 4]], startup=6, rate=0.5, lead=2)
    assert one(cost.after_waiting(1), "dddRR", host_slots=1)[0] == 35.25
    assert one(cost.after_waiting(2), "dddRR", host_slots=1)[0] == 36.5


def test_a_warm_pass_finds_as_much_as_the_rings_hold():
    cost = made_cost([3, 3, 3, 3], [[1, 1, 1, 1]], token=0.5)
    assert [one(cost, "dddd", slots)[1] for slots in (4, 3, 2, 1)] == [4.5, 5.5, 8.5, 13.5]


def test_the_link_of_a_gpu_bounds_what_is_streamed_from_ram():
    cost = made_cost([5] * 4, [[9] * 4, [1] * 4], copy=[3] * 4)
    assert tpot(cost, "aaaa") == 12
    assert tpot(cost, "aaaa", gpu_slots=1) == 16


def test_from_disk_to_a_gpu_the_slowest_of_three_counts():
    for slowest in range(3):
        read_s, copy_s, compute_s = np.roll([4, 2, 1], slowest)
        cost = made_cost([read_s] * 4, [[9] * 4, [compute_s] * 4], copy=[copy_s] * 4)
        assert tpot(cost, "xxxx") == 16
        assert tpot(cost, "xxxx", host_slots=1, gpu_slots=1) == 4 * max(read_s + copy_s, copy_s + compute_s)


def test_two_gpus_copy_at_the_same_time():
    cost = made_cost([1] * 4, [[9] * 4, [1] * 4, [1] * 4], copy=[4] * 4)
    assert tpot(cost, "aaaa") == 16
    assert tpot(cost, "abab") == 8


def test_handing_over_counts_between_devices_only():
    cost = made_cost([1] * 4, [[2] * 4, [1] * 4], copy=[1] * 4, hop=0.25)
    assert tpot(cost, "RR00") == 6.25
    assert tpot(cost, "R0R0") == 6.75


def test_what_lives_on_a_gpu_goes_through_the_ring_in_ram_once():
    cost = made_cost([3, 3, 3], [[9] * 3, [1] * 3], copy=[2] * 3, startup=50)
    assert one(cost, "000") == (8, 3, 3)  # two are in RAM at first; the third is read from 2 to 5, copied to 7
    assert one(cost, "000", host_slots=1)[0] == 13  # 2; read to 5, copied to 7; read to 10, copied to 12


def test_a_prompt_may_be_computed_elsewhere_than_tokens():
    cost = made_cost([1, 1], [[1, 1], [5, 5]], [[20, 20], [2, 2]], copy=[3, 3], startup=50)
    assert one(cost, "RR") == (40, 40, 2)
    assert one(cost, "pp") == (3 + 3 + 2, 2 + 2, 2)
    assert one(cost, "qq") == (3 + 3 + 2, 2 + 2, 2)


def test_candidates_do_not_touch_each_other():
    """Round figures drawn with a seed: all of them at once, and each by the oracle."""
    rng = np.random.default_rng(1)
    for n_gpus in (0, 1, 2):
        read_s, copy_s = rng.integers(1, 40, (2, 12)) / 4
        decode, prefill = rng.integers(1, 40, (2, n_gpus + 1, 12)) / 4
        cost = made_cost(list(read_s), decode, prefill, copy=list(copy_s), hop=0.25, startup=30, rate=0.5, token=0.5)
        n = 16
        codes = rng.integers(0, len(all_choices(["gpu:0", "gpu:1"][:n_gpus])), (n, 12))
        many = Candidates(codes, rng.integers(1, 9, n), rng.integers(1, 4, n))
        times = simulate(cost, many)
        found = np.stack([times.ttft_s, times.warm_ttft_s, times.tpot_s], axis=1)
        plain = [simulate_events(cost, codes[i], many.host_slots[i], many.gpu_slots[i]) for i in range(n)]
        np.testing.assert_allclose(found, plain, rtol=1e-9)


def test_busy_time_of_each_resource():
    cost = made_cost([3, 4, 5, 6], [[1, 2, 3, 4], [0.5, 0.5, 0.5, 0.5]], copy=[7, 8, 9, 10])
    assert resources(["gpu:0"]) == ("disk", "link gpu:0", "cpu", "gpu:0")
    assert busy_seconds(cost, candidates(["Rdax", "00pq"], 1)).tolist() == [[10, 19, 3, 1], [6, 0, 7, 1]]
