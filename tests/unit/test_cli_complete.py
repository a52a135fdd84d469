"""What Tab offers, and that it is quick and quiet about what goes wrong."""

import subprocess
import sys

import pytest
from huggingface_hub import constants

from llmrun.cli import complete
from llmrun.hub.aliases import aliases
from llmrun.hub.model import Origin
from llmrun.hub.store import Record, build, models_folder


@pytest.fixture(autouse=True)
def _own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMRUN_CACHE", str(tmp_path / "ours"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def fill(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(8))


def import_model(name):
    build(models_folder() / f"folder-{len(name)}", Record(name, Origin.GGUF, "/there/a.gguf"), fill)


def cache_model(tmp_path, name="org/model", commit="c" * 40):
    repository = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
    fill(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)


def test_models_are_aliases_imported_and_cached(tmp_path):
    import_model("tiny")
    cache_model(tmp_path)
    assert complete.models("") == [*aliases(), "tiny", "org/model"]
    assert complete.models("org/") == ["org/model"]
    assert complete.models("smollm2:13") == ["smollm2:135m"]
    assert complete.models("./folder") == []  # the shell completes files then


def test_targets_are_llmrun_and_its_models():
    assert complete.targets("llm") == ["llmrun", *(f"llmrun:{name}" for name in aliases())]
    assert complete.targets("llmrun:smollm2:13") == ["llmrun:smollm2:135m"]


def test_drafters_are_words_and_models():
    import_model("tiny")
    assert complete.drafters("")[:4] == ["auto", "off", "self", "ngram"]
    assert complete.drafters("t") == ["tiny"]


def test_only_what_is_there_can_be_removed(tmp_path):
    assert complete.removable("") == []
    import_model("tiny")
    default = aliases()["smollm2:135m"]
    cache_model(tmp_path, default.hub, default.revision)
    assert complete.removable("") == ["smollm2:135m", "tiny", default.hub]


@pytest.mark.parametrize("name", ["a b", "$(reboot)", "it's", "x`y`", "a\\b", "a*", "a\nb", ""])
def test_a_word_that_a_shell_would_read_is_not_offered(name):
    import_model(name)
    assert complete.removable("") == []


def test_a_source_that_fails_takes_nothing_from_the_others(tmp_path, monkeypatch):
    (tmp_path / "hub").write_text("no folder")
    monkeypatch.setenv("LLMRUN_CACHE", "~nobody-of-this-name/cache")
    assert complete.models("") == list(aliases())


def test_words_that_stand_in_two_places_agree():
    from llmrun.checkpoint.recipe import recipe_names
    from llmrun.hardware.presets import preset_names
    from llmrun.planner import PLANNERS
    from llmrun.planner.problem import Objective

    assert complete.planners("") == list(PLANNERS)
    assert complete.formats("") == recipe_names()
    assert complete.goals("") == [goal.value for goal in Objective]
    assert complete.presets("rtx") == [name for name in preset_names() if name.startswith("rtx")]


def test_nothing_heavy_is_imported():
    ask = "from llmrun.cli import complete, options; [f('') for f in (complete.models, complete.planners)]"
    code = f"import sys; {ask}; print([m for m in ('torch', 'transformers', 'numpy', 'rich') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
