import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from fake_engine import FakeEngine, starts
from small_terminal import SmallTerminal

from llmrun.cli.app import main
from llmrun.cli.chat import ChatSettings, read_prompt, run_chat
from llmrun.cli.run import RunSettings, start
from llmrun.errors import DeviceError, Interrupted, UsageError
from llmrun.settings import SamplingSettings, Speculating
from llmrun.tui.ui import Ui


class Terminal(io.StringIO):
    def isatty(self):
        return True


def answer(engine, **settings):
    run_chat(ChatSettings(RunSettings(), SamplingSettings(), **{"prompt": "Where?"} | settings), starts(engine))


def test_only_the_answer_goes_to_stdout(capsys):
    engine = FakeEngine()
    answer(engine, system="Be brief")
    out, err = capsys.readouterr()
    assert out == "Paris.\n"
    assert err == "fetching the model\n"
    assert engine.prompts == ["system:Be brief;user:Where?;"]
    assert engine.closed == 1


def test_stats_go_to_stderr(capsys):
    answer(FakeEngine(), stats=True)
    out, err = capsys.readouterr()
    assert out == "Paris.\n"
    assert "time to first token" in err
    assert "peak memory cpu" in err


def test_json_is_one_object_with_the_figures(capsys):
    answer(FakeEngine(), json=True)
    out, _ = capsys.readouterr()
    value = json.loads(out)
    assert out.count("\n") == 1
    assert value["schema"] == 2
    assert value["text"] == "Paris."
    assert value["finish_reason"] == "stop"
    assert value["new_tokens"] == 6
    assert value["ttft_s"] == 2.0
    assert value["decode_tokens_per_s"] == 1.0
    assert value["read_bytes_per_token"] == {"disk": 100 * 2**20}
    assert value["stall_share"] == {"prefill": 0.25, "decode": 0.0}
    assert value["memory"] == {"cpu": {"peak_bytes": 400 * 2**20, "budget_bytes": 512 * 2**20}}
    assert value["model"]["name"] == "fake:1b"
    assert value["predicted"] is None
    layer = value["plan"]["placements"][1]
    assert layer == {
        "unit": "layer 0",
        "home": "disk",
        "device": "cpu",
        "prompt_device": None,
        "kept": None,
        "substitute": None,
    }


def test_interrupted_answer_is_kept(capsys):
    engine = FakeEngine([["P", "a", KeyboardInterrupt()]])
    with pytest.raises(Interrupted):
        answer(engine, stats=True)
    out, err = capsys.readouterr()
    assert out == "Pa\n"
    assert "2 new tokens" in err
    assert engine.closed == 1


def test_interrupted_json_says_so(capsys):
    with pytest.raises(Interrupted):
        answer(FakeEngine([["P", KeyboardInterrupt()]]), json=True)
    value = json.loads(capsys.readouterr().out)
    assert (value["text"], value["finish_reason"]) == ("P", "interrupted")


def test_answer_before_a_failure_is_kept_and_its_line_ended(capsys):
    engine = FakeEngine([["P", DeviceError("read-failed", "model.safetensors at 512")]])
    with pytest.raises(DeviceError):
        answer(engine)
    assert capsys.readouterr().out == "P\n"
    assert engine.closed == 1


def test_bad_sampling_is_refused_before_the_model_is_looked_for():
    engine = FakeEngine()
    with pytest.raises(UsageError, match="top-p"):
        run_chat(ChatSettings(RunSettings(), SamplingSettings(top_p=7.0), prompt="x"), starts(engine))
    assert engine.closed == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"planner": "magic"}, "--planner magic"),
        ({"plan_file": Path("a.json"), "planner": "aco"}, "--planner does not go with --plan"),
        ({"plan_file": Path("a.json"), "context_tokens": 512}, "--context does not go with --plan"),
    ],
)
def test_bad_options_are_refused_before_the_model_is_looked_for(settings, says):
    told = []
    with pytest.raises(UsageError, match=says) as caught, start(RunSettings("/nowhere", **settings), told.append):
        pass
    assert caught.value.reference == "bad-option"
    assert told == []


def test_json_needs_a_prompt():
    with pytest.raises(UsageError) as caught:
        answer(FakeEngine(), prompt=None, json=True)
    assert caught.value.reference == "bad-option"


