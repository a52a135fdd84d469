import pytest
from fake_engine import FakeEngine

from llmrun.engine.session import Session
from llmrun.errors import DeviceError, UsageError
from llmrun.settings import SamplingSettings
from llmrun.tui.chat import chat_loop, is_open, unquoted
from llmrun.tui.commands import Talk


class Screen:
    """Types the messages (exceptions are raised), keeps what is shown, leaves at the end."""

    def __init__(self, messages, answers):
        self.engine = FakeEngine(answers)
        self.talk = Talk(Session(self.engine, self.engine.tokenizer, SamplingSettings()), about="fake:1b")
        self.answer, self.notes = "", []
        typed = iter([*messages, EOFError()])

        def read():
            message = next(typed)
            if isinstance(message, BaseException):
                raise message
            return message

        chat_loop(self.talk, read, self._write, self.notes.append)

    def _write(self, text):
        self.answer += text


def test_answers_and_tells_the_speed():
    screen = Screen(["Where?", "Really?"], ["Paris.", "Yes."])
    assert screen.answer == "Paris.\nYes.\n"
    assert screen.engine.prompts[1] == "user:Where?;assistant:Paris.;user:Really?;"
    assert screen.notes[0].startswith("6 tokens  1 tok/s")


def test_figures_after_every_answer_when_asked():
    screen = Screen(["/set verbose", "Where?"], ["Paris."])
    assert "time to first token" in screen.notes[-1]


def test_ctrl_c_stops_the_answer_and_keeps_the_conversation():
    screen = Screen(["Where?", "And?"], [["P", "a", KeyboardInterrupt()], "ris."])
    assert screen.answer == "Pa\nris.\n"
    assert screen.engine.prompts[1] == "user:Where?;assistant:Pa;user:And?;"
    assert screen.notes[0].endswith("stopped")


def test_ctrl_c_while_typing_drops_the_message():
    assert Screen([KeyboardInterrupt(), "Where?"], ["Paris."]).answer == "Paris.\n"


@pytest.mark.parametrize(
    "error", [UsageError("prompt-too-long", "too long"), DeviceError("read-failed", "model.safetensors at 512")]
)
def test_an_error_ends_the_turn_not_the_conversation(error):
    screen = Screen(["Where?", "Again?"], [["P", error], "Paris."])
    assert screen.answer == "P\nParis.\n"
    assert error.render() in screen.notes


def test_error_of_a_command_is_shown():
    screen = Screen(["/red a.txt", "Where?"], ["Paris."])
    assert "did you mean `/read`?" in screen.notes[0]
    assert screen.answer == "Paris.\n"


def test_regen_replaces_the_last_answer():
    screen = Screen(["Where?", "/regen"], ["Paris.", "Lyon."])
    assert screen.engine.prompts[1] == "user:Where?;"
    assert [message.content for message in screen.talk.session.messages] == ["Where?", "Lyon."]


def test_read_asks_with_the_file(tmp_path):
    (tmp_path / "a.txt").write_text("contents")
    assert Screen([f"/read {tmp_path / 'a.txt'}"], ["ok"]).engine.prompts == ["user:contents;"]


def test_bye_leaves_and_empty_lines_are_passed_over():
    assert Screen(["", "  ", "/bye", "Where?"], ["Paris."]).answer == ""


@pytest.mark.parametrize(
    ("text", "open_"),
    [
        ('"""', True),
        ('"""one\ntwo', True),
        ('"""one\ntwo"""', False),
        ('/system """one', True),
        ("plain", False),
        ('code with """ in it', False),
    ],
)
def test_message_of_several_lines(text, open_):
    assert is_open(text) is open_


def test_quotes_around_a_message_are_taken_off():
    assert unquoted('"""one\n  two\n"""') == "one\n  two"
    assert unquoted('"""\none"""\n') == "one"
    assert unquoted(" plain ") == "plain"
