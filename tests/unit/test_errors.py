"""What an error looks like, and that `docs/errors.md` lists every reference with its exit code."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmrun import errors
from llmrun.errors import (
    CheckpointError,
    DeviceError,
    Interrupted,
    LlmrunError,
    PlanError,
    Row,
    UsageError,
)

REPOSITORY = Path(__file__).parents[2]
CLASSES = {name: value for name, value in vars(errors).items() if isinstance(value, type) and name != "Row"}
REFERENCE = re.compile(r"[a-z]+(-[a-z]+)*")


def literals(node: ast.expr) -> set[str]:
    """The references that an expression can stand for."""
    texts = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return {text for text in texts if REFERENCE.fullmatch(text)}


def raised_in(source: str) -> Iterator[tuple[str, str | None]]:
    """Reference and class of each error made in ``source``; class ``None`` where another function makes the error."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "reference":
            yield from ((reference, None) for reference in literals(node.value))
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in CLASSES and node.args and ast.unparse(node.args[0]) != "reference":
            assert literals(node.args[0]), f"line {node.lineno}: a reference that this test cannot read"
            yield from ((reference, name) for reference in literals(node.args[0]))
        for keyword in node.keywords:
            if keyword.arg == "reference":
                yield from ((reference, None) for reference in literals(keyword.value))


def raised() -> dict[str, set[int]]:
    """Reference -> the exit codes it is raised with, over all of llmrun."""
    found: dict[str, set[int]] = {"interrupted": {Interrupted.exit_code}}
    for path in sorted((REPOSITORY / "llmrun").rglob("*.py")):
        for reference, name in raised_in(path.read_text(encoding="utf-8")):
            found.setdefault(reference, set()).update({CLASSES[name].exit_code} if name else ())
    return found


def listed() -> dict[str, set[int]]:
    """Reference -> exit codes, as the table of docs/errors.md has them."""
    text = (REPOSITORY / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| [^|]+ \| [^|]+ \|$", text, re.MULTILINE)
    assert len(rows) == len({reference for reference, _ in rows}), "a reference is listed twice"
    return {reference: {int(code)} for reference, code in rows}


def test_docs_list_every_error_that_can_be_raised_and_no_other():
    assert listed().keys() == raised().keys()


def test_docs_have_the_exit_codes_that_errors_end_with():
    assert listed() == raised()


def test_every_exit_code_is_explained():
    text = (REPOSITORY / "docs" / "errors.md").read_text(encoding="utf-8")
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert explained == {0, 141} | {kind.exit_code for kind in CLASSES.values()}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('raise UsageError("bad-size", f"{text}")', {("bad-size", "UsageError")}),
        (
            'return CheckpointError("a-b" if x else "c-d", "Some text")',
            {("a-b", "CheckpointError"), ("c-d", "CheckpointError")},
        ),
        (
            'reference = cause.reference if cause == "bad-checksum" else "gone"',
            {("bad-checksum", None), ("gone", None)},
        ),
        ('read(path, reference="broken-config")', {("broken-config", None)}),
        ('raise CheckpointError(reference, "text")', set()),
        ('raise ValueError("not-ours")', set()),
        ("raise Interrupted()", set()),
    ],
)
def test_how_references_are_found(source, found):
    assert set(raised_in(source)) == found


def test_a_reference_that_cannot_be_found_is_no_silence():
    with pytest.raises(AssertionError, match="cannot read"):
        list(raised_in("raise UsageError(name_of(x), 'text')"))


def test_exit_codes():
    codes = {
        kind: kind("x", "y").exit_code for kind in (LlmrunError, UsageError, PlanError, CheckpointError, DeviceError)
    }
    assert list(codes.values()) == [1, 2, 3, 4, 5]
    assert Interrupted().exit_code == 130
    assert all(issubclass(kind, LlmrunError) for kind in CLASSES.values())


def test_the_docstring_draws_the_tree():
    tree = inspect.getdoc(errors)
    drawn = {name: int(code) for name, code in re.findall(r"(\w*(?:Error|Interrupted)) +(\d+)  ", tree)}
    assert drawn == {name: kind.exit_code for name, kind in CLASSES.items()}


def test_an_error_is_two_lines_at_least():
    error = CheckpointError("missing-shard", "a.safetensors is not there")
    assert error.render() == "error: missing-shard\na.safetensors is not there"
    assert str(error) == error.message


def test_the_table_stands_in_columns_and_the_hint_comes_last():
    error = PlanError(
        "plan-over-budget",
        "No placement fits",
        rows=(Row("KV cache", "1.1 GiB", "32,768 tokens x 36 KiB"), Row("process", "380.0 MiB"), Row("", "2 B", "x")),
        hint="`--context 24576` fits",
    )
    assert error.render().splitlines() == [
        "error: plan-over-budget",
        "No placement fits",
        "  KV cache    1.1 GiB   32,768 tokens x 36 KiB",
        "  process   380.0 MiB",
        "                  2 B   x",
        "hint: `--context 24576` fits",
    ]


def test_interrupted_has_its_own_words():
    assert Interrupted().render() == "error: interrupted\nstopped by the user"
    assert Interrupted("stopped at the download").message == "stopped at the download"
