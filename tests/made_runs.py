"""Runs that exist only as events: of plans with and without a GPU, at moments worth a look."""

from collections.abc import Iterable, Iterator

from hosts import SPEEDS, speeds
from tiny_spec import model

from llmrun.checkpoint.spec import ModelSpec
from llmrun.events import (
    Accepted,
    BytesRead,
    Event,
    Expected,
    Finished,
    FinishReason,
    LayerDone,
    MemorySample,
    PrefillProgress,
    RingSample,
    Speculated,
    Stall,
    Token,
)
from llmrun.metrics import MetricsState, apply
from llmrun.planner.memory import account, rings
from llmrun.planner.plan import Placement, Plan
from llmrun.settings import Budget, Workload
from llmrun.tui.dashboard.facts import Facts, facts
from llmrun.units import GIB, MIB

PREDICTED = Expected(100.0, 5.6, 3.9, {"disk": 7 * GIB}, {"cpu": 2400 * MIB, "gpu:0": 5 * GIB})


def fold(events: Iterable[Event]) -> MetricsState:
    state = MetricsState()
    for event in events:
        state = apply(state, event)
    return state


def on_cpu(n_layers: int = 32) -> tuple[ModelSpec, Plan]:
    """A third of the layers in RAM, spread among those that are read from disk."""
    spec = model([200 * MIB] * n_layers)
    layers = [Placement(f"layer {n}", "disk" if n % 3 else "cpu", "cpu") for n in range(n_layers)]
    return spec, _plan(spec, layers, Budget(4 * GIB), "disk", ("cpu", "cpu"))


def on_gpu(n_layers: int = 80) -> tuple[ModelSpec, Plan]:
    """Every way to keep a layer, and a GPU."""
    spec = model([400 * MIB] * n_layers)
    ways = [("gpu:0", "gpu:0"), ("cpu", "gpu:0"), ("disk", "gpu:0"), ("cpu", "cpu", "gpu:0"), ("disk", "cpu")]
    layers = [Placement(f"layer {n}", *ways[n * len(ways) // n_layers]) for n in range(n_layers)]
    return spec, _plan(spec, layers, Budget(24 * GIB, {"gpu:0": 8 * GIB}), "cpu", ("gpu:0", "gpu:0"))


def facts_of(made: tuple[ModelSpec, Plan]) -> Facts:
    return facts(*made, speeds(1) if made[1].gpus else SPEEDS)


def prefill() -> Iterator[Event]:
    """Seven of 33 units of a long prompt, 12 s after it began."""
    yield Accepted(100.0, 8192, 1024)
    yield PREDICTED
    for done in range(1, 8):
        at_s = 100.0 + 1.5 * done
        yield BytesRead(at_s - 0.6, "disk", 300 * MIB)
        yield BytesRead(at_s, "disk", 300 * MIB)
        yield Stall(at_s, f"layer {done - 1}", 0.4)
        yield LayerDone(at_s, f"layer {done - 1}", "cpu")
        yield PrefillProgress(at_s, done, 33, 8192)
    yield RingSample(111.0, "cpu", 3, 1, ("layer 8", "layer 10"))
    yield MemorySample(111.0, "cpu", 2200 * MIB, 2300 * MIB, 4 * GIB)


def decode(tokens: int = 40, last: str = "layer 9") -> Iterator[Event]:
    """Tokens of 2 s and more, in the middle of the next one."""
    yield Accepted(100.0, 512, 0)
    yield PREDICTED
    yield BytesRead(101.0, "disk", 6 * GIB)
    yield Token(106.0, 1, "a")
    at_s = 106.0
    for index in range(1, tokens):
        at_s += 2.0 + (index % 5) * 0.1
        yield BytesRead(at_s - 1.0, "disk", 2 * GIB)
        yield BytesRead(at_s, "disk", 2 * GIB)
        yield Stall(at_s, "layer 1", 0.7)
        yield Token(at_s, 1, "a")
    yield LayerDone(at_s + 0.5, last, "cpu")
    yield RingSample(at_s + 0.5, "cpu", 3, 2, ("layer 11",))
    yield MemorySample(at_s + 0.5, "cpu", 3700 * MIB, 3800 * MIB, 4 * GIB)


def drafted() -> Iterator[Event]:
    """The same in passes of which each gives three tokens."""
    for event in decode():
        yield event
        if isinstance(event, Token):
            yield Token(event.at_s, 1, "a")
            yield Token(event.at_s, 1, "a")
            yield Speculated(event.at_s, 6, 2, 0.3, 1.9)


def decode_on_gpu() -> Iterator[Event]:
    """The same with copies to a GPU."""
    for event in decode(last="layer 19"):
        yield event
        if isinstance(event, Token):
            yield BytesRead(event.at_s, "cpu", 3 * GIB)
    yield RingSample(event.at_s, "gpu:0", 2, 1, ("layer 21",))
    yield MemorySample(event.at_s, "gpu:0", 7 * GIB, 7900 * MIB, 8 * GIB)


def finished() -> Iterator[Event]:
    """All said."""
    *events, last = decode()
    yield from events
    yield last
    yield Finished(last.at_s + 1.0, FinishReason.LENGTH)


def _plan(spec: ModelSpec, layers: list[Placement], budget: Budget, embedding: str, head: tuple[str, str]) -> Plan:
    placements = (
        Placement("embedding", embedding, "cpu"),
        Placement("rest", head[0], head[1]),
        *layers,
        Placement("head", *head),
    )
    workload = Workload(context_tokens=16384)
    return Plan(
        spec.name, "by hand", workload, placements, rings(spec, placements), account(spec, workload, budget, placements)
    )
