from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrun.events import (
    Accepted,
    BytesRead,
    Event,
    Finished,
    FinishReason,
    LayerDone,
    MemorySample,
    PrefillProgress,
    RingSample,
    Speculated,
    Stall,
    Token,
)
from llmrun.metrics import MetricsState, apply


def fold(*events: Event) -> MetricsState:
    state = MetricsState()
    for event in events:
        state = apply(state, event)
    return state


RUN = (
    Accepted(10.0, prompt_tokens=30, reused_tokens=10),
    BytesRead(11.0, "disk", 1000),
    Stall(11.0, "layer 0", 1.0),
    PrefillProgress(11.0, done_units=1, total_units=4, prompt_tokens=30),
    Token(14.0, 5, "a"),
    BytesRead(14.5, "disk", 300),
    Stall(14.5, "layer 0", 0.5),
    Token(15.0, 6, "b"),
    BytesRead(15.5, "disk", 300),
    BytesRead(15.5, "cpu", 40),
    Token(17.0, 7, "c"),
    BytesRead(18.0, "disk", 99),  # read ahead for a token that never came
    Finished(18.0, FinishReason.LENGTH),
)


def test_times_and_rates():
    state = fold(*RUN)
    assert state.ttft_s == 4.0
    assert state.tpot_s == 1.5
    assert state.decode_tokens_per_s == pytest.approx(2 / 3)
    assert state.prefill_tokens_per_s == 5.0
    assert state.itl_max_s == 2.0
    assert state.finish_reason is FinishReason.LENGTH
    assert (state.prompt_tokens, state.reused_tokens, state.new_tokens) == (30, 10, 3)


def test_bytes_and_stalls_belong_to_the_phase_in_which_they_came():
    state = fold(*RUN)
    assert state.prefill is not None
    assert state.decode is not None
    assert state.prefill.read_bytes == {"disk": 1000}
    assert state.decode.read_bytes == {"disk": 600, "cpu": 40}
    assert state.read_bytes == {"disk": 1699, "cpu": 40}
    assert state.read_bytes_per_token == {"disk": 300, "cpu": 20}
    assert state.prefill.stall_share == 0.25
    assert state.decode.stall_share == pytest.approx(0.5 / 3)


def test_tokens_that_come_together():
    """Of two passes: 1 + 2 and 1 + 0 tokens."""
    state = fold(
        Accepted(10.0, 30, 0),
        Token(11.0, 1, "a"),
        *[Token(13.0, 1, "a")] * 3,
        Speculated(13.0, drafted=3, accepted=2, draft_s=0.5, verify_s=1.5),
        Token(15.0, 1, "a"),
        Speculated(15.0, drafted=1, accepted=0, draft_s=0.1, verify_s=1.9),
    )
    assert state.tpot_s == 1.0
    assert state.itl_max_s == 2.0
    assert state.speculation is not None
    assert state.speculation.tokens_per_pass == 2.0
    assert (state.speculation.drafted, state.speculation.accepted) == ((2, 1, 1), (1, 1, 0))
    assert state.speculation.acceptance == 0.5
    assert state.speculation.acceptance_by_place == (0.5, 1.0, 0.0)
    assert (state.speculation.draft_s, state.speculation.verify_s) == (0.6, 3.4)


def test_the_speed_does_not_fall_while_a_pass_that_gives_several_tokens_goes_on():
    events = [Accepted(0.0, 1, 0), Token(1.0, 1, "a")]
    for number in range(1, 4):
        events += [*[Token(1.0 + 5 * number, 1, "a")] * 5, Speculated(1.0 + 5 * number, 4, 4, 0.1, 4.9)]
    state = fold(*events)
    assert state.tokens_per_s(20.0) == pytest.approx(1.0)
    assert state.tokens_per_s(36.0) == pytest.approx(0.25)


def test_nothing_was_drafted():
    assert fold(*RUN).speculation is None
    state = fold(Speculated(1.0, 0, 0, 0.0, 1.0))
    assert state.speculation is not None
    assert (state.speculation.tokens_per_pass, state.speculation.acceptance) == (1.0, None)


def test_nothing_is_known_before_it_happened():
    assert fold().ttft_s is None
    state = fold(*RUN[:5])
    assert state.ttft_s == 4.0
    assert state.tpot_s is None
    assert state.decode is None
    assert state.decode_tokens_per_s is None
    assert state.read_bytes_per_token is None
    assert state.itl_max_s is None


def test_prefill_estimate_goes_on_at_the_pace_so_far():
    state = fold(*RUN[:4])
    assert state.prefill_left_s(now_s=11.0) == 3.0
    assert fold(*RUN[:1]).prefill_left_s(now_s=11.0) is None


def test_last_memory_sample_of_each_device_is_kept():
    first, second = MemorySample(1.0, "cpu", 5, 6, 9), MemorySample(2.0, "cpu", 4, 7, 9)
    gpu = MemorySample(1.5, "gpu:0", 1, 2, 3)
    assert fold(first, gpu, second).memory == {"cpu": second, "gpu:0": gpu}


def test_tokens_at_the_same_moment_give_no_rate():
    state = fold(Accepted(1.0, 1, 0), Token(1.0, 1, ""), Token(1.0, 2, ""))
    assert state.tpot_s == 0.0
    assert state.decode_tokens_per_s is None
    assert state.prefill_tokens_per_s is None


STEPS = st.lists(
    st.tuples(st.sampled_from(["disk", "cpu", "stall", "token", "layer"]), st.integers(0, 2**40), st.floats(0, 10)),
    max_size=40,
)


