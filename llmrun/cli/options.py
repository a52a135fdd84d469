"""Options that several commands share, and what their text means.

A command names them in its signature: ``ram: Ram = None``. Sizes stay text until ``parse_size`` reads them, so that
a bad one is told like every other error, whether it came from the command line or the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmrun.cli import complete
from llmrun.errors import UsageError
from llmrun.settings import DEFAULT_CONTEXT_TOKENS, Budget, Workload
from llmrun.units import parse_bytes

Model = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        envvar="LLMRUN_MODEL",
        show_default="smollm2:135m",
        autocompletion=complete.models,
        help="Folder, Hugging Face id ORG/NAME[@REVISION], .gguf file, or an alias of `llmrun list`.",
    ),
]
Ram = Annotated[
    str | None,
    typer.Option(
        "--ram",
        metavar="SIZE",
        envvar="LLMRUN_RAM",
        help="Memory that the whole process may take, such as 8GiB. Default: what is free, less some headroom.",
    ),
]
Vram = Annotated[
    str | None,
    typer.Option(
        "--vram", metavar="SIZE", envvar="LLMRUN_VRAM", help="Memory that it may take on each GPU; 0 leaves them alone."
    ),
]
Context = Annotated[
    int | None,
    typer.Option("--context", metavar="TOKENS", min=1, help="Tokens of prompt and answer that memory is reserved for."),
]
Planner = Annotated[
    str | None,
    typer.Option(
        "--planner",
        metavar="NAME",
        autocompletion=complete.planners,
        help="How the placement is searched: aco (default), greedy, even, exhaustive, milp, random or nsga2.",
    ),
]
PlannerTime = Annotated[
    float | None,
    typer.Option(
        "--planner-time",
        metavar="SECONDS",
        min=0.1,
        max=3600,
        help="How long to search, about: a fixed number of simulated placements a second. Default: 1.",
    ),
]
Hardware = Annotated[
    str | None,
    typer.Option(
        "--hardware",
        metavar="FILE|PRESET",
        autocompletion=complete.presets,
        help="Plan for that machine: a file of `llmrun inspect --save`, or a preset.",
    ),
]
Optimize = Annotated[
    str,
    typer.Option(
        "--optimize",
        metavar="GOAL",
        autocompletion=complete.goals,
        help="What is to be short: total (a first request), ttft (its first token), tpot (a token) or throughput "
        "(requests one after another).",
    ),
]
PlanFile = Annotated[
    Path | None, typer.Option("--plan", metavar="FILE", help="Run this plan of `llmrun plan --output FILE`.")
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let the model's folder run its own Python code. Off by default.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, for scripts.")]

Temperature = Annotated[
    float | None,
    typer.Option("--temperature", metavar="T", help="0 takes the likeliest token. Default: the model's."),
]
TopK = Annotated[int | None, typer.Option("--top-k", metavar="K", help="Sample from the K likeliest; 0: all.")]
TopP = Annotated[
    float | None,
    typer.Option("--top-p", metavar="P", help="Sample from the likeliest that sum to P."),
]
MinP = Annotated[
    float | None,
    typer.Option("--min-p", metavar="P", help="Drop tokens below P times the likeliest."),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option("--repetition-penalty", metavar="X", help="Above 1 makes repeated tokens less likely."),
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Makes sampling repeatable.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", metavar="N", help="Longest answer, in tokens.")]
Stop = Annotated[
    list[str] | None, typer.Option("--stop", metavar="TEXT", help="End the answer before this text; may be repeated.")
]


def parse_size(option: str, text: str | None) -> int | None:
    """The bytes that the text of ``--ram`` or ``--vram`` stands for; ``None`` stays ``None``.

    Raises:
        UsageError: ``bad-size``, the text is not an amount of memory.
    """
    if text is None:
        return None
    try:
        return parse_bytes(text)
    except ValueError:
        raise UsageError(
            "bad-size",
            f"{option} {text!r} is not an amount of memory",
            hint=f"write `{option} 8GiB`, `{option} 512MiB` or a number of bytes",
        ) from None


def budget_within(default: Budget, ram_bytes: int | None, vram_bytes: int | None) -> Budget:
    """The default budget with the user's limits in it; ``vram_bytes`` holds for each GPU, 0 leaves them out."""
    ram_bytes = default.ram_bytes if ram_bytes is None else ram_bytes
    if vram_bytes is None:
        return Budget(ram_bytes, default.vram_bytes)
    return Budget(ram_bytes, dict.fromkeys(default.vram_bytes, vram_bytes) if vram_bytes else {})


def workload_within(
    model_context_tokens: int, context_tokens: int | None, prompt_tokens: int | None, new_tokens: int | None
) -> Workload:
    """What is to be run; what is not said is the default, as far as it fits the context.

    Raises:
        UsageError: ``bad-option``, prompt and new tokens are together longer than the context.
    """
    default = Workload()
    context = context_tokens or min(DEFAULT_CONTEXT_TOKENS, model_context_tokens)
    prompt = prompt_tokens or max(1, min(default.prompt_tokens, context * 2 // 3 - (new_tokens or 0)))
    new = new_tokens or max(1, min(default.new_tokens, context - prompt))
    if (prompt_tokens or new_tokens) and prompt + new > context:
        raise UsageError(
            "bad-option",
            f"{prompt:,} tokens of prompt and {new:,} new ones do not fit a context of {context:,}",
            hint=f"`--context {prompt + new}`",
        )
    return Workload(context_tokens=context, prompt_tokens=prompt, new_tokens=new)
