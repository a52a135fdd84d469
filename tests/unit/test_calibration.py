"""The importance of columns against hooks on the plain transformers model."""

from pathlib import Path

import pytest
import torch
from tiny_model import FAMILIES, save, some_tokens

from llmrun.checkpoint.read import read_spec
from llmrun.engine import calibration
from llmrun.engine.calibration import calibration_bytes, column_importance


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gemma3", "phi3"])
def test_each_column_has_the_mean_square_of_what_it_is_multiplied_with(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "STRETCH_TOKENS", 40)  # three stretches, the last one short
    model = FAMILIES[family].build()
    tokens = some_tokens(100)
    wanted: dict[str, list[torch.Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            seen = wanted.setdefault(f"{name}.weight", [])
            module.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0][0]))
    with torch.inference_mode():
        for at in range(0, 100, 40):
            model(input_ids=torch.tensor([tokens[at : at + 40]]), use_cache=False)
    spec = read_spec(save(model, tmp_path))
    units: list[str] = []
    found = column_importance(spec, tokens, done=units.append)
    assert units == [f"layer {n}" for n in range(6)] + ["head"]
    assert found.keys() - wanted.keys() == {spec.unit("head").tensors[0].name}
    for name, seen in wanted.items():
        torch.testing.assert_close(found[name], torch.cat(seen).square().mean(0), rtol=1e-3, atol=1e-6)


def test_what_it_takes_grows_with_layer_and_text(tiny_checkpoint: Path) -> None:
    spec = read_spec(tiny_checkpoint)
    assert calibration_bytes(spec, 10_000) - calibration_bytes(spec, 0) == 10_000 * spec.hidden_size * 4
    assert calibration_bytes(spec, 0) > 4 * max(unit.nbytes // 4 for unit in spec.units)