def test_terminal_is_spared_control_characters(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    answer(FakeEngine(["\x1b[2Jé\tx\n"]))
    assert terminal.getvalue() == "[2Jé\tx\n"


def test_every_option_arrives(monkeypatch, capsys):
    engine, seen = FakeEngine(["Paris. END"]), []
    monkeypatch.setattr("llmrun.cli.chat.start", starts(engine, seen))
    line = (
        "chat some/model -p Where? --ram 2.5GiB --vram 512MiB --context 300 --planner greedy --plan a.json "
        "--trust-remote-code "
        "--temperature 0 --top-k 3 --top-p 0.9 --min-p 0.1 --repetition-penalty 1.5 --seed 42 --max-tokens 9 "
        "--stop END --stop STOP --no-think --speculate ngram --draft-tokens 7"
    )
    assert main(line.split()) == 0
    asked = RunSettings("some/model", 2560 * 2**20, 512 * 2**20, 300, "greedy", Path("a.json"), trust_remote_code=True)
    assert seen == [replace(asked, speculating=Speculating("ngram", 7))]
    assert engine.samplings == [SamplingSettings(0.0, 3, 0.9, 0.1, 1.5, 42, 9, ("END", "STOP"))]
    assert engine.thinks == [False]
    assert capsys.readouterr().out == "Paris. \n"


@pytest.mark.parametrize("how", ["selve", "./no/such/folder"])
def test_a_drafter_that_there_is_not_is_refused_before_the_model_is_looked_for(capsys, how):
    assert main(["chat", "/nowhere", "-p", "x", "--speculate", how]) == 4
    said = capsys.readouterr().err
    assert "error: model-not-found" in said
    assert f"--speculate {how}   none of auto, off, self, ngram, so a model" in said
    assert "/nowhere" not in said


def test_a_drafter_without_a_name_is_refused(capsys):
    assert main(["chat", "/nowhere", "-p", "x", "--speculate", ""]) == 2
    said = capsys.readouterr().err
    assert "error: bad-option" in said
    assert "hint: one of auto, off, self, ngram, or a model" in said


def test_environment_gives_what_the_line_does_not(monkeypatch, capsys):
    engine, seen = FakeEngine(["a", "b"]), []
    monkeypatch.setattr("llmrun.cli.chat.start", starts(engine, seen))
    for name, value in {"LLMRUN_RAM": "3GiB", "LLMRUN_VRAM": "0", "LLMRUN_MODEL": "other/model"}.items():
        monkeypatch.setenv(name, value)
    assert main(["chat", "-p", "x"]) == 0
    assert main(["chat", "-p", "x", "--ram", "4GiB", "mine"]) == 0
    assert seen == [RunSettings("other/model", 3 * 2**30, 0), RunSettings("mine", 4 * 2**30, 0)]


class TestPrompt:
    def test_text(self):
        assert read_prompt("Hello", None, io.StringIO("not read")) == "Hello"

    def test_stdin(self):
        assert read_prompt(None, None, io.StringIO("Hello\n")) == "Hello"

    def test_file_follows_the_text(self, tmp_path):
        (tmp_path / "a.txt").write_text("contents\n")
        assert read_prompt("Explain", str(tmp_path / "a.txt"), None) == "Explain\n\ncontents"

    def test_dash_is_stdin(self):
        assert read_prompt("Explain", "-", io.StringIO("piped")) == "Explain\n\npiped"

    def test_terminal_without_a_prompt_is_a_conversation(self):
        assert read_prompt(None, None, Terminal()) is None

    @pytest.mark.parametrize("text", ["", "  \n"])
    def test_empty(self, text):
        for prompt in (lambda: read_prompt(text, None, None), lambda: read_prompt(None, None, io.StringIO(text))):
            with pytest.raises(UsageError) as caught:
                prompt()
            assert caught.value.reference == "empty-prompt"
            assert caught.value.exit_code == 2

    def test_closed_stdin_is_empty(self):
        with pytest.raises(UsageError, match="empty"):
            read_prompt(None, None, None)

    def test_missing_file(self, tmp_path):
        with pytest.raises(UsageError, match=r"nothing\.txt") as caught:
            read_prompt(None, str(tmp_path / "nothing.txt"), None)
        assert caught.value.reference == "file-unreadable"

    def test_binary_file(self, tmp_path):
        (tmp_path / "b").write_bytes(b"abc\xff")
        with pytest.raises(UsageError, match="byte 3") as caught:
            read_prompt(None, str(tmp_path / "b"), None)
        assert caught.value.reference == "not-text"

    def test_binary_stdin(self):
        stdin = io.TextIOWrapper(io.BytesIO(b"\xff"), encoding="utf-8")
        with pytest.raises(UsageError) as caught:
            read_prompt(None, None, stdin)
        assert caught.value.reference == "not-text"


class TestUi:
    @staticmethod
    def terminal(monkeypatch):
        """Called in the test: pytest puts its own streams in place once more after the fixtures."""
        terminal = SmallTerminal()
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr("sys.stdout", terminal)
        monkeypatch.setattr("sys.stderr", terminal)
        return terminal

    def test_dashboard_leaves_the_answer_alone_on_the_terminal(self, monkeypatch):
        terminal = self.terminal(monkeypatch)
        answer(FakeEngine(["Paris.\nOr Lyon."]), ui=Ui.DASHBOARD)
        assert terminal.screen == "fetching the model\nParis.\nOr Lyon.\n"

    def test_failure_under_a_dashboard_keeps_the_answer(self, monkeypatch):
        terminal = self.terminal(monkeypatch)
        with pytest.raises(DeviceError):
            answer(FakeEngine([["P", DeviceError("read-failed", "model.safetensors at 512")]]), ui=Ui.DASHBOARD)
        assert terminal.screen == "fetching the model\nP\n"

    def test_option_and_environment(self, monkeypatch):
        self.terminal(monkeypatch)
        seen = []
        monkeypatch.setattr("llmrun.cli.chat.run_chat", lambda settings, start: seen.append(settings.ui))
        for arguments in ([], ["--ui", "dashboard"]):
            main(["chat", "-p", "x", *arguments])
        monkeypatch.setenv("LLMRUN_UI", "none")
        for arguments in ([], ["--ui", "dashboard"]):
            main(["chat", "-p", "x", *arguments])
        assert seen == [Ui.SIMPLE, Ui.DASHBOARD, Ui.NONE, Ui.DASHBOARD]

    def test_unknown_view_is_refused(self, capsys):
        assert main(["chat", "-p", "x", "--ui", "dashbord"]) == 2
        assert "hint: `--ui dashboard`" in capsys.readouterr().err
