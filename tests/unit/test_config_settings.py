"""Settings from the file, the environment and flags, as commands take them and as `llmrun config` shows them."""

import json
import tomllib
from importlib.resources import files

import pytest
from fake_engine import FakeEngine, starts

from llmrun.cli.app import main
from llmrun.cli.config_report import ONLY_VARIABLES, SECRETS


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes the settings file that is in force."""
    path = tmp_path / "config.toml"
    monkeypatch.setenv("LLMRUN_CONFIG", str(path))

    def write(text):
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def chatted(monkeypatch):
    """Chats with more arguments, and gives the run's settings and the sampling that arrived."""

    def chat(*args):
        engine, seen = FakeEngine(["Paris."]), []
        monkeypatch.setattr("llmrun.cli.chat.start", starts(engine, seen))
        assert main(["chat", "-p", "Where?", *args]) == 0
        return seen[0], engine.samplings[0]

    return chat


def shown(capsys, *, code=0):
    """(command, setting) -> its object in the JSON of `llmrun config`."""
    assert main(["config", "--json"]) == code
    value = json.loads(capsys.readouterr().out)
    assert value["schema"] == 1
    return {(one["command"], one["name"]): one for one in value["settings"]}


def refusal(capsys, *args):
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_flags_win_over_the_environment_and_that_over_the_file(write, chatted, monkeypatch):
    write('ram = "1GiB"\nvram = 0\ncontext = 100\nmodel = "some/model"\n')
    run, _ = chatted()
    assert (run.model, run.ram_bytes, run.vram_bytes, run.context_tokens) == ("some/model", 2**30, 0, 100)
    monkeypatch.setenv("LLMRUN_RAM", "2GiB")
    monkeypatch.setenv("LLMRUN_CONTEXT", "200")
    run, _ = chatted("--ram", "3GiB")
    assert (run.ram_bytes, run.vram_bytes, run.context_tokens) == (3 * 2**30, 0, 200)


def test_a_table_wins_over_the_top_whatever_stands_first(write, chatted):
    write('planner = "greedy"\n[plan]\nplanner = "milp"\n[chat]\nplanner = "even"\n')
    assert chatted()[0].planner == "even"


def test_every_kind_of_value(write, chatted):
    write('[chat]\ntop-p = 0.5\nmax_tokens = 7\ntemperature = "0"\nstop = ["A", "B"]\ntrust_remote_code = true\n')
    run, sampling = chatted()
    assert (sampling.top_p, sampling.max_tokens, sampling.temperature, sampling.stop) == (0.5, 7, 0.0, ("A", "B"))
    assert run.trust_remote_code


def test_one_text_where_a_list_may_be(write, chatted):
    write('[chat]\nstop = "END"\n')
    assert chatted()[1].stop == ("END",)


def test_defaults_of_context_and_planner_give_way_to_a_plan(write, chatted, monkeypatch):
    write("context = 100\n")
    monkeypatch.setenv("LLMRUN_PLANNER", "greedy")
    run, _ = chatted("--plan", "a.json")
    assert (str(run.plan_file), run.context_tokens, run.planner) == ("a.json", None, None)
    assert chatted("--plan", "a.json", "--context", "5")[0].context_tokens == 5  # typed: the command refuses it
    write('context = 100\n[chat]\nplan = "b.json"\n')
    assert chatted()[0].context_tokens is None


