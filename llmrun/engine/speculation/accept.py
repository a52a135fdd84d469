"""How much of a draft is taken, so that the answer is the model's own.

Where the drafter says no probabilities, the model chooses at each place as it would have without a draft, and goes on
from the guess that is what it chose, as long as there is one. Greedily this is the longest prefix of the model's own
answer. In sampling it is, of a chain, the rule below for a draft that is certain of its token (taken with probability
p, and otherwise another one by what is left of p), with the draws of a run without drafts: so a seed gives the same
text with any draft, chain or tree, and with none.

Where the draft was drawn from q and the model would draw from p, a token x is taken with probability
min(1, p(x) / q(x)) and else drawn anew from max(0, p - q), scaled to 1. What comes out is then distributed as p
(Leviathan et al. 2023, arXiv 2211.17192, appendix A.1; Chen et al. 2023, arXiv 2302.01318), and no rule takes more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from llmrun.engine.request import Chooser
from llmrun.engine.sampling import Sampler
from llmrun.engine.speculation.draft import Draft


def accept(draft: Draft, logits: torch.Tensor, past_ids: Sequence[int], chooser: Chooser) -> list[int]:
    """The tokens after ``past_ids``: what is taken of the draft, and one more.

    Args:
        draft: ``k`` tokens.
        logits: ``(k + 1, V)``, the model's after ``past_ids`` and after each token of the draft, where that stands.
        past_ids: prompt and answer so far.
        chooser: of this answer; a ``Sampler`` where the draft has probabilities.

    Raises:
        CheckpointError: ``bad-logits``.
    """
    if draft.probabilities is None:
        return _as_chosen(draft, logits, past_ids, chooser)
    assert isinstance(chooser, Sampler), "what is given is not drawn"
    return _by_chance(draft.tokens, draft.probabilities, logits, past_ids, chooser)


def _as_chosen(draft: Draft, logits: torch.Tensor, past_ids: Sequence[int], chooser: Chooser) -> list[int]:
    chosen: list[int] = []
    guess: int | None = -1
    while guess is not None:
        chosen.append(chooser.next(logits[guess + 1], [*past_ids, *chosen]))
        guess = draft.after(guess, chosen[-1])
    return chosen


def _by_chance(
    guesses: Sequence[int], drawn_from: torch.Tensor, logits: torch.Tensor, past_ids: Sequence[int], sampler: Sampler
) -> list[int]:
    chosen: list[int] = []
    for row, guess, q in zip(logits, guesses, drawn_from, strict=False):
        p = sampler.probabilities(row, [*past_ids, *chosen])
        if sampler.chance() * q[guess] >= p[guess]:
            return [*chosen, sampler.draw(_left(p, q))]
        chosen.append(guess)
    return [*chosen, sampler.next(logits[-1], [*past_ids, *chosen])]


def _left(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """What of ``p`` a draft from ``q`` has not covered; all of it, where rounding has left nothing."""
    left = (p - q).clamp(min=0)
    return left if left.sum() > 0 else p
