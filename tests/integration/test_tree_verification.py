"""A pass over a tree of tokens: each has the logits of its own path, and the path that is kept is as if read alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch
from placing import letters_for, opened, plan_of
from test_speculation import COUNT, PROMPT, WORKLOAD, Always, sampler
from tiny_model import FAMILIES, VOCAB_SIZE, reference_logits, save

from llmrun.checkpoint import read_spec
from llmrun.engine.speculation.draft import Draft
from llmrun.engine.speculation.passes import Speculation, plain_tokens
from llmrun.events import Speculated

TREE = Draft((5, 6, 7, 8, 7, 9, 10, 11), parents=(-1, -1, 0, 0, 1, 2, 2, 5))
WIDE = {"sliding_window": 100}  # not less than the context, so no window moves


def ways(draft: Draft) -> list[list[int]]:
    """The indices on the way to the last token of the text, which is none, and to each of the draft."""
    found: list[list[int]] = [[]]
    assert draft.parents is not None
    for index, parent in enumerate(draft.parents):
        found.append([*found[parent + 1], index])
    return found


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_logits_of_a_token_are_those_of_its_path(tmp_path: Path, family: str) -> None:
    known = FAMILIES[family]
    model = known.build(**(WIDE if "sliding_window" in known.options else {}))
    spec = read_spec(save(model, tmp_path))
    with opened(spec, plan_of(spec, letters_for(spec, "dRRdRdRdR"), WORKLOAD)) as (forward, cache, _):
        forward.prefill(PROMPT)
        assert cache.branches
        logits = forward.verify([3, *TREE.tokens], TREE.sees)
        for row, way in zip(logits, ways(TREE), strict=True):
            expected = reference_logits(model, [*PROMPT, 3, *(TREE.tokens[index] for index in way)])[-1]
            assert torch.allclose(row, expected, atol=1e-5)
        kept = ways(TREE)[-1]
        cache.keep(len(PROMPT) + 1, kept)
        text = [*PROMPT, 3, *(TREE.tokens[index] for index in kept)]
        assert cache.tokens == text
        assert torch.allclose(forward.decode(4), reference_logits(model, [*text, 4])[-1], atol=1e-5)


def test_a_tree_may_be_read_pass_by_pass(folder: Path) -> None:
    spec = read_spec(folder)
    with opened(spec, plan_of(spec, letters_for(spec, "RRRRRRRRR"), WORKLOAD)) as (forward, cache, _):
        forward.prefill(PROMPT)
        at_once = forward.verify([3, *TREE.tokens], TREE.sees)
        cache.rewind(len(PROMPT))
        rows = [
            forward.verify([3, *TREE.tokens][begin:end], TREE.sees[begin:end, :end])
            for begin, end in ((0, 1), (1, 3), (3, 5), (5, 8), (8, 9))
        ]
        assert torch.allclose(torch.cat(rows), at_once, atol=1e-5)


@pytest.mark.parametrize("family", ["mistral", "gemma3", "qwen2-sliding"])
def test_where_a_window_moves_there_are_no_trees(tmp_path: Path, family: str) -> None:
    spec = read_spec(save(FAMILIES[family].build(), tmp_path))
    with opened(spec, plan_of(spec, letters_for(spec, "RRRRRRRRR"), WORKLOAD)) as (_, cache, _):
        assert not cache.branches


class Bushy:
    """Knows the answer; at each place it is among a few guesses, if it is not left out."""

    def __init__(self, answer: Sequence[int], right: float) -> None:
        self._answer = [*PROMPT, *answer]
        self._right = right
        self._random = Random(4)

    def draft(self, tokens: Sequence[int], count: int, most_doubt: float = math.inf) -> Draft:
        found: list[int] = []
        parents: list[int] = []
        parent = -1
        for token in self._answer[len(tokens) : len(tokens) + count // 2]:
            guesses = [(token + wrong) % VOCAB_SIZE for wrong in (1, 2)]
            if self._random.random() < self._right:
                guesses.insert(self._random.randrange(3), token)
            parents += [parent] * len(guesses)
            found += guesses
            parent = len(found) - len(guesses) + (guesses.index(token) if token in guesses else 0)
        return Draft(tuple(found), parents=tuple(parents))


@pytest.mark.parametrize("letters", ["RRRRRRRRR", "dRRdRdRdR", "d00ppqq10", "1R1x0x0R1"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_tokens_are_those_of_a_run_without_drafts(tmp_path: Path, family: str, letters: str) -> None:
    spec = read_spec(save(FAMILIES[family].build(), tmp_path))
    with opened(spec, plan_of(spec, letters_for(spec, letters), WORKLOAD)) as (forward, cache, _):
        for seed in (None, 3):
            logits = forward.prefill(PROMPT[cache.reuse(PROMPT) :])
            expected = list(islice(plain_tokens(forward, cache, logits, sampler(seed)), COUNT))
            for right in (0.0, 0.7, 1.0):
                told: list[Speculated] = []
                logits = forward.prefill(PROMPT[cache.reuse(PROMPT) :])
                speculation = Speculation(forward, cache, Always(9), told.append)
                tokens = speculation.tokens(logits, sampler(seed), Bushy(expected, right), COUNT)
                assert list(islice(tokens, COUNT)) == expected
                assert sum(1 + one.accepted for one in told) == COUNT - 1
            assert all(one.accepted == one.drafted for one in told)
