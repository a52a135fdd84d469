"""A settings file from outside: `--help`, `--version` and `llmrun config` live with a broken one."""

import json
import subprocess
import sys

import pytest
from run_cli import ENVIRONMENT, llmrun, refused


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("ram = 8GiB\n")
    return path


@pytest.mark.parametrize("args", [("--help",), ("--version",), (), ("config", "--help"), ("config", "--example")])
def test_a_broken_file_is_not_in_the_way(broken, args):
    done = llmrun(*args, LLMRUN_CONFIG=broken)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_a_broken_file_is_told_by_a_command_and_by_config(broken):
    lines = refused(llmrun("list", LLMRUN_CONFIG=broken), 2, "bad-settings-file")
    assert "line 1, column 8" in lines[0]
    done = llmrun("config", "--json", LLMRUN_CONFIG=broken)
    assert done.returncode == 2
    assert [problem["reference"] for problem in json.loads(done.stdout)["problems"]] == ["bad-settings-file"]
    assert done.stderr.splitlines() == ["error: bad-settings-file", *lines]


def test_the_file_lies_in_the_users_configuration_folder(tmp_path):
    folder = tmp_path / "llmrun"
    folder.mkdir()
    (folder / "config.toml").write_text("contxt = 5\n")
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "LLMRUN_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-m", "llmrun", "list"],
        capture_output=True, text=True, check=False, env=environment | {"XDG_CONFIG_HOME": str(tmp_path)},
    )  # fmt: skip
    assert str(folder / "config.toml") in refused(done, 2, "unknown-setting")[0]
