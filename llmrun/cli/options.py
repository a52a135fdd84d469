"""Options that several commands share, and what their text means.

A command names them in its signature: ``ram: Ram = None``. Sizes stay text until ``parse_size`` reads them, so that
a bad one is told like every other error, whether it came from the command line or the environment.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmrun.cli import complete
from llmrun.cli.config_match import origin, origin_rows
from llmrun.errors import UsageError
from llmrun.settings import (
    AUTO,
    DEFAULT_CONTEXT_TOKENS,
    DEFAULT_DRAFT_TOKENS,
    Budget,
    Precision,
    Quality,
    SamplingSettings,
    Speculating,
    Workload,
)
from llmrun.units import parse_bytes

if TYPE_CHECKING:
    from llmrun.checkpoint.spec import ModelSpec


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


def _refuse_size(name: str, text: object) -> None:
    parse_size(f"--{name}", str(text))


def _refuse_planner(name: str, planner: object) -> None:
    from llmrun.planner.make import check_planner

    check_planner(str(planner))


def _refuse_quality(name: str, quality: object) -> None:
    parse_precision(str(quality), None)


def _refuse_format(name: str, format_name: object) -> None:
    parse_precision(None, str(format_name))


def parse_precision(quality: str | None, format_name: str | None) -> Precision:
    """What ``--quality`` and ``--format`` stand for.

    Raises:
        UsageError: ``bad-option``, there is none of that name.
    """
    from llmrun.checkpoint.recipe import recipe

    if quality is not None and quality.lower() not in list(Quality):
        raise UsageError("bad-option", f"--quality {quality}: no such level", hint=f"one of {', '.join(Quality)}")
    level = Quality.LOSSLESS if quality is None else Quality(quality.lower())
    return Precision(level, recipe(format_name).name if format_name is not None else None)


def _refuse_speculation(name: str, how: object) -> None:
    if not str(how).strip():
        raise UsageError("bad-option", "--speculate is empty", hint="one of auto, off, self, ngram, or a model")


def _refuse_sampling(name: str, value: object) -> None:
    from llmrun.engine.options import check_options

    check_options(SamplingSettings(**{name: value}))  # type: ignore[arg-type]


def _checked(refuse: Callable[[str, object], None]) -> Callable[[typer.Context, typer.CallbackParam, object], object]:
    """A callback for Typer that refuses a bad value, and says where it is from unless it was typed."""

    def callback(context: typer.Context, parameter: typer.CallbackParam, value: object) -> object:
        try:
            if value is not None:
                refuse(parameter.name or "", value)
        except UsageError as error:
            error.rows += origin_rows(context, parameter)
            raise
        return _unless_planned(context, parameter, value)

    return callback


def _unless_planned(context: typer.Context, parameter: typer.CallbackParam, value: object) -> object:
    """A plan file has some of its own, to which those of the environment and settings give way."""
    planned = context.params.get("plan") or context.lookup_default("plan")
    in_plan = not IN_PLAN.isdisjoint(parameter.opts)
    return None if planned and in_plan and origin(context, parameter) else value


IN_PLAN = frozenset({"--context", "--planner", "--quality", "--format"})
"""What a plan has of its own."""

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
        callback=_checked(_refuse_size),
        show_default="what is free, less some headroom",
        help="Memory that the whole process may take, such as 8GiB.",
    ),
]
Vram = Annotated[
    str | None,
    typer.Option(
        "--vram",
        metavar="SIZE",
        envvar="LLMRUN_VRAM",
        callback=_checked(_refuse_size),
        show_default="what is free, less some headroom",
        help="Memory that it may take on each GPU; 0 leaves them alone.",
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        "--context",
        metavar="TOKENS",
        min=1,
        envvar="LLMRUN_CONTEXT",
        callback=_unless_planned,
        show_default=f"{DEFAULT_CONTEXT_TOKENS}, or what the model was made for",
        help="Tokens of prompt and answer that memory is reserved for.",
    ),
]
Planner = Annotated[
    str | None,
    typer.Option(
        "--planner",
        metavar="NAME",
        envvar="LLMRUN_PLANNER",
        callback=_checked(_refuse_planner),
        show_default="aco",
        autocompletion=complete.planners,
        help="How the placement is searched: aco, greedy, even, exhaustive, milp, random or nsga2.",
    ),
]
QualityLevel = Annotated[
    str | None,
    typer.Option(
        "--quality",
        metavar="LEVEL",
        envvar="LLMRUN_QUALITY",
        callback=_checked(_refuse_quality),
        show_default="lossless",
        autocompletion=complete.qualities,
        help="How near to the model's own numbers: lossless; high may keep weights in RAM in 8 bits, balanced in 8 or "
        "4, small in 4, where that is faster. From balanced on states are rounded to 8 bits, not to 16.",
    ),
]
KeptFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        envvar="LLMRUN_FORMAT",
        callback=_checked(_refuse_format),
        show_default="what the quality allows",
        autocompletion=complete.formats,
        help="Keep the weights that stay in RAM in this format, rounded as they come in: q4, q8 or a type of GGUF.",
    ),
]
Speculate = Annotated[
    str | None,
    typer.Option(
        "--speculate",
        metavar="HOW",
        envvar="LLMRUN_SPECULATE",
        callback=_checked(_refuse_speculation),
        show_default=AUTO,
        autocompletion=complete.drafters,
        help="Guess tokens and check several in one pass; the answer is the same. self: by a copy of what is read from "
        "disk, in RAM in 4 bits; auto: so, where that is faster; ngram: what followed the same words before; off; or a "
        "small model with the same tokenizer, named as MODEL is.",
    ),
]
DraftTokens = Annotated[
    int | None,
    typer.Option(
        "--draft-tokens",
        metavar="N",
        min=1,
        max=255,
        envvar="LLMRUN_DRAFT_TOKENS",
        show_default=str(DEFAULT_DRAFT_TOKENS),
        help="With --speculate: at most so many guesses a pass.",
    ),
]
PlannerTime = Annotated[
    float | None,
    typer.Option(
        "--planner-time",
        metavar="SECONDS",
        min=0.1,
        max=3600,
        show_default="1",
        help="How long to search, about: a fixed number of simulated placements a second.",
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

_SAMPLING = _checked(_refuse_sampling)
_FROM_MODEL = "the model's"
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        metavar="T",
        callback=_SAMPLING,
        show_default=_FROM_MODEL,
        help="0 takes the likeliest token.",
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(
        "--top-k",
        metavar="K",
        callback=_SAMPLING,
        show_default=_FROM_MODEL,
        help="Sample from the K likeliest; 0: all.",
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        metavar="P",
        callback=_SAMPLING,
        show_default=_FROM_MODEL,
        help="Sample from the likeliest that sum to P.",
    ),
]
MinP = Annotated[
    float | None,
    typer.Option(
        "--min-p",
        metavar="P",
        callback=_SAMPLING,
        show_default=_FROM_MODEL,
        help="Drop tokens below P times the likeliest.",
    ),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(
        "--repetition-penalty",
        metavar="X",
        callback=_SAMPLING,
        show_default=_FROM_MODEL,
        help="Above 1 makes repeated tokens less likely.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", callback=_SAMPLING, show_default="another each time", help="Makes sampling repeatable."
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        metavar="N",
        callback=_SAMPLING,
        show_default="the rest of the context",
        help="Longest answer, in tokens.",
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        "--stop",
        metavar="TEXT",
        callback=_SAMPLING,
        help="End the answer before this text; may be repeated.",
    ),
]


def speculating(how: str | None, draft_tokens: int | None) -> Speculating:
    """What ``--speculate`` and ``--draft-tokens`` say."""
    return Speculating(how or AUTO, draft_tokens or DEFAULT_DRAFT_TOKENS)


def budget_within(default: Budget, ram_bytes: int | None, vram_bytes: int | None) -> Budget:
    """The default budget with the user's limits in it; ``vram_bytes`` holds for each GPU, 0 leaves them out."""
    ram_bytes = default.ram_bytes if ram_bytes is None else ram_bytes
    if vram_bytes is None:
        return Budget(ram_bytes, default.vram_bytes)
    return Budget(ram_bytes, dict.fromkeys(default.vram_bytes, vram_bytes) if vram_bytes else {})


def workload_within(
    spec: ModelSpec, context_tokens: int | None, prompt_tokens: int | None, new_tokens: int | None
) -> Workload:
    """What is to be run; what is not said is the default, as far as it fits the context.

    Raises:
        UsageError: ``bad-option``, prompt and new tokens are together longer than the context.
    """
    from llmrun.planner.memory import prefill_chunk_tokens

    default = Workload()
    context = context_tokens or min(DEFAULT_CONTEXT_TOKENS, spec.context_tokens)
    prompt = prompt_tokens or max(1, min(default.prompt_tokens, context * 2 // 3 - (new_tokens or 0)))
    new = new_tokens or max(1, min(default.new_tokens, context - prompt))
    if (prompt_tokens or new_tokens) and prompt + new > context:
        raise UsageError(
            "bad-option",
            f"{prompt:,} tokens of prompt and {new:,} new ones do not fit a context of {context:,}",
            hint=f"`--context {prompt + new}`",
        )
    return Workload(context, 0, prompt, new, prefill_chunk_tokens=prefill_chunk_tokens(spec))
