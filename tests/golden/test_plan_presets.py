"""What ``llmrun plan --dry-run --hardware PRESET`` prints for three models on every preset, word for word.

To renew after a change: LLMRUN_WRITE_GOLDEN=1. How many placements were simulated is left out, for a search that is
stopped where the gap closes counts differently after every change of it.
"""

import io
import re
from pathlib import Path

import pytest
from golden_files import held
from shapes import write_sparse

from llmrun.cli.plan import PlanSettings, make_report, maker
from llmrun.errors import PlanError
from llmrun.hardware.presets import preset_names
from llmrun.tui.plan_view import show_plan

FOLDER = Path(__file__).parent
MODELS = ("SmolLM2-135M", "SmolLM2-inflated", "Llama-3.1-70B")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with the headers of the models: their weights are holes."""
    folder = tmp_path_factory.mktemp("models")
    for name in MODELS:
        write_sparse(name, folder / name)
    return folder


def printed(model: str, preset: str) -> str:
    """Standard output, or standard error where nothing fits."""
    settings = PlanSettings(model=model, dry_run=True, hardware=preset)
    try:
        report, _ = make_report(settings, maker(settings), lambda note: None)
    except PlanError as error:
        return f"{error.render()}\n"
    stream = io.StringIO()
    show_plan(stream, report.spec, report.plan, report.hardware)
    return re.sub(r"[\d,]+ placements?", "N placements", stream.getvalue())


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("model", MODELS)
def test_the_view_is_as_it_was(model, preset, models, monkeypatch):
    monkeypatch.chdir(models)
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(model, preset)
    held(text, FOLDER / f"plan_{preset}_{model}.txt")
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii()
