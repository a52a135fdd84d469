"""The house as `docs/structure.md` draws it: arrows point down, torch stays below, files stay small.

The rules are checked on a fake tree first, since a checker that finds nothing proves nothing.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ORDER = (  # from the top; an import must go to a later group, or stay in its own area
    {"__main__"},
    {"cli"},
    {"tui", "bench"},
    {"engine"},
    {"runtime"},
    {"models"},
    {"quantize"},
    {"planner"},
    {"hub"},
    {"checkpoint"},
    {"hardware"},
    {"kernels"},
    {"metrics"},
    {"events", "settings"},
    {"units", "errors", "formats", "environment"},
    {"__init__"},
)
RANK = {area: rank for rank, areas in enumerate(ORDER) for area in areas}
HEAVY = ("torch", "transformers", "safetensors.torch")
HEAVY_AT_IMPORT = {"engine", "runtime", "models", "quantize", "kernels"}
HEAVY_IN_FUNCTIONS = HEAVY_AT_IMPORT | {"hub", "hardware"}  # a GGUF's tokenizer; measuring a device
MAX_LINES = 400


@dataclass(frozen=True)
class Import:
    """One name that a module imports; not ``at_import``: within a function or for the type checker only."""

    name: str
    line: int
    at_import: bool


def imports(tree: ast.AST, package: str, at_import: bool = True) -> Iterator[Import]:
    """Every import below ``tree``, relative ones made absolute by ``package``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (above, node.module) if part)
            yield from (Import(f"{module}.{alias.name}", node.lineno, at_import) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(ast.Module(node.body, []), package, False)
            yield from imports(ast.Module(node.orelse, []), package, at_import)
        else:
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(node, package, at_import and not function)


def read_tree(root: Path) -> dict[str, list[Import]]:
    """Module name -> its imports, for every module of ``root/llmrun``."""
    modules = {}
    for path in sorted((root / "llmrun").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        package = ".".join(parts[:-1])
        modules[".".join(parts)] = list(imports(ast.parse(path.read_text(encoding="utf-8")), package))
    return modules


def area(name: str) -> str:
    """The package or leaf of ours that a dotted name belongs to."""
    part = [*name.split("."), "__init__"][1]
    return part if part in RANK else "__init__"


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def unknown_areas(modules: Mapping[str, list[Import]]) -> Iterator[str]:
    for module in modules:
        if module.split(".")[1] not in RANK:
            yield f"{module}: has no place in the order"


def upward(modules: Mapping[str, list[Import]]) -> Iterator[str]:
    for module, found in modules.items():
        for one in found:
            here, there = area(module), area(one.name)
            if within(one.name, ("llmrun",)) and here != there and RANK[here] >= RANK[there]:
                yield f"{module}:{one.line}: {here} imports {there}"


def misplaced(modules: Mapping[str, list[Import]]) -> Iterator[str]:
    """torch and transformers outside of where they belong, rich outside of tui."""
    for module, found in modules.items():
        for one in found:
            allowed = HEAVY_AT_IMPORT if one.at_import else HEAVY_IN_FUNCTIONS
            if within(one.name, HEAVY) and area(module) not in allowed:
                yield f"{module}:{one.line}: {area(module)} imports {one.name}"
            if within(one.name, ("rich",)) and area(module) != "tui":
                yield f"{module}:{one.line}: {area(module)} imports rich"


def loaded_by(module: str, modules: Mapping[str, list[Import]]) -> set[str]:
    """Everything whose import the import of ``module`` causes, the packages around it included."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        parts = name.split(".")
        waiting += [f"{'.'.join(parts[:end])}.__init__" for end in range(1, len(parts)) if parts[-1] != "__init__"]
        known = next((one for one in (name, f"{name}.__init__", ".".join(parts[:-1])) if one in modules), name)
        if known not in seen:
            seen.add(known)
            waiting += [one.name for one in modules.get(known, ()) if one.at_import]
    return seen


def heavy_chains(modules: Mapping[str, list[Import]]) -> Iterator[str]:
    """Modules above or beside the engine room that bring torch in by way of others."""
    for module in modules:
        heavy = {name.split(".")[0] for name in loaded_by(module, modules) if within(name, HEAVY)}
        if heavy and area(module) not in HEAVY_AT_IMPORT:
            yield f"{module}: its import loads {', '.join(sorted(heavy))}"


def long_files(root: Path) -> Iterator[str]:
    for folder in ("llmrun", "tests", "benchmarks", "tools"):
        for path in sorted((root / folder).rglob("*.py")):
            n_lines = len(path.read_text(encoding="utf-8").splitlines())
            if n_lines > MAX_LINES:
                yield f"{path.relative_to(root)}: {n_lines} lines"


def violations(root: Path) -> list[str]:
    modules = read_tree(root)
    return [
        *unknown_areas(modules),
        *upward(modules),
        *misplaced(modules),
        *heavy_chains(modules),
        *long_files(root),
    ]


def plant(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / "llmrun" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_llmrun_keeps_the_rules():
    assert violations(REPOSITORY) == []


def test_the_structure_page_has_one_line_for_each_part():
    page = (REPOSITORY / "docs" / "structure.md").read_text(encoding="utf-8")
    parts = [path.name for path in (REPOSITORY / "llmrun").glob("[!_]*.py")]
    parts += [f"{path.parent.name}/" for path in (REPOSITORY / "llmrun").glob("*/__init__.py")]
    parts += [f"tests/{path.name}/" for path in (REPOSITORY / "tests").iterdir() if list(path.glob("test_*.py"))]
    described = re.findall(r"^\| `([\w/]+(?:\.py|/))` \| \w", page, re.MULTILINE)
    assert sorted(described) == sorted({*parts, "benchmarks/", "docs/", "tools/", "man/", "completions/"})


def test_the_checker_sees_the_real_tree():
    modules = read_tree(REPOSITORY)
    assert {area(module) for module in modules} >= {"cli", "tui", "engine", "runtime", "planner", "hub", "units"}
    assert any(one.name == "torch" for one in modules["llmrun.engine.engine"])
    assert "torch" in loaded_by("llmrun.engine.engine", modules)


@pytest.mark.parametrize(
    "files",
    [
        {"cli/app.py": "from llmrun.tui import chat\nfrom llmrun.bench import run\nimport llmrun.units"},
        {"__main__.py": "from llmrun.cli.app import main"},
        {"planner/make.py": "from llmrun.planner.fill import fill\nfrom llmrun.checkpoint.spec import ModelSpec"},
        {"hub/gguf.py": "def convert():\n    from transformers import AutoConfig"},
        {"hardware/measure.py": "from llmrun.settings import Budget\ndef measure():\n    import torch"},
        {"tui/chat.py": "if TYPE_CHECKING:\n    from llmrun.engine.a import A\nimport rich"},
        {"engine/a.py": "import torch\nimport transformers", "cli/b.py": "def go():\n    import llmrun.engine.a"},
        {"cli/app.py": "from llmrun import __version__", "__init__.py": "__version__ = '1'"},
        {"planner/a.py": "import torchless\nimport transformers_lite\nimport richer"},
        {"engine/light.py": "", "engine/heavy.py": "import torch", "tui/a.py": "from llmrun.engine import light"},
    ],
)
def test_what_is_allowed(tmp_path, files):
    assert violations(plant(tmp_path, files)) == []


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"engine/a.py": "import llmrun.cli.app"}, "llmrun.engine.a:1: engine imports cli"),
        ({"tui/a.py": "from llmrun import bench"}, "llmrun.tui.a:1: tui imports bench"),
        ({"bench/a.py": "from llmrun.tui.b import c"}, "llmrun.bench.a:1: bench imports tui"),
        ({"checkpoint/a.py": "x = 1\nfrom llmrun.hub import store"}, "llmrun.checkpoint.a:2: checkpoint imports hub"),
        ({"hardware/a.py": "from ..planner.plan import Plan"}, "llmrun.hardware.a:1: hardware imports planner"),
        ({"hub/__init__.py": "from ..planner import Plan"}, "llmrun.hub.__init__:1: hub imports planner"),
        ({"units.py": "from .hub import store"}, "llmrun.units:1: units imports hub"),
        ({"settings.py": "import llmrun.metrics"}, "llmrun.settings:1: settings imports metrics"),
        ({"runtime/a.py": "def f():\n    from llmrun.engine import b"}, "llmrun.runtime.a:2: runtime imports engine"),
        (
            {"models/a.py": "import typing\nif typing.TYPE_CHECKING:\n    import llmrun.runtime.b"},
            "llmrun.models.a:3: models imports runtime",
        ),
        ({"hub/a.py": "import torch"}, "llmrun.hub.a:1: hub imports torch"),
        ({"planner/a.py": "def f():\n    import torch.nn"}, "llmrun.planner.a:2: planner imports torch.nn"),
        (
            {"cli/a.py": "try:\n    from transformers import Cache\nexcept ImportError:\n    pass"},
            "llmrun.cli.a:2: cli imports transformers.Cache",
        ),
        (
            {"checkpoint/a.py": "class A:\n    from safetensors import torch"},
            "llmrun.checkpoint.a:2: checkpoint imports safetensors.torch",
        ),
        ({"cli/a.py": "from rich.console import Console"}, "llmrun.cli.a:1: cli imports rich"),
        (
            {"cli/a.py": "from llmrun.engine.b import c", "engine/b.py": "import torch"},
            "llmrun.cli.a: its import loads torch",
        ),
        (
            {
                "tui/a.py": "from llmrun.engine import light",
                "engine/__init__.py": "import torch",
                "engine/light.py": "",
            },
            "llmrun.tui.a: its import loads torch",
        ),
        (
            {
                "tui/a.py": "import llmrun.models",
                "models/__init__.py": "from .b import c",
                "models/b.py": "import torch",
            },
            "llmrun.tui.a: its import loads torch",
        ),
        ({"server/app.py": ""}, "llmrun.server.app: has no place in the order"),
        ({"helpers.py": ""}, "llmrun.helpers: has no place in the order"),
        ({"cli/long.py": "x = 1\n" * 401}, "llmrun/cli/long.py: 401 lines"),
    ],
)
def test_what_is_refused(tmp_path, files, found):
    assert found in violations(plant(tmp_path, files))
