"""Run llmrun through its Python API as `llmrun chat` does, and tell when what happened; other benchmarks start this.

    python benchmarks/run_llmrun.py MODEL --ram 2.5GiB -p "The capital of France is" --new 16

It differs from the command in one thing: it notes when the imports were done. As in the command, weights are being read
by then. Computes on the CPU only. On a machine that was not measured yet that comes first, and takes some seconds.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from common import Answer, Report, model_folder, note, print_report, process_counters

from llmrun.environment import begin_again_for_models
from llmrun.settings import LOSSLESS, Precision, Quality
from llmrun.units import parse_bytes

if TYPE_CHECKING:
    import torch

    from llmrun.checkpoint import ModelSpec
    from llmrun.engine.engine import Engine
    from llmrun.planner import Plan


@dataclass(frozen=True)
class Running:
    """A started engine."""

    spec: ModelSpec
    plan: Plan
    engine: Engine
    imports: ImportTimes


@dataclass(frozen=True)
class ImportTimes:
    """When ``import`` of the engine was done, and when the last module came before it was ready.

    They differ: transformers imports the code of a model family, and half of itself with it, when the model is built.
    """

    engine_s: float
    last_s: float


@contextmanager
def running(
    model: str, ram_bytes: int | None, context_tokens: int | None = None, precision: Precision = LOSSLESS
) -> Iterator[Running]:
    """What ``cli.run.start`` and ``engine.start`` do, in their order: plan, start the readers, import, build."""
    from llmrun.checkpoint import read_spec
    from llmrun.cli.machine import budget_on, this_machine
    from llmrun.cli.options import workload_within
    from llmrun.hardware.heap import keep_heap, trim_heap
    from llmrun.planner import make_plan
    from llmrun.runtime.host import HostWeights

    spec = read_spec(model_folder(model))
    workload = workload_within(spec, context_tokens, None, None)
    machine = this_machine(spec, note, may_measure=True)
    plan = make_plan(spec, workload, budget_on(machine, ram_bytes, 0, note), machine.speeds, precision=precision)
    keep_heap()
    host = HostWeights(spec, plan)
    import_s: list[float] = []
    sys.addaudithook(lambda name, _: import_s.append(time.monotonic()) if name == "import" else None)
    host.start()
    try:
        gc.disable()
        from llmrun.engine.engine import Engine

        engine_s = time.monotonic()
        engine = Engine(spec, plan, host, {}, speeds=machine.speeds)
        gc.freeze()
        gc.enable()
        host.speed_up()
        trim_heap()
        try:
            yield Running(spec, plan, engine, ImportTimes(engine_s, import_s[-1]))
        finally:
            engine.close()
    finally:
        host.close()


def encode(engine: Engine, prompt: str, *, chat: bool) -> list[int]:
    """The tokens of a prompt: as the model's chat template has it, or the bare text."""
    from llmrun.engine.session import Message

    tokenizer = engine.tokenizer
    return tokenizer.encode_chat([Message("user", prompt)]) if chat else tokenizer.encode_text(prompt)


class Likeliest:
    """Takes the likeliest token, and keeps (token, logit) of the likeliest five each time."""

    def __init__(self) -> None:
        self.top: list[list[tuple[int, float]]] = []

    def next(self, logits: torch.Tensor, past_ids: Sequence[int]) -> int:
        """The token of the largest logit."""
        top = logits.topk(5)
        self.top.append(list(zip(top.indices.tolist(), top.values.tolist(), strict=True)))
        return self.top[-1][0][0]


def answer(engine: Engine, prompt_ids: Sequence[int], new_tokens: int, chooser: Likeliest | None = None) -> Answer:
    """A greedy answer, with times and bytes for each token; as ``chat`` makes it, or with a chooser that looks on."""
    from llmrun.engine.request import Request
    from llmrun.events import Token
    from llmrun.metrics import MetricsState, apply
    from llmrun.settings import SamplingSettings

    stream = engine.tokenizer.stream()
    state, token_ids, token_s, read_bytes = MetricsState(), [], [], []
    if chooser is None:
        events = engine.generate(prompt_ids, SamplingSettings(temperature=0, max_tokens=new_tokens), stream)
    else:
        ends, prompt = engine.tokenizer.end_token_ids, tuple(prompt_ids)
        events = engine._run(Request(time.monotonic(), prompt, chooser, stream, new_tokens, new_tokens, ends))
    for event in events:
        state = apply(state, event)
        if isinstance(event, Token):
            token_ids.append(event.token_id)
            token_s.append(event.at_s)
            read_bytes.append(process_counters()["read_bytes"])
    return Answer(
        prompt_ids=list(prompt_ids),
        token_ids=token_ids,
        text=stream.text,
        token_s=token_s,
        read_bytes=read_bytes,
        streamed_bytes_per_token=(state.read_bytes_per_token or {}).get("disk"),
        stall_share=state.decode.stall_share if state.decode else None,
        top_logits=chooser.top if chooser else [],
    )


def report(run: Running, answers: list[Answer]) -> Report:
    """What this process tells at its end."""
    from llmrun.hardware import process_memory

    planned = {line.label: line.nbytes for line in run.plan.memory[0].lines}
    return Report(
        imported_s=run.imports.last_s,
        answers=answers,
        peak_rss_bytes=process_memory().peak_rss_bytes,
        written_bytes=process_counters()["write_bytes"],
        planned_bytes=planned,
        predicted_peak_bytes=predicted_peak_bytes(run, answers),
        engine_imported_s=run.imports.engine_s,
    )


def predicted_peak_bytes(run: Running, answers: list[Answer]) -> int:
    """What the plan says of the peak RSS, for the longest prompt and the longest answer."""
    from llmrun.planner.peak import peak_bytes
    from llmrun.planner.plan import CPU, Slots

    workload = replace(
        run.plan.workload,
        prompt_tokens=max(len(answer.prompt_ids) for answer in answers),
        new_tokens=max(len(answer.token_ids) for answer in answers),
    )
    ring = run.plan.ring(CPU)
    slots = Slots(host=ring.slots) if ring else Slots()
    return peak_bytes(run.spec, workload, run.plan.placements, slots)[CPU]


def main() -> int:
    """Answer the prompts of the command line one after the other."""
    begin_again_for_models()  # as the command does
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--ram", type=parse_bytes, metavar="SIZE")
    parser.add_argument("--context", type=int)
    parser.add_argument("--quality", type=Quality, default=Quality.LOSSLESS)
    parser.add_argument("-p", "--prompt", action="append", required=True)
    parser.add_argument("--prompt-tokens", type=int, help="cut each prompt to so many tokens")
    parser.add_argument("--new", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--chat", action="store_true", help="put the prompts into the chat template")
    parser.add_argument("--ignore-end", action="store_true", help="go on after the model's end token")
    parser.add_argument("--logits", action="store_true", help="tell the likeliest five tokens each time")
    args = parser.parse_args()
    with running(args.model, args.ram, args.context, Precision(args.quality)) as run:
        if args.ignore_end:
            run.engine.tokenizer.end_token_ids = frozenset()
        prompts = [encode(run.engine, prompt, chat=args.chat)[: args.prompt_tokens] for prompt in args.prompt]
        answers = [answer(run.engine, prompt, args.new, Likeliest() if args.logits else None) for prompt in prompts]
        print_report(report(run, answers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