@given(STEPS)
def test_totals_are_the_sums_of_the_events(steps):
    at_s, events = 0.0, [Accepted(0.0, 3, 0)]
    for kind, nbytes, seconds in steps:
        at_s += seconds
        match kind:
            case "stall":
                events.append(Stall(at_s, "layer 0", seconds))
            case "token":
                events.append(Token(at_s, 1, "x"))
            case "layer":
                events.append(LayerDone(at_s, "layer 0", "cpu"))
            case tier:
                events.append(BytesRead(at_s, tier, nbytes))
    state = fold(*events)
    reads = [event for event in events if isinstance(event, BytesRead)]
    tokens = [event for event in events if isinstance(event, Token)]
    assert state.new_tokens == len(tokens)
    assert sum(state.read_bytes.values()) == sum(event.nbytes for event in reads)
    assert state.stall_s == pytest.approx(sum(event.seconds for event in events if isinstance(event, Stall)))
    if len(tokens) > 1:
        assert state.prefill is not None
        assert state.decode is not None
        assert state.ttft_s == tokens[0].at_s
        assert state.decode.seconds == pytest.approx(tokens[-1].at_s - tokens[0].at_s)
        last = len(events) - 1 - events[::-1].index(tokens[-1])
        until_last = sum(event.nbytes for event in events[:last] if isinstance(event, BytesRead))
        assert sum(state.prefill.read_bytes.values()) + sum(state.decode.read_bytes.values()) == until_last


def test_rate_now_is_that_of_the_last_two_seconds():
    reads = [BytesRead(10 + 0.25 * n, "disk", 100 if n < 20 else 400) for n in range(1, 40)]
    state = fold(Accepted(10.0, 3, 0), *reads)
    now_s = reads[-1].at_s
    assert state.read_bytes_per_s("disk", now_s) == pytest.approx(1600)
    assert state.read_bytes_per_s("disk", now_s + 1.0) == pytest.approx(1600)  # the next report may be late
    assert state.read_bytes_per_s("disk", now_s + 3.0) == pytest.approx(800)
    assert state.read_bytes_per_s("cpu", now_s) == 0.0


def test_what_came_in_before_the_first_report_has_no_rate():
    state = fold(Accepted(10.0, 3, 0), BytesRead(10.1, "disk", 10**12), BytesRead(11.1, "disk", 500))
    assert state.read_bytes_per_s("disk", 11.1) == pytest.approx(500)
    assert fold(Accepted(10.0, 3, 0)).read_bytes_per_s("disk", 11.0) == 0.0


def test_pace_is_over_half_a_second_or_one_token():
    fast = fold(Accepted(0.0, 3, 0), *(Token(1 + n / 8, 1, "") for n in range(9)))
    assert fast.pace_tokens_per_s() == (8.0, 8.0)
    assert fast.tokens_per_s(2.0) == 8.0
    slow = fold(Accepted(0.0, 3, 0), Token(1.0, 1, ""), Token(3.0, 1, ""), Token(7.0, 1, ""))
    assert slow.pace_tokens_per_s() == (0.5, 0.25)


def test_speed_falls_while_a_token_is_long_in_coming():
    events = (Accepted(0.0, 3, 0), Token(1.0, 1, ""), Token(3.0, 1, ""))
    state = fold(*events)
    assert [state.tokens_per_s(now_s) for now_s in (3.0, 7.0, 8.0, 13.0)] == [0.5, 0.5, 0.2, 0.1]
    assert fold(*events, Finished(3.1, FinishReason.STOP)).tokens_per_s(99.0) == 0.5
    assert fold(*events[:2]).tokens_per_s(1.0) is None


def test_histories_do_not_grow_for_ever():
    state = fold(Accepted(0.0, 3, 0), *(Token(float(n), 1, "") for n in range(1, 1000)))
    assert len(state.recent) == 9
    assert len(state.pace_tokens_per_s()) == 199
    assert state.pace[-1].new_tokens == 999


def test_stalls_of_the_phase_that_goes_on():
    events = (Accepted(10.0, 3, 0), Stall(11.0, "layer 0", 1.0), Token(14.0, 1, ""), Stall(15.0, "layer 0", 0.5))
    assert fold().stall_share(1.0) is None
    assert fold(*events[:2]).stall_share(12.0) == 0.5
    assert fold(*events[:3]).stall_share(99.0) == 0.25
    assert fold(*events, Token(16.0, 1, "")).stall_share(99.0) == 0.25


def test_last_ring_sample_of_each_device_and_last_unit_are_kept():
    first, second = RingSample(1.0, "cpu", 3, 1, ("layer 4",)), RingSample(2.0, "cpu", 3, 2, ())
    gpu = RingSample(1.5, "gpu:0", 2, 1, ("layer 1",))
    state = fold(first, LayerDone(1.2, "layer 0", "cpu"), gpu, LayerDone(1.8, "layer 1", "gpu:0"), second)
    assert state.rings == {"cpu": second, "gpu:0": gpu}
    assert state.unit_done == "layer 1"


@given(STEPS)
def test_folding_leaves_the_states_before_alone(steps):
    """Equal to a fresh one in every field, with nothing of a later event in it."""
    at_s, state, seen = 0.0, MetricsState(), []
    for _, nbytes, seconds in steps:
        at_s += seconds
        seen.append((state, repr(state)))
        state = apply(state, Token(at_s, 1, "") if nbytes % 2 else BytesRead(at_s, "disk", nbytes))
    assert all(repr(before) == text for before, text in seen)
    assert set(vars(state)) == {field.name for field in fields(MetricsState)}
