"""The manual in man/, completions/ and docs/cli.md is what tools/manual.py makes of the commands, and reads well."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted((REPOSITORY / "man").glob("*.1"))
sys.path.append(str(REPOSITORY / "tools"))  # a folder of scripts, as benchmarks/ is: no package

import manual  # noqa: E402
from cli_page import cli_page  # noqa: E402
from command_tree import read_commands  # noqa: E402
from man_page import man_pages  # noqa: E402
from notes import Notes, read_notes, read_variables  # noqa: E402
from roff import prose, signature, verbatim  # noqa: E402

from llmrun.cli.app import app  # noqa: E402

NOTES = Notes("2026-01-01", {"0": "Done."}, {"paint": {"0": "Painted."}}, {"`COLOUR`": "As `--colour`."}, {}, {})


@pytest.fixture
def toy():
    """An app with one command that has every kind of parameter."""
    made = typer.Typer(rich_markup_mode=None, add_completion=False, context_settings={"help_option_names": ["-h"]})

    @made.callback()
    def root() -> None:
        """Make pictures."""

    @made.command()
    def paint(
        target: Annotated[list[str], typer.Argument(metavar="WALL...", help="Where", show_default=False)],
        colour: Annotated[str, typer.Option("--colour", "-c", metavar="A|B", envvar="COLOUR", help="Of `it`; <any>.")],
        coats: Annotated[int | None, typer.Option(min=1, max=9, metavar="N", show_default="1; 2 outside")] = None,
        shiny: Annotated[bool, typer.Option("--shiny/--matt", help="How it looks.")] = False,
        hidden: Annotated[bool, typer.Option(hidden=True)] = False,
    ) -> None:
        """Paint a wall. It dries.

        .hidden files stay.
        """

    @made.command(hidden=True)
    def secret() -> None:
        """Not told."""

    return read_commands(made)


def test_what_is_committed_is_current():
    assert manual.stale(REPOSITORY, manual.manual()) == [], "`python tools/manual.py` renews them"


def test_stale_names_what_differs_is_missing_or_is_too_much(tmp_path):
    wanted = {"man/a.1": "a", "man/b.1": "b", "docs/cli.md": "c"}
    assert manual.write(tmp_path, wanted) == list(wanted)
    assert manual.stale(tmp_path, wanted) == []
    (tmp_path / "man" / "a.1").write_text("other")
    (tmp_path / "man" / "b.1").unlink()
    (tmp_path / "man" / "gone.1").write_text("")
    assert manual.stale(tmp_path, wanted) == ["man/a.1", "man/b.1", "man/gone.1"]
    manual.write(tmp_path, wanted)
    assert [path.name for path in sorted((tmp_path / "man").iterdir())] == ["a.1", "b.1"]


def test_check_says_what_is_stale(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(manual, "REPOSITORY", tmp_path)
    assert manual.main(["--check"]) == 1
    assert "stale: man/llmrun-chat.1\n" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert manual.main([]) == 0
    assert manual.main(["--check"]) == 0


def test_commands_as_they_are_read(toy):
    root, paint = toy
    assert (root.name, root.usage, root.summary) == ("llmrun", "llmrun [OPTIONS] COMMAND [ARGS]...", "Make pictures")
    assert (paint.page, paint.usage) == ("llmrun-paint", "llmrun paint [OPTIONS] WALL...")
    assert paint.paragraphs == ("Paint a wall. It dries.", ".hidden files stay.")
    assert [(one.signature, one.sentences) for one in paint.parameters] == [
        ("WALL...", "Where."),
        ("-c, --colour A|B", "Of `it`; <any>. Environment: COLOUR."),
        ("--coats N", "1 to 9. Default: 1; 2 outside."),
        ("--shiny / --matt", "How it looks. Default: matt."),
        ("-h", "Show this message and exit."),
    ]


def test_a_page_word_for_word(toy):
    assert man_pages(toy, NOTES)["llmrun-paint.1"].partition(".SH NAME")[2] == (
        r"""
