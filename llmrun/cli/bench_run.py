"""The measurements of ``llmrun bench``: one plan and one engine for all cases of a setting, a row as each is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from llmrun.bench.ceiling import Ceiling, ceiling
from llmrun.bench.figures import Setup, make_row, plan_id
from llmrun.bench.measure import Method, Watcher, load, measure, measure_cold
from llmrun.bench.sample import RandomTokens, Sample
from llmrun.bench.sweep import CONTEXT, RAM, Sweep
from llmrun.cli.bench_output import Output
from llmrun.cli.options import parse_size
from llmrun.cli.run import Planned, RunSettings, make_ready, start_planned
from llmrun.errors import UsageError
from llmrun.settings import NGRAM
from llmrun.units import format_tokens_rate

if TYPE_CHECKING:
    from llmrun.bench.case import Case
    from llmrun.engine.engine import Engine
    from llmrun.planner import Plan
    from llmrun.tui.live import LiveView
    from llmrun.tui.ui import Ui

Notify = Callable[[str], None]


@dataclass(frozen=True)
class BenchSettings:
    """What the command line says."""

    run: RunSettings
    cases: tuple[Case, ...]
    method: Method
    ui: Ui
    cold: bool = False
    sweep: Sweep | None = None
    progress: bool = False

    @property
    def context_tokens(self) -> int:
        """What the longest case needs."""
        return max(case.context_tokens for case in self.cases)

    def runs(self) -> Iterator[tuple[str | None, RunSettings]]:
        """Each value of the sweep and the run that it stands for; without a sweep the one run."""
        run = self.run
        if run.context_tokens is None and run.plan_file is None:
            run = replace(run, context_tokens=self.context_tokens)
        if self.sweep is None:
            yield None, run
            return
        for value in self.sweep.values:
            if self.sweep.option == CONTEXT:
                yield value, replace(run, context_tokens=int(value))
            elif self.sweep.option == RAM:
                yield value, replace(run, ram_bytes=parse_size("--sweep", value))
            else:
                yield value, replace(run, vram_bytes=parse_size("--sweep", value))


def run_bench(settings: BenchSettings, out: Output, notify: Notify) -> None:
    """Measure every case under every value of the sweep; rows go out as they are done.

    Raises:
        UsageError: ``bad-option``, a case does not fit the context.
        LlmrunError: what finding, planning, starting and running a model raise.
    """
    for number, (value, run) in enumerate(settings.runs()):
        if number:
            _forget()
        planned = _planned(settings, run, notify)
        _check_fits(settings.cases, planned.plan)
        notify(plan_text(planned))
        _Setting(settings, run, planned, value, out, notify).measure()


def plan_text(planned: Planned) -> str:
    """The plan in a line."""
    from llmrun.tui.about import placement_text

    plan = planned.plan
    where = placement_text(planned.spec, plan)
    return f"plan {plan_id(plan)} by {plan.planner}: {where}; context {plan.workload.context_tokens:,} tokens"


def ceiling_text(top: Ceiling) -> str:
    """What a case cannot exceed, in a line."""
    rate = "unknown" if top.tokens_per_s is None else format_tokens_rate(top.tokens_per_s)
    return f"{top.case.name}: ceiling {rate}, set by {top.resource}"


@dataclass
class _Setting:
    """One plan, under which all cases are measured."""

    settings: BenchSettings
    run: RunSettings
    planned: Planned
    sweep: str | None
    out: Output
    notify: Notify
    tokens: RandomTokens = field(init=False)
    method: Method = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = RandomTokens(self.planned.spec.vocab_size, self.run.seed or 0)
        drafted = self.run.speculating.method == NGRAM or self.planned.plan.drafts(self.run.speculating)
        self.method = replace(self.settings.method, own_tokens=drafted)

    def measure(self) -> None:
        """All cases, on one engine if they are warm."""
        from llmrun.tui.live import live_view

        planned, ui = self.planned, self.settings.ui
        with live_view(ui, planned.spec, planned.plan, planned.machine.speeds) as view:
            if self.settings.cold:
                self._cold(view)
                return
            with start_planned(planned, self.run) as engine:
                with view.paused():
                    self.out.begin()
                if not self.method.warm_up:
                    load(engine, self.tokens, self._watcher(view, None))
                for case in self.settings.cases:
                    with self._row(case, view, lambda: engine.n_threads) as samples:
                        samples += measure(engine, case, self.tokens, self.method, self._watcher(view, case))

    def _cold(self, view: LiveView) -> None:
        threads: list[int] = []

        @contextmanager
        def start() -> Iterator[Engine]:
            with start_planned(self.planned, self.run) as engine:
                threads.append(engine.n_threads)
                yield engine

        with view.paused():
            self.out.begin()
            self._tell_of_the_cache()
        for case in self.settings.cases:
            with self._row(case, view, lambda: threads[-1]) as samples:
                samples += measure_cold(start, self._drop, case, self.tokens, self.method, self._watcher(view, case))

    @contextmanager
    def _row(self, case: Case, view: LiveView, n_threads: Callable[[], int]) -> Iterator[list[Sample]]:
        """Tells the ceiling; then, of the samples that were put into the list, the row."""
        speeds, cold = self.planned.machine.speeds, self.settings.cold
        top = ceiling(self.planned.spec, self.planned.plan, speeds, case, cold=cold) if speeds.complete else None
        with view.paused():
            self.notify(ceiling_text(top) if top else f"{case.name}: no ceiling, this machine was not wholly measured")
        began, samples = datetime.now(UTC), list[Sample]()
        yield samples
        row = make_row(self._setup(n_threads()), samples, top, began)
        with view.paused():
            self.out.row(row)

    def _setup(self, n_threads: int) -> Setup:
        spec, plan, profile = self.planned.spec, self.planned.plan, self.planned.machine.profile
        gpus = ", ".join(gpu.name for gpu in profile.gpus if gpu.device in plan.gpus)
        seed = self.run.seed or 0
        return Setup(spec, plan, profile.cpu.name, gpus, n_threads, seed, self.settings.cold, self.sweep)

    def _watcher(self, view: LiveView, case: Case | None) -> Watcher:
        count = self.settings.method.repetitions

        def tell(number: int) -> None:
            view.note = f"{case.name} {number}/{count}" if case else "loading"
            if self.settings.progress and case:
                with view.paused():
                    self.notify(f"{case.name}: " + (f"repetition {number} of {count}" if number else "warm-up"))

        return Watcher(view.apply, tell)

    def _tell_of_the_cache(self) -> None:
        from llmrun.bench.cold import drop_page_cache

        if not drop_page_cache(self.planned.spec):
            self.notify("the page cache cannot be dropped here; the weights are read past it by direct I/O")

    def _drop(self) -> None:
        from llmrun.bench.cold import drop_page_cache

        _let_go()
        drop_page_cache(self.planned.spec)


def _planned(settings: BenchSettings, run: RunSettings, notify: Notify) -> Planned:
    """
    Raises:
        UsageError: ``context-too-long``, with the options that make it so.
    """
    try:
        return make_ready(run, notify)
    except UsageError as error:
        if error.reference == "context-too-long" and run.context_tokens == settings.context_tokens:
            error.hint = "shorter cases: `-d` and `-p` or `-n` are together the context"
        raise


def _check_fits(cases: Sequence[Case], plan: Plan) -> None:
    """
    Raises:
        UsageError: ``bad-option``.
    """
    context_tokens = plan.workload.context_tokens
    longest = max(cases, key=lambda case: case.context_tokens)
    if longest.context_tokens > context_tokens:
        raise UsageError(
            "bad-option",
            f"{longest.name} needs a context of {longest.context_tokens:,} tokens, not {context_tokens:,}",
            hint=f"`--context {longest.context_tokens}`, or shorter cases",
        )


def _forget() -> None:
    """What an earlier setting took is neither in this one's memory nor in its peak."""
    from llmrun.hardware.process import reset_peak

    _let_go()
    reset_peak()


def _let_go() -> None:
    from llmrun.engine.start import let_go

    let_go()
