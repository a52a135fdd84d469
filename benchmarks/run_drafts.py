"""Answer prompts greedily with drafts or without, or check answers in one pass; speculation.py starts this.

    python benchmarks/run_drafts.py MODEL --ram 4GiB --how self --new-tokens 64 --asked PROMPTS.json
    python benchmarks/run_drafts.py MODEL --ram 4GiB --how off --check --asked TEXTS.json

The files hold JSON lists, of prompts or of the fields of `Text`; one line of JSON comes out. Answers go on after the
model's end token, so that all are as long.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common import add_machine, argument_parser, note

from llmrun.environment import begin_again_for_models
from llmrun.settings import Speculating

if TYPE_CHECKING:
    import torch

    from llmrun.engine.engine import Engine


@dataclass(frozen=True)
class Sample:
    """One answer."""

    prompt_ids: list[int]
    token_ids: list[int]
    ttft_s: float
    tpot_s: float
    itl_max_s: float
    predicted_tpot_s: float | None
    predicted_tokens_per_pass: float | None
    tokens_per_pass: float | None
    acceptance: float | None
    draft_s: float
    verify_s: float
    peak_bytes: int


@dataclass(frozen=True)
class Text:
    """An answer that is checked from the token ``since`` on; ``rival`` is what another answer has there, if any."""

    prompt_ids: list[int]
    token_ids: list[int]
    since: int
    rival: int | None


@dataclass(frozen=True)
class Miss:
    """A token that is not the likeliest: how far below the likeliest, or the rival, its logit is, and the largest."""

    at: int
    gap: float
    largest: float

    @property
    def is_near(self) -> bool:
        """Whether rounding decides between the two: they are no more than a step of bf16 apart, which has 8 digits."""
        return abs(self.gap) <= 2.0 ** (math.frexp(self.largest)[1] - 8)


def answer(engine: Engine, prompt: str, new_tokens: int) -> Sample:
    """A greedy answer and its figures."""
    from llmrun.engine.session import Message
    from llmrun.events import Token
    from llmrun.metrics import MetricsState, apply
    from llmrun.settings import SamplingSettings

    prompt_ids = engine.tokenizer.encode_chat([Message("user", prompt)])
    sampling = SamplingSettings(temperature=0, max_tokens=new_tokens)
    state, token_ids = MetricsState(), []
    for event in engine.generate(prompt_ids, sampling, engine.tokenizer.stream()):
        state = apply(state, event)
        if isinstance(event, Token):
            token_ids.append(event.token_id)
    done, expected = state.speculation, state.expected
    return Sample(
        prompt_ids,
        token_ids,
        state.ttft_s or 0.0,
        state.tpot_s or 0.0,
        state.itl_max_s or 0.0,
        expected.tpot_s if expected else None,
        expected.tokens_per_pass if expected else None,
        done.tokens_per_pass if done else None,
        done.acceptance if done else None,
        done.draft_s if done else 0.0,
        done.verify_s if done else 0.0,
        state.memory["cpu"].peak_bytes,
    )


def check(engine: Engine, text: Text) -> Iterator[Miss]:
    """The tokens of an answer that the model, given all before them, would not have said."""
    for at, logits in enumerate(logits_before(engine, text), start=text.since):
        own, likeliest = text.token_ids[at], int(logits.argmax())
        other = text.rival if at == text.since and text.rival is not None else likeliest
        if other != own:
            yield Miss(at, float(logits[other] - logits[own]), float(logits[likeliest]))


def logits_before(engine: Engine, text: Text) -> Iterator[torch.Tensor]:
    """Logits ``(V,)`` where each token from ``since`` on was chosen.

    The prompt goes in at once, the answer in passes of as many tokens as are computed with like one.
    """
    import torch

    from llmrun.kernels.multiply import FEW_TOKENS

    prompt, answer = text.prompt_ids, text.token_ids[:-1]
    with torch.inference_mode():
        engine._cache.rewind(0)
        found = [engine._forward.prefill(prompt)]
        for begin in range(0, len(answer), FEW_TOKENS):
            found += engine._forward.verify(answer[begin : begin + FEW_TOKENS])
    yield from found[text.since :]


def add_run(parser: argparse.ArgumentParser) -> None:
    """What this takes, and what is the same for all that starts it."""
    parser.add_argument("--how", default="auto", help="the drafts, as `--speculate` has them; compared with `off`")
    parser.add_argument("--draft-tokens", type=int, default=Speculating().draft_tokens)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--new-tokens", type=int)


def main() -> None:
    """Run the model over what is asked."""
    begin_again_for_models()  # as the command does
    from llmrun.cli.run import RunSettings, start

    parser = argument_parser(__doc__)
    add_machine(parser)
    add_run(parser)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--asked", type=Path, required=True, metavar="FILE")
    args = parser.parse_args()
    asked = json.loads(args.asked.read_text())
    how = Speculating(args.how, args.draft_tokens)
    with start(RunSettings(args.model, args.ram, 0, args.context, speculating=how), note) as running:
        engine = running.engine
        if args.check:
            print(json.dumps([[asdict(miss) for miss in check(engine, Text(**text))] for text in asked]))
            return
        engine.tokenizer.end_token_ids = frozenset()
        print(json.dumps([asdict(answer(engine, prompt, args.new_tokens)) for prompt in asked]))


if __name__ == "__main__":
    main()
