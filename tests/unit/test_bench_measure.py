"""Samples and rows, on an engine that is not there: which tokens it is given, what is timed, what comes out."""

import dataclasses
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from fake_engine import plan, spec
from hosts import speeds

from llmrun.bench.case import Case
from llmrun.bench.ceiling import ceiling
from llmrun.bench.figures import Setup, make_row, plan_id
from llmrun.bench.measure import Method, Watcher, load, measure, measure_cold
from llmrun.bench.sample import RandomTokens, take_sample
from llmrun.events import Accepted, BytesRead, Expected, Finished, FinishReason, MemorySample, Speculated, Stall, Token
from llmrun.planner.plan import Placement
from llmrun.units import MIB

PREFILL_S, TOKEN_S = 2.0, 0.5


class Engine:
    """A prompt takes 2 s, a pass 0.5 s; 10 bytes are read in each."""

    n_threads = 2

    def __init__(self, fails_after=None):
        self.requests = []
        self.stopped = 0
        self.now_s = 100.0
        self.fails_after = fails_after

    def replay(self, prompt, following):
        self.requests.append((list(prompt), list(following)))
        try:
            yield from self._events(len(prompt), following)
        finally:
            self.stopped += 1

    def extend(self, prompt, new_tokens):
        for event in self.replay(prompt, [None] * new_tokens):
            yield event
            if isinstance(event, Token):
                yield Speculated(event.at_s, 3, 1, 0.01, 0.4)

    def _events(self, n_prompt, following):
        yield Accepted(self.now_s, n_prompt, 0)
        yield Expected(self.now_s, 1.0, 0.25, {"disk": 10}, {"cpu": 300 * MIB})
        for count, token in enumerate(following):
            if count == self.fails_after:
                raise KeyboardInterrupt
            self.now_s += TOKEN_S if count else PREFILL_S
            yield BytesRead(self.now_s, "disk", 10)
            yield Stall(self.now_s, "layer 0", 0.1)
            yield MemorySample(self.now_s, "cpu", 200 * MIB, 300 * MIB + len(self.requests), 512 * MIB)
            yield Token(self.now_s, token, "")
        yield Finished(self.now_s, FinishReason.LENGTH)


def tokens(seed=0, vocab_size=100):
    return RandomTokens(vocab_size, seed)


def ignore(event):
    pass


def sample_of(case, **options):
    return take_sample(Engine(), case, tokens(), ignore, **options)


