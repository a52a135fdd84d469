"""Trees of guesses: the likeliest tokens by what the drafter says, read a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp
from random import Random

import pytest
import torch
from test_speculation_accept import MIXED, OTHER, PROMPT, TARGET, Model, sampler

from llmrun.engine.sampling import Sampler
from llmrun.engine.speculation.chain import draft_chain
from llmrun.engine.speculation.tree import LEAST_SHARPNESS, LEAVES, Sharpness, Tree, draft_tree

Read = Callable[[Sequence[int], torch.Tensor], torch.Tensor]


def reader(model: Model, text: Sequence[int], widths: list[int]) -> Read:
    """A model that is read as the cache is: rows see those that the mask says."""
    said: list[int] = []

    def read(tokens: Sequence[int], sees: torch.Tensor) -> torch.Tensor:
        said.extend(tokens)
        widths.append(len(tokens))
        assert sees.shape == (len(tokens), len(said))
        ways = [[token for token, seen in zip(said, row, strict=True) if seen] for row in sees.tolist()]
        return torch.stack([model([*text[:-1], *way]) for way in ways])

    return read


def tree(
    model: Model, chooser: Sampler, text: Sequence[int], most: int = 7, **options: float
) -> tuple[Tree, list[int]]:
    widths: list[int] = []
    values = {"sharpness": 1.0, "least": 0.0, **options}
    return draft_tree(reader(model, text, widths), text, 6, most, chooser, **values), widths  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"seed": 3}, {"seed": 4, "repetition_penalty": 1.7}])
@pytest.mark.parametrize("most", [1, 2, 7, 15])
def test_the_likeliest_tokens_are_verified(options: dict[str, float], most: int) -> None:
    for first in range(4):
        text = [first, 1]
        grown, widths = tree(OTHER, sampler(**options), text, most)  # type: ignore[arg-type]
        draft = grown.draft(most, 0.0)
        assert len(draft.tokens) == most
        parents = draft.parents or tuple(range(-1, most - 1))
        assert all(parent < node for node, parent in enumerate(parents))
        assert len(set(zip(parents, draft.tokens, strict=True))) == most
        assert sum(widths) <= most + 1
        assert max(widths) <= LEAVES
        assert widths[0] == 1
        best = grown.best(most, 0.0)
        assert min(grown.chances[node] for node in best) >= max(
            (chance for node, chance in enumerate(grown.chances) if node not in (0, *best)), default=0.0
        )


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"seed": 3}, {"seed": 4, "repetition_penalty": 1.7}])
def test_of_a_perfect_drafter_it_is_the_chain(options: dict[str, float]) -> None:
    grown, widths = tree(TARGET, sampler(**options), PROMPT, 6, sharpness=1e4, least=0.01)  # type: ignore[arg-type]
    said = list(PROMPT[:-1])

    def decode(token: int) -> torch.Tensor:
        said.append(token)
        return TARGET(said)

    draft = grown.draft(6, 0.01)
    assert draft.tokens == draft_chain(decode, PROMPT, 6, sampler(**options)).tokens  # type: ignore[arg-type]
    assert draft.parents is None
    assert widths == [1] * 6


def test_the_sum_of_doubts_is_that_of_the_last_place() -> None:
    grown, _ = tree(MIXED, sampler(temperature=0.0), PROMPT)
    draft = grown.draft(7, 0.0)
    assert len(draft.doubts) == draft.depth
    best = grown.best(7, 0.0)
    deepest = sum(grown.chances[node] for node in best if len(grown.way(node)) == draft.depth)
    assert exp(-sum(draft.doubts)) == pytest.approx(deepest)


def test_it_ends_where_more_of_it_is_not_worth_a_pass() -> None:
    chooser = sampler(temperature=0.0)
    passes = [len(tree(MIXED, chooser, PROMPT, 15, worth=worth)[1]) for worth in (0.0, 0.5, 0.9, 1.1)]
    assert passes == sorted(passes, reverse=True)
    assert passes[0] > passes[2] > passes[3] == 0
    assert tree(MIXED, chooser, PROMPT, 15, worth=1.1)[0].draft(15, 0.0).tokens == ()


def test_more_is_right_of_a_tree_than_of_a_chain_of_as_many_tokens() -> None:
    chooser, found = sampler(temperature=0.0), {"tree": 0, "chain": 0}
    for first in range(4):
        for second in range(4):
            text = [first, second]
            answer = list(text)
            for _ in range(8):
                answer.append(int(TARGET(answer).argmax()))
            drafts = {
                name: tree(MIXED, chooser, text, 6, sharpness=sharpness, least=least)[0].draft(6, least)
                for name, sharpness, least in (("tree", 1.0, 0.0), ("chain", 1e4, 0.5))
            }
            for name, draft in drafts.items():
                found[name] += len(draft.path(answer[2:]))
            assert drafts["chain"].parents is None
    assert found["tree"] > found["chain"] > 0


def test_what_came_of_it_is_told_as_far_as_it_was_guessed() -> None:
    grown = Tree(9)
    grown.add(0, [5, 6], [0.7, 0.2])
    grown.add(2, [7, 8], [0.5, 0.4])
    assert grown.told([6, 7, 1]) == [(0.7, False), (0.5, True)]
    assert grown.told([5, 7]) == [(0.7, True)]
    assert grown.told([4, 7]) == [(0.7, False)]
    assert grown.told([]) == []


@pytest.mark.parametrize("right", [0.5, 0.8])
def test_sharpness_follows_how_often_first_guesses_are_right(right: float) -> None:
    source, sharpness = Random(3), Sharpness()
    said = []
    for _ in range(2000):
        share = float((sharpness.value * torch.tensor([0.0, -0.4, -0.7, -1.0])).softmax(-1)[0])
        sharpness.learn([(share, source.random() < right)])
        said.append(share)
    assert sum(said[500:]) / 1500 == pytest.approx(right, abs=0.03)


def test_sharpness_stays_within_bounds() -> None:
    sharpness = Sharpness()
    sharpness.learn([(0.9, False)] * 1000)
    assert sharpness.value == LEAST_SHARPNESS
