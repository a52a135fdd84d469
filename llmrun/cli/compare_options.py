"""The options of ``llmrun compare`` that no other command has."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from llmrun.cli import complete


class Interface(StrEnum):
    """Which interface of a server is asked."""

    CHAT = "chat"
    COMPLETIONS = "completions"


Target = Annotated[
    list[str],
    typer.Argument(
        metavar="TARGET",
        autocompletion=complete.targets,
        help="http(s)://HOST:PORT of a server, or NAME=URL; llmrun, or llmrun:MODEL. The first is 100 %.",
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        envvar="LLMRUN_MODEL",
        show_default="the first that a server lists; smollm2:135m",
        help="Its name at the servers, and for llmrun; where it is not given here, for llmrun only.",
    ),
]
Endpoint = Annotated[Interface, typer.Option("--endpoint", help="Ask for chat answers or plain completions.")]
NumPrompts = Annotated[
    int | None,
    typer.Option("--num-prompts", metavar="N", min=1, help="Requests. Default: 10, or all of FILE."),
]
InputLen = Annotated[
    int | None, typer.Option("--input-len", metavar="N", min=1, help="Random words of a prompt. Default: 512.")
]
OutputLen = Annotated[int, typer.Option("--output-len", metavar="N", min=1, help="Tokens to ask for.")]
Dataset = Annotated[
    Path | None,
    typer.Option("--dataset", metavar="FILE", help="Prompts instead of random words: JSON lines with `prompt`."),
]
RequestRate = Annotated[float, typer.Option("--request-rate", metavar="R", help="Arrivals a second; inf: all at once.")]
Burstiness = Annotated[
    float, typer.Option("--burstiness", metavar="B", help="1: Poisson arrivals, less: in bursts, more: evener.")
]
MaxConcurrency = Annotated[
    int | None, typer.Option("--max-concurrency", metavar="N", min=1, help="Most requests under way at once.")
]
NumWarmups = Annotated[
    int, typer.Option("--num-warmups", metavar="N", min=0, help="Requests before, which are not measured.")
]
IgnoreEos = Annotated[bool, typer.Option("--ignore-eos", help="Have all tokens generated, where the server can.")]
Goodput = Annotated[
    list[str] | None,
    typer.Option("--goodput", metavar="ttft:MS tpot:MS e2el:MS", help="Also count requests that keep to these."),
]
Percentiles = Annotated[str, typer.Option("--percentiles", metavar="P,...", help="Of each latency.")]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="A request that takes longer has failed.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of prompts and arrivals.")]
