"""Drafts by a model: token after token, each chosen from what the model that drafts says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from llmrun.engine.sampling import Sampler
from llmrun.engine.speculation.draft import Draft


def draft_chain(
    decode: Callable[[int], torch.Tensor],
    tokens: Sequence[int],
    count: int,
    sampler: Sampler,
    *,
    most_doubt: float = math.inf,
) -> Draft:
    """``count`` tokens after ``tokens``, chosen as ``sampler`` chooses those of the answer.

    With a seed the draft is drawn with the very noise that the answer's tokens will be drawn with: torch draws a token
    as the argmax of p over exponential noise, so near distributions choose alike (the coupling of Daliri et al. 2024,
    arXiv 2408.07978), and the text does not depend on the drafts. Without one it is drawn with noise of its own and
    says from what, for more of it to be taken.

    Args:
        decode: logits ``(V,)`` after one more token, in the drafting model; first asked for the last of ``tokens``.
        sampler: of the answer; with a seed, or greedily, its state is not changed.
        most_doubt: of a greedy draft, which ends before a token that would bring the sum of its doubts above this.
            Where tokens are drawn it does not end early: an unlikely one may be drawn by both models.
    """
    coupled = sampler.greedy or sampler.repeatable
    guesser = sampler.ahead() if coupled else sampler
    drafted: list[int] = []
    doubts: list[float] = []
    rows: list[torch.Tensor] = []
    token = tokens[-1]
    for _ in range(count):
        logits = decode(token)
        if sampler.greedy:
            doubts.append(-float(logits.log_softmax(-1).max()))
            if sum(doubts) > most_doubt:
                break
        past = [*tokens, *drafted]
        if coupled:
            token = guesser.next(logits, past)
        else:
            rows.append(sampler.probabilities(logits, past))
            token = sampler.draw(rows[-1])
        drafted.append(token)
    return Draft(
        tuple(drafted),
        None if coupled or not drafted else torch.stack(rows),
        doubts=tuple(doubts[: len(drafted)]),
        guesses=max(len(drafted), len(doubts)),
    )
