"""docs/settings.md lists every variable of the environment that llmrun reads, and no other; so does `llmrun config`."""

import re
from pathlib import Path

from llmrun.cli.app import app
from llmrun.cli.config_report import ONLY_VARIABLES

REPOSITORY = Path(__file__).parents[2]


def in_source():
    """Every LLMRUN_ variable that a module names; `LLMRUN_...` and Typer's own `_LLMRUN_COMPLETE` are none."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "llmrun").rglob("*.py"))
    return set(re.findall(r"(?<!_)\bLLMRUN_[A-Z_]*[A-Z]\b", text))


def on_the_page():
    """Variable -> what holds without it, of the table of ours."""
    text = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `(LLMRUN_[A-Z_]+)` \| ([^|]+) \| [^|]+ \|$", text, re.MULTILINE))


def of_options():
    """Variable -> option, of every command."""
    import typer

    commands = typer.main.get_command(app).commands.values()
    return {str(one.envvar): one for command in commands for one in command.params if one.envvar}


def test_the_page_lists_what_the_source_reads():
    assert on_the_page().keys() == in_source()


def test_config_shows_what_the_page_lists():
    assert on_the_page().keys() == {*of_options(), *ONLY_VARIABLES, "LLMRUN_CONFIG"}


def test_a_shared_option_has_the_variable_of_its_name():
    for variable, option in of_options().items():
        names = {option.name, *(name.lstrip("-").replace("-", "_") for name in option.opts)}
        assert variable.removeprefix("LLMRUN_").lower() in names


def test_the_page_says_what_holds_without_a_variable():
    page = {variable: text.replace("`", "") for variable, text in on_the_page().items()}
    assert {variable: page[variable] for variable in ONLY_VARIABLES} == ONLY_VARIABLES
    assert page["LLMRUN_CONTEXT"] == of_options()["LLMRUN_CONTEXT"].show_default
