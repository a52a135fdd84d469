"""``llmrun bench``: how fast a model runs here, in the conventions of llama-bench."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmrun.cli import complete, options
from llmrun.cli.run import RunSettings
from llmrun.errors import LlmrunError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrun.bench.case import Case
    from llmrun.bench.row import Row
    from llmrun.bench.sweep import Sweep
    from llmrun.tui.ui import Ui

N_PROMPT, N_GEN, N_DEPTH = ("512",), ("128",), ("0",)
DEFAULT_TOLERANCE = 0.05
_FORMATS = complete.choices("md", "csv", "json", "jsonl", "sql")


@dataclass(frozen=True)
class Afterwards:
    """What is done with the rows when all are there."""

    before: Sequence[Row] | None
    tolerance: float
    plot: Path | None
    sweep: Sweep | None


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
    afterwards = _afterwards(compare, tolerance, sweep, plot, plan)
    method = Method(repetitions, warm_up=not no_warmup)
    settings = BenchSettings(
        run, cases, method, cold=cold, sweep=afterwards.sweep, progress=progress, ui=_ui(ui, progress=progress)
    )
    out = Output(output, output_err)
    try:
        run_bench(settings, out, _notify)
    finally:
        out.end()
    _finish(out.rows, afterwards)


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


def _afterwards(
    compare: Path | None, tolerance: float, sweep: str | None, plot: Path | None, plan: Path | None
) -> Afterwards:
    """What can be refused is refused before anything is measured.

    Raises:
        UsageError: a file of ``--compare`` that cannot be read, a ``--sweep`` or ``--plot`` that cannot be.
    """
    from llmrun.bench.plot import check_plot
    from llmrun.bench.rows_file import read_rows
    from llmrun.bench.sweep import parse_sweep

    if sweep and plan:
        raise UsageError("bad-option", "--plan has memory and a context already", hint="leave out --plan or --sweep")
    if plot and not sweep:
        raise UsageError("bad-option", "--plot draws a sweep, and there is none", hint="`--sweep ram=2GiB,4GiB`")
    if plot:
        check_plot(plot)
    return Afterwards(read_rows(compare) if compare else None, tolerance, plot, parse_sweep(sweep) if sweep else None)


def _ui(asked: str | None, *, progress: bool) -> Ui:
    """A dashboard leaves no room for lines of progress."""
    from llmrun.tui.ui import Ui, resolve_ui

    return resolve_ui(asked, Ui.NONE if progress else Ui.DASHBOARD, sys.stderr)


def _finish(rows: Sequence[Row], afterwards: Afterwards) -> None:
    """
    Raises:
        LlmrunError: ``regression``, a case is slower than before by more than the tolerance.
        UsageError: ``nothing-to-compare``.
        DeviceError: ``write-failed``, the picture.
    """
    from llmrun.bench.plot import write_plot
    from llmrun.tui.bars import has_blocks, sweep_text

    if afterwards.sweep and sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        _notify("\n" + sweep_text(rows, width, has_blocks(sys.stderr)))
    if afterwards.plot:
        write_plot(rows, afterwards.plot)
    if afterwards.before is not None:
        _compare(rows, afterwards.before, afterwards.tolerance)


def _compare(rows: Sequence[Row], before: Sequence[Row], tolerance: float) -> None:
    from llmrun.bench.regression import compare_rows, comparison_table

    comparisons = compare_rows(rows, before, tolerance)
    _notify(comparison_table(comparisons))
    if slower := [one for one in comparisons if one.regressed]:
        worst = min(slower, key=lambda one: one.ratio or 0.0)
        raise LlmrunError(
            "regression",
            f"{len(slower)} of {len(rows)} cases are more than {tolerance:.0%} slower than before",
            hint=f"the worst is {worst.name}, at {worst.ratio or 0.0:.3f} of its rate; "
            "measure again on a quiet machine to be sure",
        )


def _notify(text: str) -> None:
    typer.echo(text, err=True)
