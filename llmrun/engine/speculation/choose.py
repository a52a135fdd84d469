"""Which drafter is meant by ``--speculate``, and how much it drafts at first."""

from __future__ import annotations

from functools import partial

from llmrun.engine.loaded import LoadedModel
from llmrun.engine.speculation.costs import PRIOR, Prior
from llmrun.engine.speculation.draft import MakeDrafter
from llmrun.engine.speculation.form import FirstGuesses
from llmrun.engine.speculation.model_draft import ModelDrafter
from llmrun.engine.speculation.ngram import NgramDrafter
from llmrun.engine.speculation.self_draft import SelfDrafter
from llmrun.engine.speculation.shape import Shape
from llmrun.engine.speculation.tree import Sharpness
from llmrun.planner.plan import Plan
from llmrun.settings import NGRAM, Speculating


def drafters(
    asked: Speculating, model: LoadedModel, draft_model: LoadedModel | None, shape: Shape
) -> MakeDrafter | None:
    """What makes the drafter of each answer of ``model``; ``None`` where there is to be none."""
    if _most(asked, model.plan) < 1:
        return None
    if draft_model:
        return partial(ModelDrafter, draft_model, model.spec.vocab_size)
    if asked.method == NGRAM:
        return lambda sampler: NgramDrafter()
    if not model.plan.drafts(asked):
        return None
    return partial(
        SelfDrafter,
        model.forward,
        model.residency,
        model.cache,
        tree_tokens=_most(asked, model.plan),
        sharpness=Sharpness(),  # what these learn lasts from answer to answer
        first_guesses=FirstGuesses(),
        expected_s=shape.expected_s,
    )


def shape_of(asked: Speculating, plan: Plan) -> Shape:
    """Begins with what the plan expects of substitutes, or of another model, where they draft."""
    drafting = plan.prediction.drafting if plan.prediction and plan.drafts(asked) else None
    prior = PRIOR
    if drafting:
        each_s = drafting.draft_s / drafting.draft_tokens
        alone_s = drafting.alone_s or drafting.verify_s
        wide_share = max(1.0, drafting.verify_s / alone_s)
        prior = Prior(drafting.draft_tokens, drafting.acceptance, each_s / alone_s, drafting.alone_s, wide_share)
    return Shape(max(1, _most(asked, plan)), prior)


def _most(asked: Speculating, plan: Plan) -> int:
    """As many as a pass may have, and as there is memory for where the plan has counted it."""
    counted = plan.workload.draft_tokens or asked.draft_tokens
    return min(asked.draft_tokens, counted, plan.workload.prefill_chunk_tokens - 1)
