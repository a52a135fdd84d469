"""The dashboard in a terminal that a process of its own draws on: what stands there meanwhile, and in the end."""

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from run_cli import ENVIRONMENT
from small_terminal import SmallTerminal

FAKE_CHAT = str(Path(__file__).with_name("fake_chat.py"))
SIZE = (24, 80)


class Session:
    """A process on a pseudo-terminal, and what that shows."""

    def __init__(self, master: int, process: subprocess.Popen) -> None:
        self.terminal, self.process, self._master = SmallTerminal(), process, master

    def until(self, text: str | None) -> None:
        """Reads until the text stands there; ``None``: until the process ends."""
        until_s = time.monotonic() + 60
        while text is None or text not in self.terminal.screen:
            assert time.monotonic() < until_s, self.terminal.screen
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    self.terminal.write(os.read(self._master, 65536).decode())
                except OSError:  # the other end is closed
                    break
        if text is None:
            self.process.wait(60)
        else:
            assert text in self.terminal.screen, self.terminal.screen


@contextmanager
def session(mode, ui, **env):
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, SIZE)
    process = subprocess.Popen(
        [sys.executable, FAKE_CHAT, mode, "--ui", ui], stdin=slave, stdout=slave, stderr=slave,
        env=ENVIRONMENT | {"TERM": "xterm", "PYTHONUTF8": "1"} | env,
    )  # fmt: skip
    os.close(slave)
    try:
        yield Session(master, process)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_the_answer_stands_alone_in_the_end():
    with session("short", "dashboard") as run:
        run.until(None)
        assert run.terminal.screen == "fetching the model\nParis.\n"
        assert run.process.returncode == 0


def test_answer_and_dashboard_until_ctrl_c():
    with session("endless", "dashboard") as run:
        run.until("computing     layer 0 on cpu")
        run.until("Paris.....")
        assert run.terminal.screen.startswith("fetching the model\nParis.")
        assert len(run.terminal.rows) < SIZE[0]
        run.process.send_signal(signal.SIGINT)
        run.until(None)
        head, answer, *rest = run.terminal.rows
        assert (head, answer.strip(".")) == ("fetching the model", "Paris")
        assert rest == ["error: interrupted", "stopped by the user", ""]
        assert run.process.returncode == 130


def test_ascii_where_the_terminal_knows_no_unicode():
    with session("endless", "dashboard", PYTHONUTF8="0", PYTHONIOENCODING="ascii") as run:
        run.until("#")
        run.until("^ computed")
        assert run.terminal.screen.isascii()


@pytest.mark.parametrize(("ui", "term"), [("none", "xterm"), ("dashboard", "dumb")])
def test_no_escapes_where_nothing_is_drawn(ui, term):
    with session("short", ui, TERM=term) as run:
        run.until(None)
        assert "\x1b" not in run.terminal.getvalue()
        assert run.terminal.screen == "fetching the model\nParis.\n"
