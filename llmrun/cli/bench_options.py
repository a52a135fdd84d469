"""The options of ``llmrun bench`` that no other command has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmrun.cli import complete

_FORMATS = complete.choices("md", "csv", "json", "jsonl", "sql")

NPrompt = Annotated[
    list[str] | None,
    typer.Option("--n-prompt", "-p", metavar="N", show_default="512", help="Prompts of N tokens; 0: none."),
]
NGen = Annotated[
    list[str] | None,
    typer.Option("--n-gen", "-n", metavar="N", show_default="128", help="N new tokens; 0: none."),
]
PromptAndGen = Annotated[
    list[str] | None,
    typer.Option("-pg", metavar="PP,TG", help="A prompt and the new tokens after it, timed as one."),
]
NDepth = Annotated[
    list[str] | None,
    typer.Option(
        "--n-depth", "-d", metavar="N", show_default="0", help="N tokens are in the KV cache before each of these."
    ),
]
Repetitions = Annotated[
    int, typer.Option("--repetitions", "-r", metavar="N", min=1, max=10000, help="Samples of each case.")
]
NoWarmup = Annotated[bool, typer.Option("--no-warmup", help="Leave out the run before the first sample of each case.")]
Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="FORMAT",
        autocompletion=_FORMATS,
        help="Rows on standard output: md, csv, json, jsonl or sql.",
    ),
]
OutputErr = Annotated[
    str | None,
    typer.Option(
        "--output-err", "-oe", metavar="FORMAT", autocompletion=_FORMATS, help="The same on standard error, too."
    ),
]
Progress = Annotated[bool, typer.Option("--progress", help="Say on standard error which repetition begins.")]
Cold = Annotated[
    bool,
    typer.Option("--cold", help="Start anew for each sample, the weights dropped from memory: loading is in it."),
]
Context = Annotated[
    int | None,
    typer.Option(
        "--context",
        metavar="TOKENS",
        min=1,
        show_default="what the longest case needs",
        help="Tokens that memory is reserved for.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, show_default="0", help="Of the random tokens, and of a new plan."),
]
Compare = Annotated[
    Path | None,
    typer.Option("--compare", metavar="FILE", help="Hold the rates against those of an earlier -o json."),
]
Tolerance = Annotated[
    float,
    typer.Option(
        "--tolerance", metavar="SHARE", min=0, max=1, help="With --compare: so much slower is still the same."
    ),
]
Sweep = Annotated[
    str | None,
    typer.Option(
        "--sweep",
        metavar="OPTION=VALUES",
        help="Rows for each value, in place of that option: ram=2GiB,4GiB, vram=... or context=...",
    ),
]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="With --sweep: draw it, as .png or .svg.")]
Ui = Annotated[
    str | None,
    typer.Option(
        "--ui",
        metavar="VIEW",
        envvar="LLMRUN_UI",
        show_default="dashboard",
        autocompletion=complete.choices("dashboard", "simple", "none"),
        help="What a terminal shows meanwhile: dashboard, simple or none.",
    ),
]
