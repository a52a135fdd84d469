"""The pages lead where they say, and name commands, options, scripts and errors that there are. Nothing is run."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from llmrun.cli.app import app

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
GENERATED = {"cli.md"}  # held against the app word for word elsewhere
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
SHELL = {"sh", "console", "bash"}
COMMAND = typer.main.get_command(app)
ABSOLUTE = re.compile(r"(?<![\w./~*:>-])/(\w+)/")  # a path of some machine
EVERYWHERE = {"proc", "sys", "dev", "etc", "v1"}
EXAMPLE_HOME = "/home/me/"
HYPE = re.compile(r"\b(?:blazing|seamless|effortless|leverag\w+|cutting-edge|simply)\b", re.IGNORECASE)


def prose(text: str) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    """Relative links that lead to no file, or to no heading of it."""
    for link in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if "://" in link:
            continue
        if not target.exists():
            yield f"{link}: no such file"
        elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
            yield f"{link}: no such heading"


def shell_lines(text: str) -> Iterator[str]:
    """The commands of the fenced blocks for a shell; of a session those after the prompt, continued lines joined."""
    for language, block in FENCE.findall(text):
        if language in SHELL:
            joined = block.replace("\\\n", " ").splitlines()
            session = language == "console"
            yield from (line.removeprefix("$ ") for line in joined if not session or line.startswith("$ "))


def commands(text: str) -> Iterator[list[str]]:
    """Words of each command of a page: blocks for a shell, and code within the text; one list a part of a pipe."""
    for line in (*shell_lines(text), *CODE.findall(prose(text))):
        try:
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:  # an apostrophe in what is no command
            continue
        part: list[str] = []
        for word in [*words, "|"]:
            if re.fullmatch(r"[|&;<>]+", word):
                yield part
                part = []
            elif part or not re.fullmatch(r"[A-Z_]+=.*", word):
                part.append(word)


def options_of(command: object) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def unknown_llmrun(words: list[str]) -> Iterator[str]:
    """Commands and options of ``llmrun ...`` that there are not; a word in capitals stands for any command."""
    named = next((word for word in words[1:] if not word.startswith("-")), "")
    if not named or named.isupper() or named == "...":
        known = options_of(COMMAND) | {"--help", "-h"}
    elif named in COMMAND.commands:
        known = options_of(COMMAND.commands[named]) | {"--help", "-h"}
    else:
        yield f"llmrun {named}: no such command"
        return
    for word in words[1:]:
        name = word.strip("[]").partition("=")[0]
        if re.match(r"--?[a-z]", name) and name not in known:
            yield f"llmrun {named} {name}: no such option"


def unknown_script(words: list[str]) -> Iterator[str]:
    """Scripts of the repository that there are not, and options that they do not mention."""
    script = next((REPOSITORY / word for word in words if re.match(r"(benchmarks|tools)/[a-z_0-9]+\.py$", word)), None)
    if script is None:
        return
    if not script.exists():
        yield f"{script.name}: no such script"
        return
    own = words[words.index(str(script.relative_to(REPOSITORY))) + 1 :]
    own = own[: own.index("--")] if "--" in own else own
    text = script.read_text(encoding="utf-8") + script.with_name("common.py").read_text(encoding="utf-8")
    options = (word.strip("[]").partition("=")[0] for word in own if word.startswith("--"))
    yield from (f"{script.name} {name}: no such option" for name in options if f'"{name}"' not in text)


def unknown(text: str) -> list[str]:
    """Everything that a page names and that is not there."""
    found: list[str] = []
    for words in commands(text):
        if words[:1] and Path(words[0]).name == "llmrun" and not words[0].endswith("/"):
            found += unknown_llmrun(words)
        found += unknown_script(words)
    return found


def unwanted(text: str) -> list[str]:
    """Words that say nothing, and the beginnings of paths that only one machine has."""
    roots = ABSOLUTE.findall(text.replace(EXAMPLE_HOME, ""))
    return [*HYPE.findall(text), *(root for root in roots if root not in EVERYWHERE)]


def pages() -> list[Path]:
    return [page for page in PAGES if page.name not in GENERATED]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_commands_and_scripts_are_there(page):
    assert unknown(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_words_that_say_nothing_and_paths_of_one_machine_are_not_there(page):
    assert unwanted(page.read_text(encoding="utf-8")) == []


def test_every_page_is_in_the_index():
    index = (REPOSITORY / "docs" / "README.md").read_text(encoding="utf-8")
    linked = {link.partition("#")[0] for link in LINK.findall(index)}
    assert {page.name for page in (REPOSITORY / "docs").glob("*.md")} - {"README.md"} <= linked


def test_errors_that_troubleshooting_names_are_listed():
    listed = (REPOSITORY / "docs" / "errors.md").read_text(encoding="utf-8")
    named = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8").partition("## By error")[2]
    rows = re.findall(r"^\| `([a-z-]+)` \|", named, re.MULTILINE)
    assert len(rows) > 5
    assert [row for row in rows if f"| `{row}` |" not in listed] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`llmrun chat --ram 8GiB`", []),
        ("`llmrun chat --rma 8GiB`", ["llmrun chat --rma: no such option"]),
        ("`llmrun plan MODEL [--vram 1GiB --nonsense]`", ["llmrun plan --nonsense: no such option"]),
        ("`llmrun dance`", ["llmrun dance: no such command"]),
        ("`llmrun COMMAND --help`, `llmrun --version`, `LLMRUN_RAM=1GiB llmrun list`", []),
        ("```console\n$ git diff | llmrun chat -z\noutput: llmrun dance\n```", ["llmrun chat -z: no such option"]),
        ("```sh\npython benchmarks/peers.py M \\\n  --rnus 3\n```", ["peers.py --rnus: no such option"]),
        ("```sh\npython benchmarks/limited.py --ram 1GiB -- llmrun chat -p x\n```", []),
        ("`benchmarks/nothing.py`", ["nothing.py: no such script"]),
        ("```json\nllmrun dance\n```", []),
    ],
)
def test_what_is_found(text, found):
    assert unknown(text) == found


def test_how_links_are_followed(tmp_path):
    page = tmp_path / "page.md"
    tmp_path.joinpath("other.md").write_text("# Other page\n## 1. `a --b`, at last\n```\n# no heading\n```\n")
    page.write_text("[a](other.md) [b](other.md#1-a---b-at-last) [c](other.md#no-heading) [d](gone.md) [e](#gone)\n")
    assert list(broken_links(page)) == [
        "other.md#no-heading: no such heading",
        "gone.md: no such file",
        "#gone: no such heading",
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("saved in /srv/models/plan.json", ["srv"]),
        ("`/proc/self/io`, `/set`, `~/.cache/llmrun/x`, /home/me/.config/x, https://a.example/b/c, `and/or/else`", []),
        ("It is Simply fast.", ["Simply"]),
    ],
)
def test_what_is_unwanted(text, found):
    assert unwanted(text) == found