llmrun\-paint \-
paint a wall
.SH SYNOPSIS
\fBllmrun paint\fR [\fIOPTIONS\fR] \fIWALL\fR...
.SH DESCRIPTION
Paint a wall.
It dries.
.PP
\&.hidden files stay.
.SH ARGUMENTS
.TP
\fIWALL...\fR
Where.
.SH OPTIONS
.TP
\fB\-c\fR, \fB\-\-colour\fR \fIA|B\fR
Of \fBit\fR; <any>.
Environment: COLOUR.
.TP
\fB\-\-coats\fR \fIN\fR
1 to 9.
Default: 1; 2 outside.
.TP
\fB\-\-shiny\fR / \fB\-\-matt\fR
How it looks.
Default: matt.
.TP
\fB\-h\fR
Show this message and exit.
.SH EXIT STATUS
.TP
\fB0\fR
Painted.
.SH ENVIRONMENT
.TP
\fBCOLOUR\fR
As \fB\-\-colour\fR.
.SH SEE ALSO
\fBllmrun\fR(1)
"""
    )


def test_the_markdown_page_shows_what_would_be_markup(toy):
    page = cli_page(toy, NOTES)
    assert "| `-c, --colour A\\|B` | Of `it`; &lt;any>. Environment: COLOUR. |\n" in page
    assert "| [`llmrun paint`](#llmrun-paint) | Paint a wall. |\n" in page


@pytest.mark.parametrize(
    ("text", "roff"),
    [
        ("a-b --c", r"a\-b \-\-c"),
        (".gguf is 'it'", r"\&.gguf is \(aqit\(aq"),
        (r"C:\n", r"C:\en"),
        ("`a b` ~ c^2", r"\fBa b\fR \(ti c\(ha2"),
        ("one. Two! 3", "one.\nTwo!\n3"),
        ("§", r"\[u00A7]"),
    ],
)
def test_prose_prints_as_it_is(text, roff):
    assert prose(text) == roff


def test_lines_stay_short_and_are_no_requests():
    lines = prose("word .gguf " * 60).splitlines()
    assert len(lines) > 5
    assert max(map(len, lines)) <= 80
    assert verbatim([".nf 'x'"]) == ".nf\n\\&.nf \\(aqx\\(aq\n.fi"
    assert signature("-p, --prompt A|B") == r"\fB\-p\fR, \fB\-\-prompt\fR \fIA|B\fR"


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
def test_mandoc_has_no_complaint():
    done = subprocess.run(["mandoc", "-Tlint", "-Wall", *PAGES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_groff_has_no_warning():
    done = subprocess.run(["groff", "-man", "-ww", "-z", "-Tutf8", *PAGES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_variable_that_is_read_is_told_of():
    source = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "llmrun").rglob("*.py"))
    read = set(re.findall(r"(?<![\w$])LLMRUN_[A-Z_]+", source))
    page = (REPOSITORY / "man" / "llmrun.1").read_text(encoding="utf-8")
    assert {"LLMRUN_RAM", "LLMRUN_CACHE"} <= read
    assert {name for name in read if f".TP\n\\fB{name}\\fR\n" not in page} == set()


def test_every_error_code_is_told_of():
    assert list(read_notes().exit_status) == ["0", "1", "2", "3", "4", "5", "130", "141"]
    assert read_notes().exit_status["5"] == "A device or a file system failed."


def test_variables_are_read_from_tables():
    page = "| Variable | Meaning |\n| --- | --- |\n| `A_B`, `C` | a `thing` |\n| `D` | 10 | seconds; 0: never |\n"
    assert dict(read_variables(page)) == {"`A_B`, `C`": "A `thing`.", "`D`": "Seconds; 0: never. Default: 10."}


def test_a_version_without_a_date_is_refused():
    with pytest.raises(KeyError):
        read_notes(version="0.0.0")


def test_every_command_has_an_example_and_each_is_understood():
    root = typer.main.get_command(app)
    lines = [example.run for examples in read_notes().examples.values() for example in examples]
    assert {line.partition("llmrun ")[2].split()[0] for line in lines} == set(root.commands)
    for line in lines:
        words = shlex.split(re.split(r" [|>] ", line[line.index("llmrun ") :])[0])
        root.commands[words[1]].make_context(words[1], words[2:])