def row_of(case, count=2, setup=None, top=None, **options):
    samples = [sample_of(case, **options) for _ in range(count)]
    return make_row(setup or SETUP, samples, top, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


SETUP = Setup(spec(), plan(), "a processor", "", 2, 0)


@pytest.mark.parametrize(
    ("case", "n_prompt", "n_following", "seconds"),
    [
        (Case(8, 0), 8, 1, PREFILL_S),
        (Case(0, 4), 1, 5, 4 * TOKEN_S),
        (Case(8, 4), 8, 5, PREFILL_S + 4 * TOKEN_S),
        (Case(0, 4, 6), 6, 5, 4 * TOKEN_S),
    ],
)
def test_what_is_timed(case, n_prompt, n_following, seconds):
    engine = Engine()
    sample = take_sample(engine, case, tokens(), ignore)
    ((prompt, following),) = engine.requests
    assert (len(prompt), len(following)) == (n_prompt, n_following)
    assert sample.seconds == pytest.approx(seconds)


def test_a_depth_is_brought_in_before_and_is_the_beginning_of_the_prompt():
    engine = Engine()
    sample = take_sample(engine, Case(3, 2, n_depth=5), tokens(), ignore)
    (depth, _), (prompt, _) = engine.requests
    assert len(depth) == 5
    assert prompt[:5] == depth
    assert len(prompt) == 8
    assert sample.seconds == pytest.approx(PREFILL_S + 2 * TOKEN_S)


def test_depths_begin_alike_and_prompts_never_do():
    source = tokens()
    assert source.past(10)[:4] == source.past(4)
    firsts = [source.fresh(3)[0] for _ in range(250)]
    assert all(one != other for one, other in pairwise(firsts))
    assert all(0 <= token < 100 for _ in range(9) for token in source.fresh(50))
    assert tokens(1).past(9) != tokens(2).past(9)
    assert [tokens(1).fresh(9), tokens(1).past(9)] == [tokens(1).fresh(9), tokens(1).past(9)]


def test_repetitions_after_a_warm_up_that_is_short():
    engine, seen, numbers = Engine(), [], []
    samples = measure(engine, Case(8, 4), tokens(), Method(3), Watcher(seen.append, numbers.append))
    assert [len(following) for _, following in engine.requests] == [2, 5, 5, 5]
    assert numbers == [0, 1, 2, 3]
    assert len(samples) == 3
    assert sum(isinstance(event, Accepted) for event in seen) == 4
    assert len({prompt[0] for prompt, _ in engine.requests}) == 4


def test_where_tokens_are_drafted_they_are_the_models_own():
    engine, watcher = Engine(), Watcher(ignore, ignore)
    samples = measure(engine, Case(8, 4), tokens(), Method(2, own_tokens=True), watcher)
    assert [following for _, following in engine.requests] == [[None] * 2, [None] * 5, [None] * 5]
    row = make_row(SETUP, samples, None, datetime(2026, 1, 2, tzinfo=UTC))
    assert (row.tokens_per_pass, row.draft_acceptance) == (2.0, pytest.approx(1 / 3))
    plain = row_of(Case(8, 4))
    assert (plain.tokens_per_pass, plain.draft_acceptance) == (None, None)


def test_without_a_warm_up_the_engine_is_loaded_by_one_token():
    engine, watcher = Engine(), Watcher(ignore, ignore)
    source = tokens()
    load(engine, source, watcher)
    assert len(measure(engine, Case(8, 4), source, Method(2, warm_up=False), watcher)) == 2
    assert [(len(prompt), len(following)) for prompt, following in engine.requests] == [(1, 1), (8, 5), (8, 5)]


def test_a_cold_sample_has_an_engine_of_its_own_whose_start_counts(monkeypatch):
    engines, done = [], []

    @contextmanager
    def start():
        done.append("start")
        now_s[0] += 3.0
        engines.append(Engine())
        yield engines[-1]
        done.append("end")

    now_s = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    samples = measure_cold(start, lambda: done.append("drop"), Case(8, 4), tokens(), Method(2), Watcher(ignore, ignore))
    assert done == ["start", "end", "drop", "start", "end", "drop", "start", "end"]
    assert [len(engine.requests) for engine in engines] == [0, 1, 1]
    assert samples[0].seconds == pytest.approx(3.0 + PREFILL_S + 4 * TOKEN_S)
    assert samples[0].ttft_s == pytest.approx(3.0 + PREFILL_S)
    assert samples[0].predicted_s == pytest.approx(3.0 + 1.0 + 4 * 0.25)


def test_an_interruption_stops_the_engine():
    engine = Engine(fails_after=2)
    with pytest.raises(KeyboardInterrupt):
        take_sample(engine, Case(0, 4), tokens(), ignore)
    assert engine.stopped == 1

    def interrupt(event):
        if isinstance(event, Token):
            raise KeyboardInterrupt

    engine = Engine()
    with pytest.raises(KeyboardInterrupt):
        take_sample(engine, Case(0, 4), tokens(), interrupt)
    assert engine.stopped == 1


def test_a_row_of_a_prompt():
    row = row_of(Case(8, 0))
    assert row.samples_ns == (2_000_000_000, 2_000_000_000)
    assert row.avg_ts == pytest.approx(4.0)
    assert row.ttft_ms == pytest.approx(2000)
    assert (row.tpot_ms, row.itl_ms, row.itl_p99_ms, row.mbu) == (None, None, None, None)
    assert row.predicted_ts == pytest.approx(8 / 1.0)
    assert row.disk_bytes_per_token == pytest.approx(10 / 8)
    assert row.stall_share == pytest.approx(0.1 / 2)


def test_a_row_of_new_tokens():
    row = row_of(Case(0, 4))
    assert row.avg_ts == pytest.approx(2.0)
    assert row.ttft_ms is None
    assert (row.tpot_ms, row.itl_ms, row.itl_p99_ms) == pytest.approx((500, 500, 500))
    assert row.predicted_ts == pytest.approx(4.0)
    assert row.disk_bytes_per_token == pytest.approx(10)
    assert row.stall_share == pytest.approx(0.2)


def test_a_row_of_both():
    row = row_of(Case(8, 4))
    assert row.avg_ts == pytest.approx(12 / 4.0)
    assert row.ttft_ms == pytest.approx(2000)
    assert row.tpot_ms == pytest.approx(500)
    assert row.predicted_ts == pytest.approx(12 / 2.0)
    assert row.disk_bytes_per_token == pytest.approx(50 / 12)


def test_what_a_row_says_of_the_run():
    case, row = Case(0, 4), row_of(Case(0, 4))
    assert row.case == case
    assert (row.model_filename, row.model_type) == ("/models/fake", "llama 262M BF16")
    assert (row.model_size, row.model_n_params) == (500 * MIB, 500 * MIB // 2)
    assert (row.ram_peak_bytes, row.ram_budget_bytes) == (300 * MIB + 1, 512 * MIB)
    assert (row.vram_peak_bytes, row.vram_budget_bytes, row.gpu_info) == (None, None, "")
    assert (row.cache_state, row.sweep, row.n_ctx, row.seed) == ("warm", None, 2048, 0)
    assert row.test_time == "2026-01-02T03:04:05Z"
    cold = row_of(case, setup=replace(SETUP, cold=True, sweep="2GiB"))
    assert (cold.cache_state, cold.sweep) == ("cold", "2GiB")


def test_memory_of_gpus_is_summed():
    placements = (Placement("embedding", "gpu:0", "gpu:0"), Placement("layer 0", "gpu:1", "gpu:1"))
    memory = tuple(replace(plan().memory[0], device=device) for device in ("cpu", "gpu:0", "gpu:1"))
    setup = replace(SETUP, plan=replace(plan(), placements=placements, memory=memory))
    sample = sample_of(Case(0, 1))
    on_gpus = {name: MemorySample(1.0, name, 1, 100 * n, 512 * MIB) for n, name in enumerate(("gpu:0", "gpu:1"), 1)}
    sample = replace(sample, state=replace(sample.state, memory={**sample.state.memory, **on_gpus}))
    row = make_row(setup, [sample], None, datetime.now(UTC))
    assert (row.vram_peak_bytes, row.vram_budget_bytes) == (300, 1024 * MIB)


def test_ceiling_and_share_of_it():
    top = ceiling(spec(), plan(), speeds(), Case(0, 4))
    row = row_of(Case(0, 4), top=top)
    assert row.ceiling_ts == pytest.approx(2e9 / (400 * MIB))
    assert row.mbu == pytest.approx(row.avg_ts / row.ceiling_ts)
    assert row_of(Case(0, 4)).ceiling_ts is None


def test_a_plan_is_known_by_what_it_does():
    same = replace(plan(), planner="another", memory=(), hardware="elsewhere")
    other = replace(plan(), placements=(plan().placements[0], Placement("layer 0", "cpu", "cpu")))
    assert plan_id(same) == plan_id(plan()) != plan_id(other)


def test_every_field_of_a_row_is_of_its_type():
    row = row_of(Case(8, 4), top=ceiling(spec(), plan(), speeds(), Case(8, 4)))
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        kinds = {"str": str, "int": int, "float": float, "None": type(None), "tuple[int, ...]": tuple}
        assert type(value) in [kinds[kind] for kind in str(field.type).split(" | ")], field.name
