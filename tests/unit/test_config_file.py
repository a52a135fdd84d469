"""Where the settings file is, and what is read of it."""

from pathlib import Path

import pytest

from llmrun.cli.config_file import read_entries, settings_path
from llmrun.errors import UsageError


def written(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_where_it_is(tmp_path):
    assert settings_path({"LLMRUN_CONFIG": str(tmp_path / "a.toml")}) == tmp_path / "a.toml"
    assert settings_path({"LLMRUN_CONFIG": "~/a.toml"}) == Path.home() / "a.toml"
    assert settings_path({"LLMRUN_CONFIG": ""}) is None
    assert settings_path({}).parts[-2:] == ("llmrun", "config.toml")


def test_entries_know_their_table_and_line(tmp_path):
    path = written(tmp_path, '# mine\nram = "8GiB"\n\n[chat]  # talk\ntop_p = 0.5\nram = "1GiB"\n')
    found = [(entry.table, entry.key, entry.value, entry.line) for entry in read_entries(path)]
    assert found == [
        ("", "ram", "8GiB", 2),
        ("", "chat", {"top_p": 0.5, "ram": "1GiB"}, 4),
        ("chat", "top_p", 0.5, 5),
        ("chat", "ram", "1GiB", 6),
    ]


def test_a_key_that_is_not_on_a_line_of_its_own_has_the_file_for_its_place(tmp_path):
    path = written(tmp_path, 'chat.top_p = 0.5\nplan = { seed = 1 }\n"ram" = 1\n')
    places = {(entry.table, entry.key): entry.place for entry in read_entries(path)}
    assert places["chat", "top_p"] == places["plan", "seed"] == places["", "ram"] == str(path)


def test_no_file_has_no_entries(tmp_path):
    assert read_entries(None) == read_entries(tmp_path / "nothing") == read_entries(Path("/dev/null/config.toml")) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"ram = \n", "line 1, column 7"),
        (b"ram = 1\nram = 2\n", "line 2"),
        (b"ram = '\xff'\n", "byte 7"),
    ],
)
def test_what_is_no_toml_is_told_with_its_place(tmp_path, content, says):
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=says) as caught:
        read_entries(path)
    assert caught.value.reference == "bad-settings-file"
    assert str(path) in caught.value.message


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UsageError, match="cannot be read") as caught:
        read_entries(tmp_path)
    assert caught.value.reference == "bad-settings-file"
