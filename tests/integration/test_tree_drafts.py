"""Drafts by substitutes as trees: the tokens of a run without, wherever units are; chains where a window moves."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from placing import letters_for, opened, plan_of
from test_self_draft import plain
from test_speculation import COUNT, PROMPT, WORKLOAD, Always, answer, said, sampler
from tiny_model import FAMILIES, save

from llmrun.checkpoint import read_spec
from llmrun.engine.forward import Forward
from llmrun.engine.sampling import Sampler
from llmrun.engine.speculation.form import FirstGuesses
from llmrun.engine.speculation.passes import Speculation
from llmrun.engine.speculation.self_draft import SelfDrafter
from llmrun.engine.start import start_engine
from llmrun.events import Speculated
from llmrun.planner.plan import Slots
from llmrun.runtime.kv_cache import KVCache
from llmrun.settings import OFF, SELF, Speculating

TREE = 9


def tree_drafter(forward: Forward, cache: KVCache, chooser: Sampler) -> SelfDrafter:
    """Guesses however unsure it is: random models never are sure."""
    return SelfDrafter(
        forward, forward._residency, cache, chooser, tree_tokens=TREE, first_guesses=FirstGuesses(0.0), least=0.0
    )


def drafted(forward: Forward, cache: KVCache, chooser: Sampler, told: list[Speculated]) -> list[int]:
    drafter = tree_drafter(forward, cache, chooser)
    logits = forward.prefill(PROMPT[cache.reuse(PROMPT) :])
    tokens = Speculation(forward, cache, Always(4), told.append).tokens(logits, chooser, drafter, COUNT)
    return list(islice(tokens, COUNT))


@pytest.mark.parametrize("letters", ["dRsssssss", "dRRsRsRsR", "dR0s0s1sR"])
@pytest.mark.parametrize("family", ["llama", "llama-tied"])
def test_the_tokens_are_those_of_a_run_without(tmp_path: Path, family: str, letters: str) -> None:
    spec = read_spec(save(FAMILIES[family].build(), tmp_path))
    with opened(spec, plan_of(spec, letters_for(spec, letters), WORKLOAD, Slots(2))) as (forward, cache, _):
        for seed in (None, 3):
            expected = plain(forward, cache, sampler(seed))
            good: list[Speculated] = []
            assert drafted(forward, cache, sampler(seed), good) == expected
            assert sum(one.accepted for one in good) > 0.8 * sum(one.drafted for one in good)
        for memory in forward._residency._kept._memory.values():
            memory.zero_()
        bad: list[Speculated] = []
        assert drafted(forward, cache, sampler(seed), bad) == expected
        assert sum(one.accepted for one in bad) < sum(one.accepted for one in good)


@pytest.mark.parametrize(("family", "trees"), [("llama", True), ("mistral", False)])
def test_it_branches_where_the_cache_does(tmp_path: Path, family: str, trees: bool) -> None:
    spec = read_spec(save(FAMILIES[family].build(), tmp_path))
    with opened(spec, plan_of(spec, letters_for(spec, "dRsRssRsR"), WORKLOAD)) as (forward, cache, _):
        held = [*plain(forward, cache, sampler())]
        drafter = tree_drafter(forward, cache, sampler())
        before = list(cache.tokens)
        draft = drafter.draft([*before, held[-1]], 5)
        assert cache.tokens == before
        assert (draft.parents is not None) == trees
        assert len(draft.tokens) == (TREE if trees else 5)
        assert drafter.draft([*before, held[-1]], 5, 0.0).depth <= 1  # a pass that is not worth it is not made
        full = [*before, *held][: WORKLOAD.context_tokens - 4]
        forward.prefill(full[cache.reuse(full) :])
        assert len(drafter.draft([*cache.tokens, 5], 2).tokens) <= 3  # for more there is no room


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "seed": 8}, {"repetition_penalty": 1.3}])
def test_an_engine_gives_the_same_answers(folder: Path, settings: dict[str, object]) -> None:
    spec = read_spec(folder)
    plan = plan_of(spec, letters_for(spec, "dRsRssRsR"), WORKLOAD)
    found = []
    for method in (OFF, SELF):
        with start_engine(spec, plan, speculating=Speculating(method, 12)) as engine:
            found.append([said(answer(engine, prompt, **settings)) for prompt in (PROMPT, [*PROMPT, 5])])
    assert found[0] == found[1]


def test_where_wide_passes_are_dear_drafts_are_chains(folder: Path) -> None:
    spec = read_spec(folder)
    with opened(spec, plan_of(spec, letters_for(spec, "dRsRssRsR"), WORKLOAD)) as (forward, cache, _):
        tokens = [*PROMPT, *plain(forward, cache, sampler())][: len(cache.tokens) + 1]
        for dear in (False, True):
            drafter = tree_drafter(forward, cache, sampler())
            for wide in (False, True):
                drafter._step_s[wide].extend([0.1 + 0.9 * (wide and dear)] * 5)
            assert (drafter.draft(tokens, 5).parents is None) == dear