def test_the_model_to_delete_is_no_setting(write, capsys):
    write('model = "some/model"\n')
    assert "MODEL" in refusal(capsys, "rm", "--yes")[1]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "contxt = 1",
            "line 1: there is no setting 'contxt' at the top",
            "did you mean `context`? `context` stands at",
        ),
        ("a = 1\n", "line 1: there is no setting 'a' at the top", "did you mean"),
        ("[chat]\ntop_pp = 1", "line 2: there is no setting 'top_pp' under [chat]", "`top_p` stands under [chat]"),
        (
            "temperature = 1",
            "line 1: there is no setting 'temperature' at the top",
            "`temperature` stands under [chat]",
        ),
        ("[chat]\ndry-run = 1", "line 2: there is no setting 'dry-run' under [chat]", "`dry_run` stands under [plan]"),
        ("\n[chatt]\nram = 1", "line 2: there is no command for the table [chatt]", "did you mean [chat]?"),
        ("[ram]\nx = 1", "line 1: there is no command for the table [ram]", "`ram = ...`, without a table"),
        ("[config]\njson = true", "line 1: there is no command for the table [config]", "did you mean"),
    ],
)
def test_an_unknown_key_is_refused_by_any_command(write, capsys, text, message, hint):
    path = write(text)
    lines = refusal(capsys, "list")
    assert lines[:2] == ["error: unknown-setting", f"{path}, {message}"]
    assert hint in lines[2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ram = true", "line 1: ram has to be text or a number, and is true"),
        ("ram = 2020-01-01", "line 1: ram has to be text or a number"),
        ("chat = 3\n", "line 1: there is no setting 'chat'"),
        ("[chat]\nstats = 1", "line 2: stats has to be true or false, and is 1"),
        ('[chat]\nstop = [["a"]]', "line 2: stop has to be a list of texts"),
        ("[chat.ram]\nx = 1", "ram has to be text or a number"),
        ("[chat]\ntop-k = 1\ntop_k = 2", "line 3: top_k is there already, as top-k"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(write, capsys, text, says):
    path = write(text)
    lines = refusal(capsys, "list")
    assert lines[1].startswith(str(path))
    assert says in lines[1]


@pytest.mark.parametrize(
    ("text", "reference", "says"),
    [
        ('ram = "much"', "bad-size", "--ram 'much'"),
        ('planner = "magic"', "bad-option", "--planner magic"),
        ("context = 0", "bad-option", "--context"),
        ("context = 1.5", "bad-option", "--context"),
        ("top_p = 7", "bad-option", "--top-p"),
    ],
)
def test_a_bad_value_is_told_as_on_the_command_line_with_its_place(write, capsys, text, reference, says):
    path = write(f"[chat]\n{text}\n")
    first, second, third, *_ = refusal(capsys, "chat", "-p", "x")
    assert first == f"error: {reference}"
    assert says in second
    assert third.split("  ")[-1] == f"{path}, line 2"


def test_a_bad_value_of_the_environment_names_its_variable(capsys, monkeypatch):
    monkeypatch.setenv("LLMRUN_CONTEXT", "long")
    assert refusal(capsys, "chat", "-p", "x")[2].endswith("  LLMRUN_CONTEXT")


def test_a_bad_value_that_a_flag_replaces_does_not_matter(write, chatted):
    write('ram = "much"\n')
    assert chatted("--ram", "1GiB")[0].ram_bytes == 2**30


def test_config_shows_value_and_source(write, capsys, monkeypatch):
    path = write('ram = "1GiB"\nvram = 0\n[chat]\nstop = ["A"]\nram = "2GiB"\n')
    monkeypatch.setenv("LLMRUN_VRAM", "3GiB")
    settings = shown(capsys)
    keys = ("value", "source", "place")
    assert [settings["plan", "ram"][key] for key in keys] == ["1GiB", "file", f"{path}, line 1"]
    assert [settings["chat", "ram"][key] for key in keys] == ["2GiB", "file", f"{path}, line 5"]
    assert [settings["chat", "stop"][key] for key in keys] == [["A"], "file", f"{path}, line 4"]
    assert [settings["chat", "vram"][key] for key in keys] == ["3GiB", "environment", "LLMRUN_VRAM"]
    assert [settings["chat", "context"][key] for key in keys] == [None, "default", None]
    assert settings["chat", "context"]["meaning"].startswith("4096")
    assert ("rm", "model") not in settings


def test_config_in_words(write, capsys):
    path = write('ram = "1GiB"\n[chat]\nram = "2GiB"\nthink = false\n')
    assert main(["config"]) == 0
    first, _, *lines = capsys.readouterr().out.splitlines()
    assert first == f"settings file: {path}"
    cells = [line.split(maxsplit=2) for line in lines]
    top, chat = lines.index("every command that has it"), lines.index("[chat]")
    assert ["ram", "1GiB", "file, line 1"] in cells[top:chat]
    assert ["ram", "2GiB", "file, line 3"] in cells[chat:]
    assert ["think", "false", "file, line 4"] in cells[chat:]
    assert sum(cell[:1] == ["vram"] for cell in cells) == 1  # not once more for each command


def test_config_shows_a_shared_value_once_though_the_defaults_differ(write, capsys):
    write('model = "some/model"\nui = "none"\n')
    assert main(["config"]) == 0
    cells = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [sum(cell[:1] == [name] for cell in cells) for name in ("model", "ui")] == [1, 1]


def test_config_tells_all_that_is_wrong_and_shows_the_rest(write, capsys, monkeypatch):
    write('contxt = 1\nram = "much"\nplanner = "greedy"\n')
    monkeypatch.setenv("LLMRUN_VRAM", "more")
    assert main(["config"]) == 2
    out, err = capsys.readouterr()
    assert "greedy" in out
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [
        "error: unknown-setting", "error: bad-size", "error: bad-size"
    ]  # fmt: skip


def test_config_shows_the_environment_where_the_file_is_no_toml(write, capsys, monkeypatch):
    write("ram 8GiB")
    monkeypatch.setenv("LLMRUN_RAM", "1GiB")
    assert shown(capsys, code=2)["chat", "ram"]["value"] == "1GiB"


def test_config_keeps_secrets_and_notes_unknown_variables(capsys, monkeypatch):
    monkeypatch.setenv("LLMRUN_API_KEY", "hush")
    monkeypatch.setenv("LLMRUN_CONTXT", "5")
    assert main(["config"]) == 0
    out, err = capsys.readouterr()
    assert "hush" not in out + err
    assert "LLMRUN_CONTXT is not a variable that llmrun reads; the nearest is LLMRUN_CONTEXT" in err
    assert set(ONLY_VARIABLES) > SECRETS


def test_config_path(write, capsys, monkeypatch):
    path = write("")
    assert main(["config", "--path"]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    monkeypatch.setenv("LLMRUN_CONFIG", "")
    assert main(["config", "--path"]) == 0
    assert capsys.readouterr() == ("", "no settings file is read: LLMRUN_CONFIG is empty\n")


def test_config_takes_one_of_its_options(capsys):
    assert refusal(capsys, "config", "--path", "--json")[0] == "error: bad-option"


def test_the_example_is_accepted_with_and_without_its_marks(write, capsys):
    assert main(["config", "--example"]) == 0
    example = capsys.readouterr().out
    assert example == files("llmrun.cli").joinpath("config_example.toml").read_text()
    assert tomllib.loads(example) == {}
    meant = [line.removeprefix("# ") for line in example.splitlines() if line.startswith("# [") or " = " in line]
    path = write("\n".join(meant))
    assert len(tomllib.loads(path.read_text())["chat"]) > 2
    settings = shown(capsys)
    assert settings["chat", "context"]["source"] == settings["plan", "explain"]["source"] == "file"
    shared = {name for (_, name), one in settings.items() if one["shared"]}
    assert shared == set(tomllib.loads(path.read_text())) - {"chat", "plan"}
