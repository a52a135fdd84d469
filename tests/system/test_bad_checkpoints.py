"""Checkpoints that cannot run: refused by the command with the reason, before a weight is read."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from run_cli import ENVIRONMENT, Done, llmrun, refused

WEIGHTS = "model.safetensors"


def ask(folder: Path, *options: object, **env: object) -> Done:
    return llmrun("chat", folder, "-p", "hi", "--max-tokens", 3, *options, **env)


def edit_json(path: Path, **changes: object) -> None:
    """Change keys of a JSON file; ``None`` takes one away."""
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not None}))


def config(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", **changes)


def overwrite(at: int, data: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / WEIGHTS).open("r+b") as file:
            file.seek(at)
            file.write(data)

    return change


def truncate(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 1000)


def shard(folder: Path) -> dict[str, str]:
    """Split the weights over two files with an index, as large checkpoints are; returns where each tensor is."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    files = {name: f"model-0000{1 + ('layers.5' in name)}-of-00002.safetensors" for name in tensors}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in tensors if files[name] == file}, folder / file)
    (folder / WEIGHTS).unlink()
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return files


def lose_a_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def name_a_tensor_too_many(folder: Path) -> None:
    files = shard(folder)
    files["model.layers.5.mlp.extra.weight"] = "model-00002-of-00002.safetensors"
    edit_json(folder / f"{WEIGHTS}.index.json", weight_map=files)


def lose_the_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def make_doubles(folder: Path) -> None:
    """Store the weights in a dtype that nothing computes with."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    save_file({name: tensor.astype("float64") for name, tensor in tensors.items()}, folder / WEIGHTS)


def pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def code(folder: Path, **changes: object) -> None:
    """Code comes with the model and its tokenizer; whoever imports it leaves ``executed`` behind."""
    leave_a_mark = f"open({str(folder / 'executed')!r}, 'w')\n"
    for name, class_name in (("modeling_own", "OwnModel"), ("tokenization_own", "OwnTokenizer")):
        (folder / f"{name}.py").write_text(f"{leave_a_mark}class {class_name}: pass\n")
    auto_map = {"AutoConfig": "modeling_own.OwnModel", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    edit_json(folder / "config.json", auto_map=auto_map, **changes)
    tokenizer = {"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]}
    edit_json(folder / "tokenizer_config.json", auto_map=tokenizer)


CASES = {
    "truncated shard": (truncate, "truncated-shard", "1000 B are missing"),
    "missing shard": (lose_a_shard, "missing-shard", "model-00002-of-00002.safetensors"),
    "index names a missing tensor": (name_a_tensor_too_many, "missing-tensor", "mlp.extra.weight"),
    "header length absurd": (overwrite(0, b"\xff" * 8), "broken-header", "18,446,744,073,709,551,615 bytes"),
    "header length past the end": (overwrite(0, (90_000_000).to_bytes(8, "little")), "broken-header", "90,000,000"),
    "header broken": (overwrite(8, b"{broken"), "broken-header", "not valid JSON"),
    "wrong dtype": (make_doubles, "wrong-dtype", "F64"),
    "no architecture": (config(architectures=None), "unsupported-architecture", "no architectures"),
    "no model type": (config(model_type=None), "unsupported-architecture", "no model_type"),
    "an encoder": (config(architectures=["BertModel"]), "unsupported-architecture", "BertModel"),
    "quantised": (config(quantization_config={"quant_method": "gptq"}), "unsupported-format", "gptq"),
    "config broken": (lambda folder: (folder / "config.json").write_text("{"), "broken-config", "config.json"),
    "no tokenizer": (lose_the_tokenizer, "no-tokenizer", "no tokenizer"),
    "pickle": (pickle, "pickle-checkpoint", "pytorch_model.bin"),
    "code of its own": (lambda folder: code(folder, model_type="own"), "remote-code", "own"),
}


PROGRAM = """
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from llmrun.cli.app import main
for folder in sys.argv[1:]:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main(["chat", folder, "-p", "hi", "--max-tokens", "3"])
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


@pytest.fixture(scope="module")
def folders(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each case."""
    around = tmp_path_factory.mktemp("bad")
    found = {case: Path(shutil.copytree(tiny_checkpoint, around / case)) for case in CASES}
    for case, folder in found.items():
        CASES[case][0](folder)
    return found


@pytest.fixture(scope="module")
def answers(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """What the command says of each, one after another in a process that cannot import torch."""
    no_torch = tmp_path_factory.mktemp("no-torch")
    (no_torch / "torch.py").write_text("raise SystemError('torch was imported')")
    argv = [sys.executable, "-c", PROGRAM, *map(str, folders.values())]
    env = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(no_torch), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=env)
    return {case: Done(argv, *json.loads(line)) for case, line in zip(CASES, done.stdout.splitlines(), strict=True)}


@pytest.mark.parametrize("case", CASES)
def test_is_refused_before_torch_is_imported(case: str, folders: dict[str, Path], answers: dict[str, Done]) -> None:
    _, reference, says = CASES[case]
    assert says in refused(answers[case], 4, reference)[0]
    assert not (folders[case] / "executed").exists()


def test_a_refusal_says_what_helps(folder: Path) -> None:
    pickle(folder)
    assert "save_pretrained" in refused(ask(folder), 4, "pickle-checkpoint")[1]


def test_an_architecture_that_transformers_does_not_know(folder: Path) -> None:
    config(model_type="llamazoid")(folder)
    why, hint = refused(ask(folder), 4, "unsupported-architecture")
    assert "llamazoid" in why
    assert "newer transformers" in hint


def test_code_in_a_folder_of_a_known_architecture_is_left_alone(folder: Path) -> None:
    code(folder)
    done = ask(folder)
    assert not (folder / "executed").exists()
    assert done.returncode == 0, done.stderr
    ask(folder, "--trust-remote-code", HF_HOME=folder / "hf")
    assert (folder / "executed").exists(), "the code of this test leaves no mark even when it is run"


@pytest.mark.parametrize(("name", "hint"), [("./nowhere", "llmrun list"), ("What is a river? " * 30, "with -p")])
def test_a_model_that_is_not_there(name: str, hint: str) -> None:
    lines = refused(llmrun("chat", name, "-p", "hi"), 4, "model-not-found")
    assert name in lines[0]
    assert hint in lines[-1]


@pytest.mark.parametrize("closed", ["the folder", "the folder around it"])
def test_a_folder_that_may_not_be_read(closed: str, folder: Path) -> None:
    around = folder.parent / "around"
    around.mkdir()
    inner = shutil.move(folder, around / "tiny")
    shut = Path(inner) if closed == "the folder" else around
    shut.chmod(0)
    try:
        done = llmrun("chat", inner, "-p", "hi", prefix=without_the_rights_of_root())
    finally:
        shut.chmod(0o755)
    assert str(inner) in refused(done, 4, "unreadable")[0]


def without_the_rights_of_root() -> tuple[str, ...]:
    """A command before a command, so that the permissions of files hold for root too."""
    if os.geteuid() != 0:
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("root may read everything, and there is no setpriv")
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
