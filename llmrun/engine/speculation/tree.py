"""Drafts by a model as trees: the likeliest tokens at each place, so that a wrong first guess does not end the draft.

A tree grows pass by pass over the model that drafts: its likeliest leaves, a few at once since weights are read once
for all of them, get their likeliest next tokens. How likely a leaf is, is the product of the shares on the way there;
the likeliest tokens in all are verified (EAGLE-2, Li et al. 2024, arXiv 2406.16858; that leaves may be of any depth as
in SpecExec, Svirschevski et al. 2024, arXiv 2406.02532). It ends where more of it could hardly be right.

What a share is. The model chooses, by its own logits and the noise of that place, the token with the greatest sum of
both (the Gumbel-max trick; greedily there is no noise), and draws with that noise whatever was guessed. The drafting
model, with nearly the same logits and the same noise, has nearly the same sums; if they differ by Gumbel noise of scale
1 / s, a token is the model's choice with probability softmax(s * sums). So s, the ``sharpness``, says how good the
guesses are: where it is great the likeliest token is all, and the tree a chain. It is learnt from what came of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from math import exp, log

import torch

from llmrun.engine.sampling import Sampler
from llmrun.engine.speculation.draft import Draft

LEAVES = 4
"""So many grow in a pass, at the most."""

GUESSES = 4
"""Tokens that each of them gets."""

SHARPNESS = 2.0
"""At first: of copies in few bits."""

LEAST_SHARPNESS, MOST_SHARPNESS = 0.5, 20.0

RATE = 0.1
"""How fast it follows what was seen: a first guess that was right or wrong is worth a few percent."""

LEAST = 0.01
"""Guesses that are less likely to be right are not verified."""

GROWS = 5
"""So many times that chance a leaf has to have to grow: others make the tree wide where it had better be deep."""


class Tree:
    """Tokens that may come after a text; 0 is the last token of the text, the others are numbered as they came."""

    def __init__(self, root: int) -> None:
        self.tokens = [root]
        self.parents = [-1]
        self.shares = [1.0]  # how likely a token is where the one before it is right
        self.chances = [1.0]  # and together with all before it
        self.grown: dict[int, range] = {}  # of what has grown, the tokens that came of it, the likeliest first

    def add(self, leaf: int, tokens: Sequence[int], shares: Sequence[float]) -> None:
        """Let a leaf grow: ``tokens`` may come after it, the likeliest first."""
        first = len(self.tokens)
        self.tokens += tokens
        self.parents += [leaf] * len(tokens)
        self.shares += shares
        self.chances += [min(1.0, share) * self.chances[leaf] for share in shares]
        self.grown[leaf] = range(first, len(self.tokens))

    def best(self, most: int, least: float) -> list[int]:
        """The ``most`` likeliest tokens, each after the one that it follows; none less likely than ``least``."""
        likely = (node for node in range(1, len(self.tokens)) if self.chances[node] >= least)
        return sorted(heapq.nlargest(most, likely, key=lambda node: (self.chances[node], -node)))

    def leaves(self, most: int, width: int, least: float) -> list[int]:
        """The likeliest ones, ``width`` at the most, of those that may bring one of the ``most`` likeliest tokens."""
        fresh = [node for node in (0, *self.best(most, least)) if node not in self.grown]
        return sorted(heapq.nlargest(width, fresh, key=lambda node: (self.chances[node], -node)))

    def way(self, node: int) -> list[int]:
        """The nodes from the root, without it, to one."""
        way: list[int] = []
        while node:
            way.append(node)
            node = self.parents[node]
        return way[::-1]

    def sees(self, leaves: Sequence[int]) -> torch.Tensor:
        """Which of all that has grown and of ``leaves``, which grow now, each of these attends to."""
        row_of = {node: row for row, node in enumerate([*self.grown, *leaves])}
        sees = torch.zeros(len(leaves), len(row_of), dtype=torch.bool)
        for row, leaf in enumerate(leaves):
            sees[row, [row_of[node] for node in (0, *self.way(leaf))]] = True
        return sees

    def draft(self, most: int, least: float) -> Draft:
        """The ``most`` likeliest tokens, none less likely than ``least``, to be verified."""
        nodes = self.best(most, least)
        number = {node: index for index, node in enumerate([0, *nodes], -1)}
        parents = tuple(number[self.parents[node]] for node in nodes)
        chain = parents == tuple(range(-1, len(nodes) - 1))
        tokens = tuple(self.tokens[node] for node in nodes)
        return Draft(tokens, parents=None if chain else parents, doubts=self._doubts(nodes))

    def _doubts(self, nodes: Sequence[int]) -> tuple[float, ...]:
        """Of each place that any of these stand at one is right, or not, where one before it is."""
        chances = [1.0]
        for node in nodes:
            place = len(self.way(node))
            chances += [0.0] * (place + 1 - len(chances))
            chances[place] += self.chances[node]
        return tuple(max(0.0, log(before / here)) for before, here in pairwise(chances))

    def told(self, text: Sequence[int]) -> list[tuple[float, bool]]:
        """For each place of the ``text`` that came, as far as it was guessed: the first guess's share, if it was right.

        Of the tree as it grew, whether its tokens were verified or not.
        """
        told, node = [], 0
        for token in text:
            guesses = self.grown.get(node)
            if not guesses:
                break
            told.append((self.shares[guesses[0]], self.tokens[guesses[0]] == token))
            found = next((guess for guess in guesses if self.tokens[guess] == token), None)
            if found is None:
                break
            node = found
        return told


class Sharpness:
    """Learns ``value``, how good the guesses are, until first guesses are right as often as they are said to be."""

    def __init__(self) -> None:
        self.value = SHARPNESS

    def learn(self, told: Iterable[tuple[float, bool]]) -> None:
        """From what ``Tree.told`` says."""
        for share, right in told:
            value = self.value * exp(RATE * (right - share))
            self.value = min(MOST_SHARPNESS, max(LEAST_SHARPNESS, value))


def draft_tree(
    read: Callable[[Sequence[int], torch.Tensor], torch.Tensor],
    text: Sequence[int],
    places: int,
    most: int,
    sampler: Sampler,
    sharpness: float,
    *,
    worth: float = 0.0,
    least: float = LEAST,
) -> Tree:
    """A tree of tokens after ``text``, from at most ``places`` passes over the drafting model.

    Args:
        read: a pass over tokens in a tree, as ``Forward.verify`` has it; first over the last of ``text``.
        most: so many of its tokens may be verified; no more are read, after that one.
        sampler: of the answer; its state is not changed.
        sharpness: as said above.
        worth: it ends where the chance that one of the leaves to grow next is right is less.
        least: no token will be verified that is right with less chance.
    """
    tree, next_noise = Tree(text[-1]), sampler.noise_ahead()
    noise: list[torch.Tensor] = []  # by place
    for _ in range(places):
        leaves = tree.leaves(most, min(LEAVES, most + 1 - len(tree.grown)), GROWS * least)
        if not leaves or sum(tree.chances[leaf] for leaf in leaves) < worth:
            break
        rows = read([tree.tokens[leaf] for leaf in leaves], tree.sees(leaves))
        for leaf, logits in zip(leaves, rows, strict=True):
            way = tree.way(leaf)
            if len(way) == len(noise):
                noise.append(next_noise(len(logits)))
            past = [*text, *(tree.tokens[node] for node in way)]
            sums = sampler.leanings(logits, past, noise[len(way)])
            shares, tokens = (sharpness * sums).softmax(-1).topk(min(GUESSES, len(sums)))
            tree.add(leaf, tokens.tolist(), shares.tolist())
    return tree
