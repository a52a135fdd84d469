"""Several tokens a pass: greedy answers with and without drafts, in turns, on the same memory.

    python benchmarks/speculation.py MODEL --ram 4GiB                   # 20 prompts of four kinds, 128 new tokens
    python benchmarks/speculation.py MODEL --ram 4GiB --brief           # 8 prompts, 64 new tokens
    ... --how self --together 5 --machine 4GiB --disk 1GiB --json samples.json

Each process answers ``--together`` prompts (default 1: as `llmrun chat -p` does, with nothing learnt from an answer
before), the processes of the two ways one after the other, the first of each pair in turns. Shown for each prompt:
tokens a pass, the share of guesses that were right, decode tok/s of both and their ratio, and whether the tokens are
the same. Where they are not, a third process says how far apart the model, without drafts, has the two tokens at the
first difference: a near-tie is within the rounding of bf16, 2^-8 of the larger logit. The prompts of random words show
what text costs that is hard to guess. Answers go on after the model's end token, so that all are as long.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from common import (
    add_machine,
    argument_parser,
    model_folder,
    note,
    print_host,
    run_tool,
    run_tool_on,
    table,
    write_samples,
)
from limited import Limits

from llmrun.settings import Speculating

if TYPE_CHECKING:
    from llmrun.engine.engine import Engine


STORY = (
    "The village lies at the end of a long valley. In winter the road is closed for weeks, and what people need has to "
    "be there by November. Flour, salt and lamp oil come up on mules; wood is cut in September and dried under the "
    "eaves. Last year the mules came late, because a bridge had fallen, and for ten days there was no bread. Since "
    "then every house keeps a second sack of flour, and the council has bought timber for a new bridge, which is to be "
    "built in May by the men of both villages. The mayor says that it will be wide enough for a cart."
)
KINDS: Mapping[str, Sequence[str]] = {
    "chat": (
        "What should I see in Paris in two days?",
        "Explain to a child why the sky is blue.",
        "How do I keep a houseplant alive in winter?",
        "Give me three ideas for a birthday party at home.",
        "What is the difference between a virus and a bacterium?",
    ),
    "code": (
        "Write a Python function that returns the n-th Fibonacci number.",
        "Write a Python function that reverses the words of a sentence.",
        "Write a SQL query that counts the orders of each customer.",
        "Write a JavaScript function that checks whether a number is prime.",
        "Write a Python class for a bank account with deposit and withdraw.",
    ),
    "summary": tuple(
        f"{task}\n\n{STORY}"
        for task in (
            "Summarize this text in two sentences.",
            "List the main facts of this text.",
            "What happened last year, according to this text?",
            "Write a headline and a short summary of this text.",
            "Repeat this text, but in the past tense.",
        )
    ),
    "translation": tuple(
        f"Translate into {language}: {sentence}"
        for language, sentence in (
            ("French", "The train to the coast leaves at nine, and we have forgotten the tickets."),
            ("German", "My neighbour has a small garden in which he grows tomatoes and beans."),
            ("Spanish", "The museum is closed on Mondays, but the park behind it is always open."),
            ("Italian", "She read the letter twice and put it back into the drawer."),
            ("Portuguese", "It rained all night, and in the morning the street was full of leaves."),
        )
    ),
}
WORDS = tuple(STORY.replace(",", "").replace(".", "").lower().split())
RANDOM_PROMPTS, RANDOM_WORDS = 3, 40
ROUNDING = 2**-8
BRIEF = (2, 64)  # prompts of a kind, new tokens
WHOLE = (5, 128)


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


def prompts(each: int) -> Iterator[tuple[str, str]]:
    """Kind and prompt."""
    for kind, texts in KINDS.items():
        yield from ((kind, text) for text in texts[:each])
    source = random.Random(6)
    for _ in range(RANDOM_PROMPTS):
        yield "random words", " ".join(source.choices(WORDS, k=RANDOM_WORDS))


def answer_all(args: argparse.Namespace) -> None:
    """The process that runs the model: answers prompts, or compares tokens at places; writes one JSON line."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does, before torch is there
    from llmrun.cli.run import RunSettings, start
    from llmrun.engine.session import Message

    asked = json.loads(args.asked)
    how = Speculating(args.how, args.draft_tokens)
    run = RunSettings(args.model, args.ram, 0, args.context, speculating=how)
    with start(run, note) as running:
        engine = running.engine
        if args.child == "gaps":
            print(json.dumps([_gap(engine, *one) for one in asked]))
            return
        engine.tokenizer.end_token_ids = frozenset()
        found = [
            _answer(engine, engine.tokenizer.encode_chat([Message("user", text)]), args.new_tokens) for text in asked
        ]
        print(json.dumps([asdict(sample) for sample in found]))


def _answer(engine: Engine, prompt_ids: list[int], new_tokens: int) -> Sample:
    from llmrun.events import Token
    from llmrun.metrics import MetricsState, apply
    from llmrun.settings import SamplingSettings

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


def _gap(engine: Engine, token_ids: list[int], one: int, other: int) -> tuple[float, float]:
    """How far one token's logit is above another's after some tokens, and the larger of the two."""
    import torch

    with torch.inference_mode():
        reused = engine._cache.reuse(token_ids)
        logits = engine._forward.prefill(token_ids[reused:])
    return float(logits[one] - logits[other]), float(torch.maximum(logits[one], logits[other]))


