"""``llmrun bench``: how fast a model runs here, in the conventions of llama-bench."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from llmrun.cli import bench_options as own
from llmrun.cli import options
from llmrun.cli.bench_after import ask_afterwards, finish
from llmrun.cli.run import RunSettings
from llmrun.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrun.bench.case import Case
    from llmrun.tui.ui import Ui

N_PROMPT, N_GEN, N_DEPTH = ("512",), ("128",), ("0",)
DEFAULT_TOLERANCE = 0.05


def bench(
    model: options.Model = None,
    n_prompt: own.NPrompt = None,
    n_gen: own.NGen = None,
    prompt_and_gen: own.PromptAndGen = None,
    n_depth: own.NDepth = None,
    repetitions: own.Repetitions = 5,
    no_warmup: own.NoWarmup = False,
    output: own.Output = "md",
    output_err: own.OutputErr = None,
    progress: own.Progress = False,
    cold: own.Cold = False,
    ram: options.Ram = None,
    vram: options.Vram = None,
    context: own.Context = None,
    planner: options.Planner = None,
    plan: options.PlanFile = None,
    speculate: options.Speculate = None,
    draft_tokens: options.DraftTokens = None,
    quality: options.QualityLevel = None,
    format_name: options.KeptFormat = None,
    seed: own.Seed = None,
    compare: own.Compare = None,
    tolerance: own.Tolerance = DEFAULT_TOLERANCE,
    sweep: own.Sweep = None,
    plot: own.Plot = None,
    ui: own.Ui = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Measure tokens a second of reading (pp) and generating (tg).

    The tokens are random. Only passes of the model are timed: tokenising, sampling and making text are not in it, as
    they are not in llama-bench, whose options and field names these are. -p, -n and -d take lists (128,512) and ranges
    (128-512+128, 64-512*2), and may be repeated.

    Rows go to standard output as they are measured, all else to standard error. docs/bench.md defines every number.
    """
    from llmrun.bench.measure import Method
    from llmrun.cli.bench_output import Output
    from llmrun.cli.bench_run import BenchSettings, run_bench

    cases = _cases(n_prompt, n_gen, prompt_and_gen, n_depth)
    if cold and any(case.n_depth for case in cases):
        raise UsageError(
            "bad-option",
            "--cold reads the weights within the prompt, so nothing can be in the KV cache before it",
            hint="leave out -d or --cold",
        )
    run = RunSettings(
        model=model,
        ram_bytes=options.parse_size("--ram", ram),
        vram_bytes=options.parse_size("--vram", vram),
        context_tokens=context,
        planner=planner,
        plan_file=plan,
        precision=options.parse_precision(quality, format_name),
        seed=seed,
        trust_remote_code=trust_remote_code,
        speculating=options.speculating(speculate, draft_tokens),
    )
    afterwards = ask_afterwards(compare, tolerance, sweep, plot, plan)
    method = Method(repetitions, warm_up=not no_warmup)
    settings = BenchSettings(
        run, cases, method, cold=cold, sweep=afterwards.sweep, progress=progress, ui=_ui(ui, progress=progress)
    )
    out = Output(output, output_err)
    try:
        run_bench(settings, out, _notify)
    finally:
        out.end()
    finish(out.rows, afterwards, _notify)


def _cases(
    prompts: Sequence[str] | None,
    gens: Sequence[str] | None,
    pairs: Sequence[str] | None,
    depths: Sequence[str] | None,
) -> tuple[Case, ...]:
    """
    Raises:
        UsageError: ``bad-option``.
    """
    from llmrun.bench.counts import cases, parse_counts, parse_pairs

    def counts(option: str, texts: Sequence[str]) -> list[int]:
        return [count for text in texts for count in parse_counts(option, text)]

    return cases(
        counts("-p", prompts or N_PROMPT),
        counts("-n", gens or N_GEN),
        parse_pairs("-pg", pairs or ()),
        counts("-d", depths or N_DEPTH),
    )


def _ui(asked: str | None, *, progress: bool) -> Ui:
    """A dashboard leaves no room for lines of progress."""
    from llmrun.tui.ui import Ui, resolve_ui

    return resolve_ui(asked, Ui.NONE if progress else Ui.DASHBOARD, sys.stderr)


def _notify(text: str) -> None:
    typer.echo(text, err=True)
