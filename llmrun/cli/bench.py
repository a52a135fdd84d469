"""``llmrun bench``: how fast a model runs here, in the conventions of llama-bench."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmrun.cli import complete, options
from llmrun.cli.bench_after import ask_afterwards, finish
from llmrun.cli.run import RunSettings
from llmrun.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrun.bench.case import Case
    from llmrun.tui.ui import Ui

N_PROMPT, N_GEN, N_DEPTH = ("512",), ("128",), ("0",)
DEFAULT_TOLERANCE = 0.05
_FORMATS = complete.choices("md", "csv", "json", "jsonl", "sql")


def bench(
    model: options.Model = None,
    n_prompt: Annotated[
        list[str] | None,
        typer.Option("--n-prompt", "-p", metavar="N", show_default="512", help="Prompts of N tokens; 0: none."),
    ] = None,
    n_gen: Annotated[
        list[str] | None,
        typer.Option("--n-gen", "-n", metavar="N", show_default="128", help="N new tokens; 0: none."),
    ] = None,
    prompt_and_gen: Annotated[
        list[str] | None,
        typer.Option("-pg", metavar="PP,TG", help="A prompt and the new tokens after it, timed as one."),
    ] = None,
    n_depth: Annotated[
        list[str] | None,
        typer.Option(
            "--n-depth", "-d", metavar="N", show_default="0", help="N tokens are in the KV cache before each of these."
        ),
    ] = None,
    repetitions: Annotated[
        int, typer.Option("--repetitions", "-r", metavar="N", min=1, max=10000, help="Samples of each case.")
    ] = 5,
    no_warmup: Annotated[
        bool, typer.Option("--no-warmup", help="Leave out the run before the first sample of each case.")
    ] = False,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FORMAT",
            autocompletion=_FORMATS,
            help="Rows on standard output: md, csv, json, jsonl or sql.",
        ),
    ] = "md",
    output_err: Annotated[
        str | None,
        typer.Option(
            "--output-err", "-oe", metavar="FORMAT", autocompletion=_FORMATS, help="The same on standard error, too."
        ),
    ] = None,
    progress: Annotated[
        bool, typer.Option("--progress", help="Say on standard error which repetition begins.")
    ] = False,
    cold: Annotated[
        bool,
        typer.Option("--cold", help="Start anew for each sample, the weights dropped from memory: loading is in it."),
    ] = False,
    ram: options.Ram = None,
    vram: options.Vram = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            metavar="TOKENS",
            min=1,
            show_default="what the longest case needs",
            help="Tokens that memory is reserved for.",
        ),
    ] = None,
    planner: options.Planner = None,
    plan: options.PlanFile = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", min=0, show_default="0", help="Of the random tokens, and of a new plan."),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", metavar="FILE", help="Hold the rates against those of an earlier -o json."),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance", metavar="SHARE", min=0, max=1, help="With --compare: so much slower is still the same."
        ),
    ] = DEFAULT_TOLERANCE,
    sweep: Annotated[
        str | None,
        typer.Option(
            "--sweep",
            metavar="OPTION=VALUES",
            help="Rows for each value, in place of that option: ram=2GiB,4GiB, vram=... or context=...",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="With --sweep: draw it, as .png or .svg.")
    ] = None,
    ui: Annotated[
        str | None,
        typer.Option(
            "--ui",
            metavar="VIEW",
            envvar="LLMRUN_UI",
            show_default="dashboard",
            autocompletion=complete.choices("dashboard", "simple", "none"),
            help="What a terminal shows meanwhile: dashboard, simple or none.",
        ),
    ] = None,
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
        seed=seed,
        trust_remote_code=trust_remote_code,
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
