import pytest
from fake_engine import FakeEngine

from llmrun.engine.session import Session
from llmrun.errors import LlmrunError, UsageError
from llmrun.metrics import MetricsState
from llmrun.settings import SamplingSettings
from llmrun.tui.commands import COMMANDS, Talk, run_command


@pytest.fixture
def talk():
    engine = FakeEngine(["one", "two"])
    return Talk(Session(engine, engine.tokenizer, SamplingSettings()), about="fake:1b")


def texts(talk):
    return [message.content for message in talk.session.messages]


def test_help_names_every_command(talk):
    say = run_command(talk, "/help").say
    assert all(f"/{command.name}" in say for command in COMMANDS)
    assert max(map(len, say.splitlines())) <= 80
    assert run_command(talk, "/?").say == say


def test_clear_keeps_the_system_prompt(talk):
    run_command(talk, "/system Be brief")
    list(talk.session.ask("a"))
    run_command(talk, "/clear")
    assert texts(talk) == ["Be brief"]


@pytest.mark.parametrize("line", ["/system Be brief", "/set system Be brief", '/set system "Be brief"'])
def test_system(talk, line):
    run_command(talk, line)
    assert texts(talk) == ["Be brief"]
    assert "Be brief" in run_command(talk, "/show").say
    run_command(talk, "/system")
    assert texts(talk) == []


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("/set temperature 0.5", "temperature", 0.5),
        ("/set parameter temperature 0.5", "temperature", 0.5),
        ("/set top_k 7", "top_k", 7),
        ("/set top-k 7", "top_k", 7),
        ("/set num_predict 9", "max_tokens", 9),
        ("/set repeat_penalty 1.2", "repetition_penalty", 1.2),
        ('/set stop "END"', "stop", ("END",)),
    ],
)
def test_set(talk, line, field, value):
    outcome = run_command(talk, line)
    assert getattr(talk.session.sampling, field) == value
    assert field in outcome.say
    run_command(talk, f"/set {field}")
    assert talk.session.sampling == SamplingSettings()


@pytest.mark.parametrize("line", ["/set", "/set colour blue", "/set top_k many", "/set temperature -1", "/set top_p 7"])
def test_bad_set_changes_nothing(talk, line):
    with pytest.raises(UsageError) as caught:
        run_command(talk, line)
    assert caught.value.reference == "bad-option"
    assert talk.session.sampling == SamplingSettings()


def test_switches(talk):
    run_command(talk, "/set think")
    assert talk.session.think is True
    run_command(talk, "/set nothink")
    assert talk.session.think is False
    run_command(talk, "/set verbose")
    assert talk.show_stats
    run_command(talk, "/set quiet")
    assert not talk.show_stats


def test_show_tells_what_is_set(talk):
    talk.session.sampling = SamplingSettings(seed=42)
    say = run_command(talk, "/show").say
    assert "fake:1b" in say
    assert "42" in say
    assert "the model's own" in say


def test_save_and_load(talk, tmp_path):
    list(talk.session.ask("a"))
    run_command(talk, f"/save {tmp_path / 'talk.json'}")
    run_command(talk, "/clear")
    run_command(talk, f"/load {tmp_path / 'talk.json'}")
    assert texts(talk) == ["a", "one"]


@pytest.mark.parametrize(
    "line", ["/save", "/load", "/read", "/load /nowhere/x", "/read /nowhere/x", "/save /nowhere/x"]
)
def test_file_trouble_is_an_error_of_ours(talk, line):
    with pytest.raises(LlmrunError):
        run_command(talk, line)


def test_read_sends_the_file_after_the_question(talk, tmp_path):
    (tmp_path / "a.txt").write_text("contents")
    assert run_command(talk, f"/read {tmp_path / 'a.txt'}").ask == "contents"
    assert run_command(talk, f"/read {tmp_path / 'a.txt'} What is it?").ask == "What is it?\n\ncontents"


def test_read_takes_a_name_with_spaces_in_quotes(talk, tmp_path):
    (tmp_path / "my notes.txt").write_text("contents")
    assert run_command(talk, f'/read "{tmp_path / "my notes.txt"}" What?').ask == "What?\n\ncontents"


def test_regen_stats_and_bye(talk):
    assert run_command(talk, "/regen").regenerate
    assert "nothing" in run_command(talk, "/stats").say
    talk.last = MetricsState(new_tokens=3)
    assert "3 new tokens" in run_command(talk, "/stats").say
    assert run_command(talk, "/bye").leave
    assert run_command(talk, "/exit").leave


@pytest.mark.parametrize(
    ("line", "hint"), [("/hlep", "/help"), ("/sistem x", "/system"), ("/zzz", "/help"), ("/", "/help")]
)
def test_unknown_command_names_the_nearest(talk, line, hint):
    with pytest.raises(UsageError) as caught:
        run_command(talk, line)
    assert caught.value.reference == "unknown-command"
    assert f"`{hint}`" in caught.value.hint
