"""Drafts by a model: token after token, each chosen from what the model that drafts says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from llmrun.engine.sampling import Sampler
from llmrun.engine.speculation.draft import Draft


def draft_chain(
    decode: Callable[[int], torch.Tensor], tokens: Sequence[int], count: int, sampler: Sampler, *, reach: float = 0.0
) -> Draft:
    """``count`` tokens after ``tokens``, chosen as ``sampler`` chooses those of the answer.

    With a seed the draft is drawn with the very noise that the answer's tokens will be drawn with: torch draws a token
    as the argmax of p over exponential noise, so near distributions choose alike (the coupling of Daliri et al. 2024,
    arXiv 2408.07978), and the text does not depend on the drafts. Without one it is drawn with noise of its own and
    says from what, for more of it to be taken.

    Args:
        decode: logits ``(V,)`` after one more token, in the drafting model; first asked for the last of ``tokens``.
        sampler: of the answer; with a seed, or greedily, its state is not changed.
        reach: the draft ends before a token if the likeliest one has less than this probability, by the drafting model,
            times those of the places before it. What is drawn there has no say in it, or the answer's tokens were drawn
            from something else than the model says.
    """
    coupled = sampler.greedy or sampler.repeatable
    guesser = sampler.ahead() if coupled else sampler
    drafted: list[int] = []
    rows: list[torch.Tensor] = []
    token, reached = tokens[-1], 1.0
    for _ in range(count):
        logits = decode(token)
        reached *= float(logits.softmax(-1).max()) if reach else 1.0
        if reached < reach:
            break
        past = [*tokens, *drafted]
        if coupled:
            token = guesser.next(logits, past)
        else:
            rows.append(sampler.probabilities(logits, past))
            token = sampler.draw(rows[-1])
        drafted.append(token)
    return Draft(tuple(drafted), None if coupled or not drafted else torch.stack(rows))