def child(args: argparse.Namespace, what: str, how: str, asked: Sequence[Any]) -> list[Any]:
    """What such a process says, on the machine that was asked for."""
    options = [args.model, "--child", what, "--how", how, "--ram", str(args.ram), "--context", str(args.context)]
    options += ["--new-tokens", str(args.new_tokens), "--draft-tokens", str(args.draft_tokens)]
    options += ["--asked", json.dumps(asked)]
    if args.machine or args.disk:
        limits, path = Limits(args.machine, args.disk), model_folder(args.model)
        finished = run_tool_on(limits, path, Path(__file__).name, *options)[0]
    else:
        finished = run_tool(Path(__file__).name, *options)
    told: list[Any] = json.loads(finished.output.strip().splitlines()[-1])
    return told


def measure(args: argparse.Namespace, asked: Sequence[tuple[str, str]]) -> list[dict[str, Sample]]:
    """For each prompt its two answers."""
    found: list[dict[str, Sample]] = []
    for number, begin in enumerate(range(0, len(asked), args.together)):
        block = asked[begin : begin + args.together]
        note(f"prompts {len(found) + 1} to {len(found) + len(block)} of {len(asked)}")
        ways = ("off", args.how) if number % 2 == 0 else (args.how, "off")
        told = {how: child(args, "answers", how, [text for _, text in block]) for how in ways}
        found += [{how: Sample(**told[how][index]) for how in ways} for index in range(len(block))]
    return found


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The place of it; ``None`` where they are the same."""
    return next((at for at, (own, their) in enumerate(zip(one, other, strict=True)) if own != their), None)


def verdicts(args: argparse.Namespace, pairs: Sequence[tuple[Sample, Sample]]) -> list[str]:
    """``same``, or where the tokens differ and how near to each other the model has them."""
    places = [first_difference(plain.token_ids, drafted.token_ids) for plain, drafted in pairs]
    asked = [
        ([*plain.prompt_ids, *plain.token_ids[:at]], plain.token_ids[at], drafted.token_ids[at])
        for at, (plain, drafted) in zip(places, pairs, strict=True)
        if at is not None
    ]
    gaps = iter(child(args, "gaps", "off", asked) if asked else [])
    words = []
    for at in places:
        if at is None:
            words.append("same")
            continue
        gap, largest = next(gaps)
        near = "near-tie" if abs(gap) <= ROUNDING * abs(largest) else "DIFFERENT"
        words.append(f"{near} at {at}: {gap:.4f} of {largest:.1f}")
    return words


def show(asked: Sequence[tuple[str, str]], pairs: Sequence[tuple[Sample, Sample]], words: Sequence[str]) -> None:
    """The tables."""
    rows = []
    for (kind, _), (plain, drafted), word in zip(asked, pairs, words, strict=True):
        rate = f"{drafted.tokens_per_pass:.2f}" if drafted.tokens_per_pass else "1"
        right = f"{drafted.acceptance:.0%}" if drafted.acceptance is not None else "-"
        speeds = [f"{1 / each.tpot_s:.3g}" for each in (drafted, plain)]
        rows.append((kind, rate, right, *speeds, f"{plain.tpot_s / drafted.tpot_s:.2f}", word))
    headings = ("prompt", "tokens a pass", "guesses right", "tok/s", "without", "ratio", "tokens")
    print("\n" + table(headings, rows))
    kinds = {kind: None for kind, _ in asked}
    summary = []
    for kind in (*kinds, "all but random words"):
        own = [
            pair
            for (each, _), pair in zip(asked, pairs, strict=True)
            if each == kind or (kind.startswith("all") and each != "random words")
        ]
        ratios = [plain.tpot_s / drafted.tpot_s for plain, drafted in own]
        passes = fmean(drafted.tokens_per_pass or 1.0 for _, drafted in own)
        errors = [
            (drafted.predicted_tpot_s or drafted.tpot_s) / drafted.tpot_s - 1 for _, drafted in own if drafted.tpot_s
        ]
        first = median(drafted.ttft_s / plain.ttft_s for plain, drafted in own)
        cells = f"{passes:.2f}", f"{median(ratios):.2f}", f"{min(ratios):.2f}", f"{first:.2f}", f"{median(errors):+.0%}"
        summary.append((kind, *cells))
    headings = (
        "prompts",
        "tokens a pass, mean",
        "ratio, median",
        "worst",
        "first token, ratio",
        "predicted / measured",
    )
    print("\n" + table(headings, summary))
    peak = max(drafted.peak_bytes for _, drafted in pairs)
    print(f"\npeak memory {peak / 2**30:.2f} GiB")


def main() -> None:
    """Measure, compare, show."""
    parser = argument_parser(__doc__)
    add_machine(parser)
    parser.add_argument("--how", default="auto", help="what is compared with `off`")
    parser.add_argument("--draft-tokens", type=int, default=Speculating().draft_tokens)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--together", type=int, default=1, metavar="N", help="prompts that a process answers")
    parser.add_argument("--brief", action="store_true", help="fewer and shorter answers")
    parser.add_argument("--prompts", type=int, help="of each kind but random words")
    parser.add_argument("--new-tokens", type=int)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--asked", help=argparse.SUPPRESS)
    args = parser.parse_args()
    each, new_tokens = BRIEF if args.brief else WHOLE
    args.new_tokens = args.new_tokens or new_tokens
    if args.child:
        answer_all(args)
        return
    facts = print_host(model_folder(args.model))
    asked = list(prompts(args.prompts or each))
    found = measure(args, asked)
    pairs = [(one["off"], one[args.how]) for one in found]
    words = verdicts(args, pairs)
    show(asked, pairs, words)
    samples = [
        {"kind": kind, "tokens": word, **{how: asdict(sample) for how, sample in one.items()}}
        for (kind, _), word, one in zip(asked, words, found, strict=True)
    ]
    write_samples(args.json, {"host": facts, "samples": samples})


if __name__ == "__main__":
    main()
