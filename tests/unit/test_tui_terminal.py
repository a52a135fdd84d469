"""The keyboard side of the chat, on terminals that are not there."""

import os
import stat
import termios

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from llmrun.tui.chat import terminal_reader
from llmrun.tui.keyboard import no_echo

ENTER, CTRL_C, CTRL_D, UP = "\r", "\x03", "\x04", "\x1b[A"


@pytest.fixture
def keyboard():
    with create_pipe_input() as pipe:
        yield pipe


@pytest.fixture
def read(tmp_path, keyboard):
    return terminal_reader(tmp_path / "state" / "history", keyboard, DummyOutput())


def test_a_line(read, keyboard):
    keyboard.send_text("Hello" + ENTER)
    assert read() == "Hello"


def test_enter_makes_a_new_line_between_quotes(read, keyboard):
    keyboard.send_text('"""one' + ENTER + 'two"""' + ENTER)
    assert read() == '"""one\ntwo"""'


def test_ctrl_c_drops_what_is_typed(read, keyboard):
    keyboard.send_text("Hel" + CTRL_C)
    with pytest.raises(KeyboardInterrupt):
        read()


@pytest.mark.parametrize("key", [CTRL_C, CTRL_D])
def test_leaving_at_an_empty_prompt(read, keyboard, key):
    keyboard.send_text(key)
    with pytest.raises(EOFError):
        read()


def test_history_is_kept_for_the_next_time_and_private(tmp_path, read, keyboard):
    keyboard.send_text("Hello" + ENTER)
    read()
    later = terminal_reader(tmp_path / "state" / "history", keyboard, DummyOutput())
    keyboard.send_text(UP + ENTER)
    assert later() == "Hello"
    assert stat.S_IMODE((tmp_path / "state" / "history").stat().st_mode) == 0o600


def test_history_that_cannot_be_written_is_no_error(tmp_path, keyboard):
    (tmp_path / "file").write_text("")
    keyboard.send_text("Hello" + ENTER)
    assert terminal_reader(tmp_path / "file" / "history", keyboard, DummyOutput())() == "Hello"


def test_no_echo_is_put_back_whatever_happens():
    master, slave = os.openpty()
    with os.fdopen(slave, "r") as terminal, os.fdopen(master):

        def echoes():
            return bool(termios.tcgetattr(slave)[3] & termios.ECHO)

        def fail():
            with no_echo(terminal):
                assert not echoes()
                raise ZeroDivisionError

        assert echoes()
        with pytest.raises(ZeroDivisionError):
            fail()
        assert echoes()


def test_no_echo_leaves_a_file_alone(tmp_path):
    (tmp_path / "a").write_text("")
    with (tmp_path / "a").open() as file, no_echo(file):
        assert file.read() == ""
