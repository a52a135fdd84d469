"""The command line from outside: what it imports, how it fails, how it is stopped."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from run_cli import ENVIRONMENT, llmrun

FAKE_CHAT = str(Path(__file__).parent / "fake_chat.py")
HEAVY = {"torch", "transformers", "numpy", "rich", "prompt_toolkit", "huggingface_hub", "scipy"}


def fake_chat(*args, **env):
    return subprocess.Popen(
        [sys.executable, FAKE_CHAT, *args],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT | env,
    )  # fmt: skip


# Typer itself needs pydantic as soon as it reads the options of a command.
@pytest.mark.parametrize(
    ("args", "unwanted"),
    [
        (["--help"], HEAVY | {"pydantic"}),
        (["--version"], HEAVY | {"pydantic"}),
        (["chat", "--help"], HEAVY),
        (["inspect", "--help"], HEAVY),
        ([], HEAVY),
    ],
)
def test_help_imports_nothing_heavy(args, unwanted):
    code = (
        "import sys\n"
        "from llmrun.cli.app import main\n"
        f"code = main({args})\n"
        "print(code, *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    code, *modules = done.stderr.split()
    assert code == "0"
    assert "llmrun" in done.stdout
    assert "typer" in modules
    assert not unwanted & set(modules)


def test_help_names_the_commands():
    assert all(name in llmrun("--help").stdout for name in ("chat", "inspect", "pull", "list", "rm"))


@pytest.mark.parametrize(
    ("args", "reference", "says"),
    [
        (["chta"], "bad-option", "chta"),
        (["chat", "--nope"], "bad-option", "--nope"),
        (["chat", "-p", "x", "--seed", "x"], "bad-option", "--seed"),
        (["chat", "-p", "x", "--top-p", "7"], "bad-option", "top-p"),
        (["chat", "-p", "x", "--ram", "banana"], "bad-size", "'banana'"),
        (["chat", "-p", "x", "--vram", "-3GiB"], "bad-size", "'-3GiB'"),
        (["chat", "-p", ""], "empty-prompt", "empty"),
        (["chat"], "empty-prompt", "empty"),
        (["chat", "-f", "/nowhere/prompt.txt"], "file-unreadable", "/nowhere/prompt.txt"),
        (["rm"], "bad-option", "MODEL"),
    ],
)
def test_usage_error_is_told_in_three_lines(args, reference, says):
    done = llmrun(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    first, second, *hint = done.stderr.splitlines()
    assert first == f"error: {reference}"
    assert says in second
    assert all(line.startswith("hint: ") for line in hint)
    assert len(hint) <= 1


def test_bad_size_of_the_environment_is_told_too():
    done = llmrun("chat", "-p", "x", LLMRUN_RAM="much")
    assert done.returncode == 2
    assert done.stderr.startswith("error: bad-size\n--ram 'much'")


def test_one_answer_and_its_figures():
    process = fake_chat("short", "--stats")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == "Paris.\n"
    assert "peak memory cpu" in err
    assert "\x1b" not in err


def test_interrupt_keeps_what_was_answered():
    process = fake_chat("endless")
    assert process.stdout.read(5) == "Paris"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert set(out.rstrip("\n")) <= {"."}
    assert err.splitlines()[-2:] == ["error: interrupted", "stopped by the user"]
    assert "Traceback" not in err


def test_interrupt_while_the_command_is_still_imported():
    code = (
        "import sys\n"
        "from llmrun.__main__ import main\n"
        "class Finder:\n"
        "    def find_spec(name, *rest):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder)\n"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\nstopped by the user\n")


def test_interrupt_with_json_gives_the_object():
    process = fake_chat("stopped", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    value = json.loads(out)
    assert value["finish_reason"] == "interrupted"
    assert value["text"].startswith("Paris")
    assert err.splitlines()[-2] == "error: interrupted"


def test_closed_output_is_quiet():
    with fake_chat("flood") as process:
        assert process.stdout.read(4) == "word"
        process.stdout.close()
        assert process.stderr.read() == "fetching the model\n"
    assert process.returncode == 141


def test_closed_output_before_the_first_byte():
    command = f"{sys.executable} -m llmrun chat --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout.strip() in {"0", "141"}
    assert done.stderr == ""


def test_full_disk_under_stdout_is_no_traceback():
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m llmrun --version > /dev/full"],
        capture_output=True, text=True, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert done.returncode == 5
    assert done.stderr.startswith("error: disk-full\n")
    assert "Traceback" not in done.stderr


def test_a_bug_of_ours_is_one_message_and_shows_its_traceback_when_asked():
    process = fake_chat("bug")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[:2] == ["error: internal-error", "ZeroDivisionError: division by zero"]
    assert "Traceback" not in err
    process = fake_chat("bug", LLMRUN_TRACEBACK="1")
    _, err = process.communicate(timeout=60)
    assert "Traceback" in err
    assert err.splitlines()[-3] == "error: internal-error"


def test_text_that_the_terminal_cannot_show_is_no_error():
    done = llmrun("chat", "-p", "x", "--ram", "größe", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert done.stderr.startswith("error: bad-size")
