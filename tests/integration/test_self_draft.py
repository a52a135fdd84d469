"""Drafts by copies in fewer bits of what streams: the tokens of a run without, whatever the copies say."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from placing import letters_for, opened, plan_of
from safetensors.torch import load_file
from test_speculation import COUNT, PROMPT, WORKLOAD, Always, answer, said, sampler
from tiny_model import FAMILIES, save

from llmrun.checkpoint import read_spec
from llmrun.engine.calibration import column_importance
from llmrun.engine.forward import Forward
from llmrun.engine.sampling import Sampler
from llmrun.engine.speculation.passes import Speculation, plain_tokens
from llmrun.engine.speculation.self_draft import SelfDrafter
from llmrun.engine.start import start_engine
from llmrun.errors import Interrupted
from llmrun.events import LayerDone, Speculated
from llmrun.formats import weight_format
from llmrun.planner.plan import Drafting, Prediction, Slots
from llmrun.quantize.rounding import quantise
from llmrun.runtime.host import HostWeights
from llmrun.runtime.kept import KeptWeights
from llmrun.runtime.kv_cache import KVCache
from llmrun.settings import AUTO, OFF, SELF, Speculating


def plain(forward: Forward, cache: KVCache, chooser: Sampler) -> list[int]:
    logits = forward.prefill(PROMPT[cache.reuse(PROMPT) :])
    return list(islice(plain_tokens(forward, cache, logits, chooser), COUNT))


def drafter_of(forward: Forward, cache: KVCache, chooser: Sampler) -> SelfDrafter:
    """Guesses however unsure it is: random models never are sure."""
    return SelfDrafter(forward, forward._residency, cache, chooser)


def drafted(forward: Forward, cache: KVCache, chooser: Sampler, told: list[Speculated]) -> list[int]:
    drafter = drafter_of(forward, cache, chooser)
    logits = forward.prefill(PROMPT[cache.reuse(PROMPT) :])
    tokens = Speculation(forward, cache, Always(7), told.append).tokens(logits, chooser, drafter, COUNT)
    return list(islice(tokens, COUNT))


def right(told: Sequence[Speculated]) -> float:
    return sum(one.accepted for one in told) / sum(one.drafted for one in told)


@pytest.mark.parametrize("slots", [Slots(1), Slots(3)])
@pytest.mark.parametrize("letters", ["dRsssssss", "dRRsRsRsR", "dR0s0s1sR"])
@pytest.mark.parametrize("family", ["llama", "llama-tied", "mistral", "gemma3"])
def test_the_tokens_are_those_of_a_run_without(tmp_path: Path, family: str, letters: str, slots: Slots) -> None:
    spec = read_spec(save(FAMILIES[family].build(), tmp_path))
    with opened(spec, plan_of(spec, letters_for(spec, letters), WORKLOAD, slots)) as (forward, cache, _):
        for seed in (None, 3):
            expected = plain(forward, cache, sampler(seed))
            good: list[Speculated] = []
            assert drafted(forward, cache, sampler(seed), good) == expected
            assert right(good) > 0.7
    with opened(spec, plan_of(spec, letters_for(spec, letters), WORKLOAD, slots)) as (forward, cache, _):
        first, bad = list[Speculated](), list[Speculated]()
        assert drafted(forward, cache, sampler(seed), first) == expected
        assert first[0].drafted == 0  # that pass makes what the others draft with
        assert all(one.drafted for one in first[1:-1])
        for memory in forward._residency._kept._memory.values():
            memory.zero_()
        assert drafted(forward, cache, sampler(seed), bad) == expected
        assert right(bad) < right(first)


def test_drafts_read_nothing_and_take_no_slot(folder: Path) -> None:
    spec = read_spec(folder)
    events: list[object] = []
    plan = plan_of(spec, letters_for(spec, "dRsRssRsR"), WORKLOAD, Slots(2))
    with opened(spec, plan, emit=events.append) as (forward, cache, host):
        forward.prefill(PROMPT)
        token = int(forward.decode(5).argmax())
        drafter, tokens = drafter_of(forward, cache, sampler()), [*cache.tokens, token]
        done = sum(isinstance(event, LayerDone) for event in events)
        first = drafter.draft(tokens, 6)
        ready, _ = host.ring()
        host.acquire("layer 0", lambda: False)  # the verification finds the first unit, as if nothing had been drafted
        assert ready <= 2
        assert drafter.draft(tokens, 6) == first
        assert len(first.tokens) == 6
        assert cache.tokens == tokens[:-1]
        assert sum(isinstance(event, LayerDone) for event in events) == done


def test_a_draft_that_is_stopped_leaves_all_as_it_was(folder: Path) -> None:
    spec, cancel = read_spec(folder), threading.Event()
    with opened(spec, plan_of(spec, letters_for(spec, "dRsRssRsR"), WORKLOAD), cancel=cancel) as (forward, cache, _):
        expected = plain(forward, cache, sampler())
        held = list(cache.tokens)
        cancel.set()
        with pytest.raises(Interrupted):
            drafter_of(forward, cache, sampler()).draft([*held, 3], 4)
        cancel.clear()
        assert cache.tokens == held
        assert drafted(forward, cache, sampler(), []) == expected


def test_nothing_is_drafted_before_all_copies_are_made(folder: Path) -> None:
    spec = read_spec(folder)
    with opened(spec, plan_of(spec, letters_for(spec, "dRsRssRsR"), WORKLOAD)) as (forward, cache, _):
        forward.prefill(PROMPT)
        assert drafter_of(forward, cache, sampler()).draft([*cache.tokens, 3], 4).tokens == ()
        forward.decode(3)
        assert drafter_of(forward, cache, sampler()).draft([*cache.tokens, 3], 4).tokens != ()
    with opened(spec, plan_of(spec, letters_for(spec, "dRsRdsRsR"), WORKLOAD)) as (forward, cache, _):
        forward.prefill(PROMPT)
        forward.decode(3)
        assert drafter_of(forward, cache, sampler()).draft([*cache.tokens, 3], 4).tokens == ()


def test_copies_are_made_in_as_many_passes_as_hide_it(folder: Path) -> None:
    spec = read_spec(folder)
    plan = plan_of(spec, letters_for(spec, "dRsRssRsR"), WORKLOAD)
    with opened(spec, plan) as (forward, cache, _):
        forward.prefill(PROMPT)
        for token in (3, 4, 5):
            forward.decode(token)
        at_once = drafter_of(forward, cache, sampler()).draft([*cache.tokens, 6], 12)
    drafting = Drafting(4, 0.8, draft_s=1.0, pass_s=3.0, making_s=5.0)
    assert drafting.making_passes == 3
    prediction = Prediction(1.0, 1.0, 1.0, 1.0, {}, (), {}, drafting)
    with opened(spec, replace(plan, prediction=prediction)) as (forward, cache, _):
        forward.prefill(PROMPT)
        for token in (3, 4, 5):
            assert drafter_of(forward, cache, sampler()).draft([*cache.tokens, token], 4).tokens == ()
            forward.decode(token)
        in_parts = drafter_of(forward, cache, sampler()).draft([*cache.tokens, 6], 12)
        assert in_parts.tokens == at_once.tokens
        assert in_parts.doubts == pytest.approx(at_once.doubts)


def test_copies_go_by_what_the_prompt_met(folder: Path) -> None:
    spec = read_spec(folder)
    long, short = [number % 50 for number in range(24)], [number % 50 for number in range(12)]
    importance = column_importance(spec, long, done=lambda unit: None)
    weights = {tensor.name: tensor for unit in spec.units for tensor in unit.tensors}
    workload = replace(WORKLOAD, prefill_chunk_tokens=64)
    for prompt in (long, short):
        with opened(spec, plan_of(spec, letters_for(spec, "dRsRssRsR"), workload)) as (forward, _, _):
            forward.prefill(prompt)
            forward.decode(3)
            kept = forward._residency._kept
            for unit, there in kept._layouts.items():
                for view in there.views:
                    tensor = weights[view.name]
                    if view.dtype == tensor.dtype:
                        continue
                    values = load_file(spec.path(tensor.file))[view.name]
                    alike, weighted = (
                        quantise(weight_format(view.dtype), values, each) for each in (None, importance[view.name])
                    )
                    made = kept._memory[unit][view.buffer_offset :][: view.nbytes]
                    same = [float((made == each.flatten()).float().mean()) for each in (alike, weighted)]
                    if prompt is long and unit != "head":
                        assert same[1] > max(0.95, same[0] + 0.02)
                    else:  # of a few tokens nothing is concluded
                        assert same[0] == 1


def test_what_is_allocated_is_what_the_account_says(folder: Path) -> None:
    spec = read_spec(folder)
    plan = plan_of(spec, letters_for(spec, "dRsRssR8R"), WORKLOAD)
    kept, host = KeptWeights(spec, plan), HostWeights(spec, plan)
    resident = sum(memory.nbytes for memory in host._resident.values())
    host.close()
    lines = {line.label: line.nbytes for line in plan.memory[0].lines}
    assert kept.nbytes + resident == lines["weights"] + lines["substitutes"]
    assert lines["substitutes"] > 0
    assert "rounding" in lines


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "seed": 8}, {"repetition_penalty": 1.3}])
def test_an_engine_does_so_where_the_plan_has_copies(folder: Path, settings: dict[str, object]) -> None:
    spec = read_spec(folder)
    plan = plan_of(spec, letters_for(spec, "dRsRssRsR"), WORKLOAD)
    found = []
    for method in (OFF, AUTO, SELF):
        with start_engine(spec, plan, speculating=Speculating(method, 5)) as engine:
            events = [*answer(engine, PROMPT, **settings), *answer(engine, [*PROMPT, 5], **settings)]
            found.append(said(events))
            assert any(isinstance(event, Speculated) for event in events) == (method != OFF)
            right_, tried = engine.guesses
            assert 0 <= right_ <= tried
            assert bool(tried) == any(isinstance(event, Speculated) and event.drafted for event in events)
    assert found[0] == found[1] == found[2]


def test_a_draft_ends_where_its_model_is_not_sure(folder: Path) -> None:
    spec = read_spec(folder)
    with opened(spec, plan_of(spec, letters_for(spec, "dRsRssRsR"), WORKLOAD)) as (forward, cache, _):
        logits = forward.decode(int(forward.prefill(PROMPT).argmax()))
        tokens = [*cache.tokens, int(logits.argmax())]
        drafter = SelfDrafter(forward, forward._residency, cache, sampler())
        whole = drafter.draft(tokens, 12)
        assert len(whole.tokens) == len(whole.doubts) == 12
        part = drafter.draft(tokens, 12, sum(whole.doubts[:5]) + 1e-4)
        assert part.tokens == whole.tokens[:5]
        assert drafter.draft(tokens, 12, 0.0).tokens == ()
