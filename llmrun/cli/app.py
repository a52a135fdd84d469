"""The ``llmrun`` command: one file a command, one place where errors become text and an exit code.

Exit codes are those of ``llmrun.errors``; 141 (128 + SIGPIPE) when the reader of standard output went away, as
``head`` does. Typer carries its own Click, so the command is invoked here and its exceptions are told in our format.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]

from llmrun import __version__
from llmrun.cli.bench import bench
from llmrun.cli.chat import chat
from llmrun.cli.compare import compare
from llmrun.cli.config import config
from llmrun.cli.config_match import WITHOUT_SETTINGS, origin_rows, use_settings_file
from llmrun.cli.inspect import inspect_host
from llmrun.cli.list import list_models
from llmrun.cli.plan import plan
from llmrun.cli.pull import pull
from llmrun.cli.quantize import quantize
from llmrun.cli.rm import rm
from llmrun.errors import DeviceError, Interrupted, LlmrunError, UsageError

EXIT_CLOSED_OUTPUT = 141
COMPLETION_VARIABLE = "_LLMRUN_COMPLETE"
TRACEBACK_VARIABLE = "LLMRUN_TRACEBACK"

app = typer.Typer(
    name="llmrun",
    help="Run language models that are larger than your memory.",
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`llmrun chat` answers with the default model; `llmrun COMMAND --help` lists a command's options.",
)
app.command("chat")(chat)
app.command("bench")(bench)
app.command("compare")(compare)
app.command("plan")(plan)
app.command("pull")(pull)
app.command("quantize")(quantize)
app.command("list")(list_models)
app.command("rm")(rm)
app.command("inspect")(inspect_host)
app.command("config")(config)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llmrun {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    elif context.invoked_subcommand not in WITHOUT_SETTINGS:
        use_settings_file(context)


def main(args: Sequence[str] | None = None, app: typer.Typer = app) -> int:
    """Run the command line and return its exit code; every error has been told when it returns."""
    _replace_what_cannot_be_encoded()
    try:
        code = _invoke(app, sys.argv[1:] if args is None else args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _discard_output()
        return EXIT_CLOSED_OUTPUT
    except OSError as error:
        return _report(_disk_full(error) if error.errno == errno.ENOSPC else _internal(error))
    except (KeyboardInterrupt, typer.Abort):  # Abort: Ctrl-C or Ctrl-D at a question
        return _report(Interrupted())
    except typer.TyperException as error:
        rows = origin_rows(getattr(error, "ctx", None), getattr(error, "param", None))
        return _report(UsageError("bad-option", _sentence(error), rows=rows, hint=_help_hint(error)))
    except LlmrunError as error:
        return _report(error)
    except Exception as error:
        return _report(_internal(error))


def _invoke(app: typer.Typer, args: Sequence[str]) -> int:
    command = typer.main.get_command(app)
    if COMPLETION_VARIABLE in os.environ:
        completion_init()
        command(list(args), prog_name="llmrun")  # Typer's own main answers the shell and exits
    try:
        with command.make_context("llmrun", list(args)) as context:
            command.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    return 0


def _report(error: LlmrunError) -> int:
    if os.environ.get(TRACEBACK_VARIABLE):
        import traceback

        traceback.print_exc()
    if isinstance(error, Interrupted):  # a second Ctrl-C must not meet an interpreter that is leaving already
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # the reader of stderr may be gone too
        sys.stdout.flush()
        sys.stderr.write(error.render() + "\n")
    return error.exit_code


def _disk_full(error: OSError) -> LlmrunError:
    """Standard output may be a file on a full disk."""
    _discard_output()
    return DeviceError("disk-full", f"{error.filename or 'standard output'} cannot be written: {error.strerror}")


def _internal(error: Exception) -> LlmrunError:
    return LlmrunError(
        "internal-error",
        f"{type(error).__name__}: {error}",
        hint=f"this is a bug of llmrun; `{TRACEBACK_VARIABLE}=1` shows where it happened",
    )


def _sentence(error: typer.TyperException) -> str:
    return error.format_message().replace("\n\t", " ")


def _help_hint(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "llmrun"
    return f"`{path} --help` lists what it takes"


def _replace_what_cannot_be_encoded() -> None:
    """A terminal that knows no UTF-8 gets a ``?``, not an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _discard_output() -> None:
    """Send what is still buffered nowhere, so that the interpreter's last flush does not complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
