"""The figures of the dashboard, a line each: speed, what moves, what waits, memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmrun.events import MemorySample
from llmrun.metrics import MetricsState
from llmrun.planner.plan import CPU
from llmrun.tui import theme
from llmrun.tui.dashboard.facts import Facts, Way
from llmrun.tui.dashboard.layers import coming, computing
from llmrun.tui.dashboard.lines import Glyphs, Line, Part, bar, cut, joined, line_width, sparkline
from llmrun.tui.plan_tables import tier_name
from llmrun.tui.stats import ENDED, MOST_PLACES, acceptance_text
from llmrun.units import format_bytes, format_rate, format_seconds, format_tokens_rate

UNKNOWN = "-"
SHORTEST_BAR = 6


@dataclass(frozen=True)
class View:
    """What is looked at, when, and how much room there is for a line."""

    state: MetricsState
    facts: Facts
    now_s: float
    width: int
    glyphs: Glyphs
    note: str = ""  # what is being run, beside the model

    def row(self, label: str, texts: Sequence[str], share: float | None = None, peak: float | None = None) -> Line:
        """A label and the texts that fit, the first of them bright, and a bar before them where there is room.

        Three texts are worth more than a bar, and a bar more than a fourth.
        """
        head = f"{label.removeprefix('from ')} " if self.narrow else f"{label:<{theme.LABEL}}  "
        room = self.width - len(head)
        parts: list[Part] = [(text, theme.DIM if index else "") for index, text in enumerate(texts)]
        bar_room = 0 if share is None or self.narrow else SHORTEST_BAR + 2
        line = max(joined(parts[:3], room), joined(parts, room - bar_room), key=line_width)
        cells = self._bar_cells(room - line_width(line) - 2) if share is not None else 0
        if share is not None and cells:
            line = ((f"{bar(share, cells, self.glyphs, peak)}  ", theme.BAR), *line)
        return cut(((head, theme.DIM), *line), self.width)

    @property
    def narrow(self) -> bool:
        """Whether labels have no column of their own."""
        return self.width < theme.NARROW

    def _bar_cells(self, room: int) -> int:
        """Of a bar, the same in all rows unless there is no room."""
        usual = 12 if self.width < 72 else 20 if self.width < 92 else 32
        return 0 if self.narrow or room < SHORTEST_BAR else min(usual, room)


def title(view: View) -> Line:
    """What goes on, and what is run."""
    texts = [phase(view.state), *([view.note] if view.note else []), view.facts.model]
    return joined([*((text, theme.HEADING) for text in texts), (view.facts.kind, theme.DIM)], view.width)


def phase(state: MetricsState) -> str:
    """In a word or two."""
    if state.finish_reason:
        return ENDED.get(state.finish_reason, "done")
    if state.accepted is None:
        return "starting"
    return "decode" if state.first_token else "prefill"


def prefill(view: View) -> Line:
    """How far the prompt is, and how long still."""
    state = view.state
    share = state.prefill_done_units / state.prefill_total_units if state.prefill_total_units else 0.0
    texts = [f"{share:.0%}"]
    left_s = _left_s(view)
    if left_s is not None:
        texts.append(f"about {format_seconds(max(1.0, left_s))} left")
    texts.append(f"{state.prompt_tokens - state.reused_tokens:,} tokens")
    if state.accepted:
        texts.append(f"{format_seconds(max(0.0, view.now_s - state.accepted.at_s))} so far")
    return view.row("prefill", texts, share)


def tokens(view: View) -> Line:
    """How many."""
    state = view.state
    texts = [f"{state.new_tokens:,} new", f"{state.prompt_tokens:,} of prompt"]
    if state.reused_tokens:
        texts.append(f"{state.reused_tokens:,} of them kept")
    return view.row("tokens", texts)


def speed(view: View) -> Line:
    """Tokens a second: now, the mean, and what was predicted."""
    now, mean = view.state.tokens_per_s(view.now_s), view.state.decode_tokens_per_s
    predicted = _predicted_tpot_s(view)
    texts = [UNKNOWN if now is None else format_tokens_rate(now) + (" now" if not view.narrow else "")]
    if mean is not None:
        texts.append(f"{_number(mean)} mean")
    if predicted:
        texts.append(f"{_number(1 / predicted)} predicted")
    return view.row("speed", texts)


def pace(view: View) -> Line:
    """The speed so far as a sparkline, and between what it was."""
    values = view.state.pace_tokens_per_s()
    if not values:
        return view.row("pace", [UNKNOWN])
    room = view.width - (len("pace ") if view.narrow else theme.LABEL + 2)
    shown = values[-min(60, room - 20 if room >= 30 else room) :]
    between = f"{_number(min(shown))} to {_number(max(shown))}"
    return view.row("pace", [sparkline(shown, len(shown), view.glyphs), between])


def drafts(view: View) -> Iterator[Line]:
    """What they give, where tokens are drafted."""
    done = view.state.speculation
    if done is None:
        return
    texts = [f"{done.tokens_per_pass:.1f} tokens a pass"]
    if done.acceptance is not None:
        texts += [f"{done.acceptance:.0%} accepted", acceptance_text(done, MOST_PLACES)]
    yield view.row("drafts", texts)


def first_token(view: View) -> Line:
    """TTFT, measured and predicted."""
    state, prediction = view.state, view.facts.prediction
    predicted = state.expected.ttft_s if state.expected else prediction.ttft_s if prediction else None
    texts = [UNKNOWN if state.ttft_s is None else format_seconds(state.ttft_s)]
    if predicted is not None:
        texts.append(f"{format_seconds(predicted)} predicted")
    if state.prefill_tokens_per_s:
        texts.append(f"prefill {format_tokens_rate(state.prefill_tokens_per_s)}")
    return view.row("first token", texts)


def way(view: View, one: Way) -> Line:
    """Bytes a second on one way, against what was measured of it."""
    rate, ceiling = _rate(view, one), one.ceiling_bytes_per_s
    texts = [UNKNOWN if rate is None else format_rate(rate)]
    if ceiling is None:
        return view.row(one.label, texts)
    share = (rate or 0.0) / ceiling
    texts += [f"of {format_rate(ceiling)}"] + ([f"{share:.0%}"] if rate is not None else [])
    return view.row(one.label, texts, share)


def now(view: View) -> Line:
    """The unit that is computed, or waited for."""
    unit = computing(view.state, view.facts)
    if unit is None:
        return view.row("computing", [UNKNOWN])
    if unit in coming(view.state):
        return view.row("waiting for", [unit])
    return view.row("computing", [f"{unit} on {view.facts.devices[unit]}"])


def stalls(view: View) -> Line:
    """The share of the time in which the computation waited for weights."""
    share = view.state.stall_share(view.now_s)
    return view.row("stalled", [UNKNOWN if share is None else f"{min(1.0, share):.0%} of the time"], share)


def rings(view: View) -> Iterator[Line]:
    """Of each device: the slots that are full, and what is on its way there."""
    for device in dict.fromkeys((*view.facts.slots, *view.state.rings)):
        sample = view.state.rings.get(device)
        slots, in_flight = view.facts.slots.get(device, 0), sample.in_flight if sample else ()
        ready = sample.ready_slots if sample else 0
        texts = [f"{ready} of {slots} slots full"] if slots else []
        texts += [f"coming: {in_flight[0]}{''.join(_shorter(unit) for unit in in_flight[1:])}"] if in_flight else []
        if texts:
            yield view.row(f"ring {tier_name(device)}", texts, ready / slots if slots else None)


def memory(view: View) -> Iterator[Line]:
    """Of each device: taken now, the budget, the peak and what was planned of it."""
    expected = view.state.expected.peak_bytes if view.state.expected else {}
    for planned in view.facts.memory:
        sample = view.state.memory.get(planned.device)
        label = f"{'RAM' if planned.device == CPU else planned.device} used"
        budget_bytes = sample.budget_bytes if sample else planned.budget_bytes
        if sample is None:
            yield view.row(label, [UNKNOWN, f"of {format_bytes(budget_bytes)}"], 0.0)
            continue
        texts = [format_bytes(sample.used_bytes), f"of {format_bytes(budget_bytes)}"]
        texts += [f"peak {format_bytes(sample.peak_bytes)}"]
        texts += [f"{format_bytes(expected.get(planned.device, planned.nbytes))} predicted"]
        yield view.row(label, texts, *_shares(sample))


def _rate(view: View, one: Way) -> float | None:
    """What a device reads of its own memory is known while it decodes; a prefill computes for longer than that.

    It reads it once for all tokens of a pass.
    """
    if one.tier is not None:
        return view.state.read_bytes_per_s(one.tier, view.now_s)
    tokens_per_s = view.state.tokens_per_s(view.now_s)
    if tokens_per_s is None:
        return None
    done = view.state.speculation
    return one.token_bytes * tokens_per_s / (done.tokens_per_pass if done else 1)


def _shares(sample: MemorySample) -> tuple[float, float]:
    budget_bytes = max(1, sample.budget_bytes)
    return sample.used_bytes / budget_bytes, sample.peak_bytes / budget_bytes


def _left_s(view: View) -> float | None:
    """By the pace so far; before there is any, by what was predicted."""
    state = view.state
    if state.prefill_done_units or state.accepted is None or state.expected is None:
        return state.prefill_left_s(view.now_s)
    return state.expected.ttft_s - (view.now_s - state.accepted.at_s)


def _predicted_tpot_s(view: View) -> float | None:
    if view.state.expected:
        return view.state.expected.tpot_s
    return view.facts.prediction.tpot_s if view.facts.prediction else None


def _shorter(unit: str) -> str:
    return f", {unit.removeprefix('layer ')}"


def _number(rate: float) -> str:
    return format_tokens_rate(rate).removesuffix(" tok/s")
