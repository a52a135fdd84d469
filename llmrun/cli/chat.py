"""``llmrun chat``: a conversation in the terminal, or one answer for a script."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from llmrun.cli import complete, options
from llmrun.cli.run import Notify, Running, RunSettings, start
from llmrun.errors import Interrupted, UsageError
from llmrun.settings import SamplingSettings
from llmrun.tui.ui import Ui, resolve_ui

if TYPE_CHECKING:
    from llmrun.engine.session import Session
    from llmrun.metrics import MetricsState
    from llmrun.tui.answer import View
    from llmrun.tui.chat import OpenView
    from llmrun.tui.live import LiveView

Start = Callable[[RunSettings, Notify, Notify], AbstractContextManager[Running]]


@dataclass(frozen=True)
class ChatSettings:
    """What is asked and how the answer is given; ``prompt`` is ``None`` for a conversation."""

    run: RunSettings
    sampling: SamplingSettings
    prompt: str | None = None
    system: str | None = None
    think: bool | None = None
    stats: bool = False
    json: bool = False
    ui: Ui = Ui.SIMPLE


def chat(
    model: options.Model = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="Answer this and exit.")] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="Answer this file and exit; after -p, if given.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="System prompt.")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Print speed, reads and memory on standard error.")] = False,
    json: options.Json = False,
    think: Annotated[
        bool | None, typer.Option("--think/--no-think", help="Whether a thinking model thinks before it answers.")
    ] = None,
    ram: options.Ram = None,
    vram: options.Vram = None,
    context: options.Context = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    seed: options.Seed = None,
    max_tokens: options.MaxTokens = None,
    stop: options.Stop = None,
    planner: options.Planner = None,
    plan: options.PlanFile = None,
    speculate: options.Speculate = None,
    draft_tokens: options.DraftTokens = None,
    quality: options.QualityLevel = None,
    format_name: options.KeptFormat = None,
    ui: Annotated[
        str | None,
        typer.Option(
            "--ui",
            metavar="VIEW",
            envvar="LLMRUN_UI",
            show_default="simple",
            autocompletion=complete.choices(*Ui),
            help="What a terminal shows while it answers: dashboard, simple (a line) or none.",
        ),
    ] = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Talk with a model, or get one answer.

    One answer is for a prompt given with -p, -f or on standard input. Then only the answer goes to standard output,
    and everything else to standard error.
    """
    settings = ChatSettings(
        RunSettings(
            model=model,
            ram_bytes=options.parse_size("--ram", ram),
            vram_bytes=options.parse_size("--vram", vram),
            context_tokens=context,
            planner=planner,
            plan_file=plan,
            precision=options.parse_precision(quality, format_name),
            trust_remote_code=trust_remote_code,
            speculating=options.speculating(speculate, draft_tokens),
        ),
        SamplingSettings(
            temperature, top_k, top_p, min_p, repetition_penalty, seed, max_tokens, stop=tuple(stop or ())
        ),
        prompt=read_prompt(prompt, file, sys.stdin),
        system=system,
        think=think,
        stats=stats,
        json=json,
        ui=resolve_ui(ui, Ui.SIMPLE, sys.stderr),
    )
    run_chat(settings, start)


def read_prompt(text: str | None, file: str | None, stdin: TextIO | None) -> str | None:
    """The prompt: ``-p``, then ``-f`` (``-`` is standard input); with neither, standard input unless it is a terminal.

    ``None`` asks for a conversation. Standard input is left alone where ``-p`` or ``-f`` is given: it may be a pipe
    that nobody closes.

    Raises:
        UsageError: ``empty-prompt``, ``file-unreadable``, ``not-text``.
    """
    if text is None and file is None and stdin is not None and stdin.isatty():
        return None
    parts = [] if text is None else [text]
    if file == "-" or (text is None and file is None):
        parts.append(_read_stdin(stdin))
    elif file is not None:
        parts.append(_read_file(file))
    prompt = "\n\n".join(part.rstrip("\n") for part in parts)
    if not prompt.strip():
        raise UsageError("empty-prompt", "The prompt is empty", hint='`llmrun chat -p "a question"`')
    return prompt


def run_chat(settings: ChatSettings, start: Start) -> None:
    """Answer once or talk, with the engine that ``start`` gives.

    Raises:
        UsageError: options that mean nothing; before the model is looked for.
        Interrupted: the user stopped the one answer.
        LlmrunError: what ``start`` and the engine raise.
    """
    from llmrun.engine.options import check_options

    check_options(settings.sampling)
    if settings.prompt is None:
        if settings.json:
            raise UsageError("bad-option", "--json is for one answer", hint="give the prompt with -p, -f or a pipe")
        _talk(settings, start)
    else:
        _answer_once(settings, settings.prompt, start)


