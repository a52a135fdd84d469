"""A benchmark on a tiny random model: what the engine in fact runs, reads and keeps."""

from __future__ import annotations

import gc
import shutil
import subprocess
import weakref
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hosts import speeds
from placing import bytes_to_read, plan_of

from llmrun.bench.case import Case
from llmrun.bench.ceiling import ceiling
from llmrun.bench.cold import drop_page_cache
from llmrun.bench.figures import Setup, make_row
from llmrun.bench.measure import Method, Watcher, measure
from llmrun.bench.sample import RandomTokens, take_sample
from llmrun.checkpoint import ModelSpec, read_spec
from llmrun.engine.engine import Engine
from llmrun.engine.sampling import Sampler
from llmrun.engine.start import let_go, start_engine
from llmrun.events import Accepted, Event, Expected, Finished, LayerDone, Token
from llmrun.planner.plan import CPU, DISK, Plan
from llmrun.runtime.host import HostWeights
from llmrun.settings import Workload

STREAMED = "dRdRdRdRd"  # of the six layers three, and the head


def ignore(event: object) -> None:
    pass


def plan(spec: ModelSpec, letters: str = STREAMED, context_tokens: int = 64) -> Plan:
    return plan_of(spec, letters, Workload(context_tokens=context_tokens, prefill_chunk_tokens=16))


def take(engine: Engine, case: Case, tokens: RandomTokens | None = None) -> list[Event]:
    events: list[Event] = []
    take_sample(engine, case, tokens or RandomTokens(320, 0), events.append)
    return events


def passes(events: list[Event]) -> int:
    return sum(isinstance(event, LayerDone) and event.unit == "head" for event in events)


def test_every_pass_is_one_token_and_nothing_is_sampled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sampler, "next", None)
    spec = read_spec(folder)
    with start_engine(spec, plan(spec)) as engine:
        for case, n_passes in ((Case(20, 0), 1), (Case(0, 9), 10), (Case(20, 9), 10)):
            events = take(engine, case)
            assert sum(isinstance(event, Token) for event in events) == case.n_gen + 1
            assert (passes(events), isinstance(events[-1], Finished)) == (n_passes, True)


def test_a_depth_is_computed_once_and_reused_by_each_repetition(folder: Path) -> None:
    spec, tokens, case = read_spec(folder), RandomTokens(320, 0), Case(8, 4, n_depth=40)
    with start_engine(spec, plan(spec)) as engine:
        reused = [
            [event.reused_tokens for event in take(engine, case, tokens) if isinstance(event, Accepted)]
            for _ in range(3)
        ]
        after = [event for event in take(engine, Case(8, 0), tokens) if isinstance(event, Accepted)]
    assert reused == [[0, 40], [39, 40], [39, 40]]
    assert after[0].reused_tokens == 0


def test_a_case_may_fill_the_whole_context(folder: Path) -> None:
    spec = read_spec(folder)
    for case in (Case(16, 0), Case(0, 15), Case(6, 5, n_depth=5)):
        assert case.context_tokens == 16
        with start_engine(spec, plan(spec, context_tokens=16)) as engine:
            take(engine, case)


def test_the_bytes_of_a_token_are_those_that_the_plan_streams(folder: Path) -> None:
    spec, case = read_spec(folder), Case(0, 60)
    streamed = [p.unit for p in plan(spec).placements if p.home == DISK and p.unit != "embedding"]
    with start_engine(spec, plan(spec)) as engine:
        samples = measure(engine, case, RandomTokens(320, 0), Method(1), Watcher(ignore, ignore))
    host = HostWeights(spec, plan(spec))
    of_a_token = sum(bytes_to_read(spec, host, unit) for unit in streamed) + spec.embedding.nbytes // 320
    host.close()
    ring = plan(spec).ring(CPU)
    assert ring is not None
    read = samples[0].disk_bytes
    assert abs(read - case.n_gen * of_a_token) <= ring.nbytes  # readers may be so far ahead, or behind, at the ends
    row = make_row(
        Setup(spec, plan(spec), "", "", engine.n_threads, 0),
        samples,
        ceiling(spec, plan(spec), speeds(), case),
        datetime.now(UTC),
    )
    assert row.disk_bytes_per_token == pytest.approx(of_a_token, rel=ring.nbytes / (case.n_gen * of_a_token))
    assert row.ram_peak_bytes > spec.nbytes


def test_a_prediction_is_of_the_very_case(folder: Path) -> None:
    spec = read_spec(folder)
    with start_engine(spec, plan(spec), speeds()) as engine:
        take(engine, Case(8, 0))
        short, long = (
            next(event for event in take(engine, case) if isinstance(event, Expected))
            for case in (Case(4, 2), Case(32, 2))
        )
    assert short.ttft_s < long.ttft_s
    assert short.read_bytes_per_token == long.read_bytes_per_token


def test_a_closed_engine_leaves_no_memory_behind(folder: Path) -> None:
    spec = read_spec(folder)
    gone = []
    try:
        for _ in range(2):
            with start_engine(spec, plan(spec)) as engine:
                take(engine, Case(8, 2))
            gone.append(weakref.ref(engine._residency))
            del engine
            let_go()
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.unfreeze()


@pytest.mark.skipif(not shutil.which("fincore"), reason="needs fincore of util-linux")
def test_the_page_cache_is_dropped(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.read_bytes()

    def cached_bytes() -> int:
        done = subprocess.run(["fincore", "-bnro", "RES", weights], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert cached_bytes() > 0
    assert drop_page_cache(read_spec(folder))
    if subprocess.run(["stat", "-fc", "%T", folder], capture_output=True, text=True, check=True).stdout != "tmpfs\n":
        assert cached_bytes() == 0