def _answer_once(settings: ChatSettings, prompt: str, start: Start) -> None:
    from llmrun.cli.report import report_json
    from llmrun.events import FinishReason
    from llmrun.tui.answer import Answer, show_answer
    from llmrun.tui.progress import ProgressLine
    from llmrun.tui.stats import stats_text

    answer = Answer(None if settings.json else sys.stdout)
    line = ProgressLine(wanted=settings.ui is not Ui.NONE)
    with line, start(settings.run, _notify, line.begin) as running, ExitStack() as stack:
        session = _session(settings, running)
        view: View = line
        if settings.ui is Ui.DASHBOARD:
            line.erase()
            view = stack.enter_context(_dashboard(running))
        try:
            state = show_answer(session.ask(prompt), answer.write, view)
        finally:
            answer.end()
        if settings.json:
            typer.echo(report_json(running.spec, running.plan, answer.text, state))
        if settings.stats:
            typer.echo(stats_text(state), err=True)
    if state.finish_reason is FinishReason.INTERRUPTED:
        raise Interrupted


def _talk(settings: ChatSettings, start: Start) -> None:
    import platformdirs

    from llmrun.tui.about import about_text, drafts_text, placement_text
    from llmrun.tui.answer import Answer
    from llmrun.tui.chat import chat_loop, note_to_stderr, terminal_reader
    from llmrun.tui.commands import Talk
    from llmrun.tui.keyboard import no_echo
    from llmrun.tui.progress import ProgressLine

    line = ProgressLine(wanted=settings.ui is not Ui.NONE)
    with no_echo(sys.stdin), line, start(settings.run, _notify, line.begin) as running:
        read_message = terminal_reader(platformdirs.user_state_path("llmrun") / "history")
        line.erase()
        note = note_to_stderr()
        drafts = drafts_text(running.spec, running.plan)
        where = placement_text(running.spec, running.plan) + (f", drafts {drafts}" if drafts else "")
        note(f"{running.spec.name}: {where}. /help lists the commands.")
        talk = Talk(
            _session(settings, running),
            about_text(running.spec, running.plan),
            show_stats=settings.stats,
            show_status=settings.ui is not Ui.NONE,
            stats=_whole_stats(running),
        )
        chat_loop(talk, read_message, Answer(sys.stdout).write, note, _open_view(settings.ui, running))


def _open_view(ui: Ui, running: Running) -> OpenView:
    """What is drawn during each answer of a conversation."""
    from llmrun.tui.chat import progress_line

    if ui is Ui.DASHBOARD:
        return lambda: _dashboard(running)
    return lambda: progress_line(wanted=ui is not Ui.NONE)


def _dashboard(running: Running) -> AbstractContextManager[LiveView]:
    """The view of one answer; where both go to the terminal, it keeps the answer and itself apart."""
    from llmrun.tui.live import live_view

    return live_view(Ui.DASHBOARD, running.spec, running.plan, running.speeds, holds_text=sys.stdout.isatty())


def _whole_stats(running: Running) -> Callable[[MetricsState], str]:
    """What /stats says: the figures, and the dashboard as it was in the end."""
    import shutil

    from llmrun.tui.dashboard.facts import facts
    from llmrun.tui.theme import has_unicode
    from llmrun.tui.whole_stats import whole_stats_text

    known, unicode = facts(running.spec, running.plan, running.speeds), has_unicode(sys.stderr)
    return lambda state: whole_stats_text(state, known, shutil.get_terminal_size().columns - 1, unicode=unicode)


def _session(settings: ChatSettings, running: Running) -> Session:
    from llmrun.engine.session import Session

    return Session(running.engine, running.engine.tokenizer, settings.sampling, settings.system, settings.think)


def _notify(text: str) -> None:
    typer.echo(text, err=True)


def _read_stdin(stdin: TextIO | None) -> str:
    try:
        return stdin.read() if stdin is not None else ""
    except UnicodeDecodeError as error:
        raise UsageError("not-text", f"standard input is not UTF-8 text (byte {error.start:,})") from None


def _read_file(file: str) -> str:
    from llmrun.tui.commands import read_text

    return read_text(Path(file))
