"""The kernels' build: with sanitizers, for another CPU, from what a source distribution has, and without a compiler."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmrun.kernels.library import Library, find_library
from llmrun.kernels.linear import Kernels

REPOSITORY = Path(__file__).parents[2]
SOURCES = REPOSITORY / "llmrun" / "kernels" / "src"
CHECK = Path(__file__).with_name("check_kernels.c")
FLAGS = ["-std=c11", "-ffp-contract=off", "-pthread", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
NOT_REPEATED = "-DALWAYS_INLINE=static inline"  # a third of the time to compile
SANITIZERS = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
ARM_COMPILER, ARM_EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"


def compile_check(compiler: str, flags: list[str], folder: Path) -> Path:
    """`check_kernels.c` and the kernels, not optimised: that takes long, and other tests run what is optimised."""

    def compile_one(source: Path) -> Path:
        made = folder / f"{source.stem}.o"
        subprocess.run(
            [compiler, *FLAGS, NOT_REPEATED, *flags, f"-I{SOURCES}", "-c", str(source), "-o", str(made)], check=True
        )
        return made

    with ThreadPoolExecutor() as pool:
        objects = [*pool.map(compile_one, [*sorted(SOURCES.glob("*.c")), CHECK])]
    program = folder / "check"
    subprocess.run([compiler, *FLAGS, *flags, *map(str, objects), "-lm", "-o", str(program)], check=True)
    return program


def has_sanitizers(folder: Path) -> bool:
    if not shutil.which("cc"):
        return False
    empty = folder / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    done = subprocess.run(["cc", *SANITIZERS, str(empty), "-o", str(folder / "empty")], capture_output=True)
    return done.returncode == 0


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sanitized")
    if not has_sanitizers(folder):
        pytest.skip("no C compiler with sanitizers")
    return compile_check("cc", SANITIZERS, folder)


@pytest.mark.parametrize("variant", ["best", "avx2", "portable"])
def test_no_variant_reads_or_computes_what_it_may_not(sanitized: Path, variant: str) -> None:
    done = subprocess.run([sanitized], env={**os.environ, "LLMRUN_KERNELS": variant}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("checks, right\n")


@pytest.mark.skipif(not (shutil.which(ARM_COMPILER) and shutil.which(ARM_EMULATOR)), reason="no ARM to emulate")
def test_arm(tmp_path: Path) -> None:
    program = compile_check(ARM_COMPILER, ["-static"], tmp_path)
    done = subprocess.run([ARM_EMULATOR, program], capture_output=True, text=True)
    assert done.stdout.startswith("neon:"), done.stderr
    assert done.stdout.endswith("checks, right\n")


def set_up(folder: Path, *commands: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs setup.py in a copy of what it needs."""
    shutil.copytree(SOURCES, folder / "llmrun" / "kernels" / "src")
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "llmrun/__init__.py"):
        shutil.copy(REPOSITORY / name, folder / name)
    command = [sys.executable, "-W", "ignore", "setup.py", *commands]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)


def test_without_a_compiler_the_build_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    done = set_up(tmp_path, "build_ext", "--inplace", CC="no-such-compiler")
    assert "no-such-compiler" in done.stdout + done.stderr
    assert find_library(tmp_path / "llmrun" / "kernels") is None


def test_a_source_distribution_has_all_that_is_compiled(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    set_up(tmp_path, "sdist", "--formats=gztar")
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path / "unpacked", filter="data")
    found = {path.name for path in (tmp_path / "unpacked").rglob("llmrun/kernels/src/*")}
    assert found == {path.name for path in SOURCES.iterdir()}


def test_a_library_that_is_none_of_ours_is_not_taken(tmp_path: Path) -> None:
    from importlib.machinery import EXTENSION_SUFFIXES

    path = tmp_path / f"_llmrun{EXTENSION_SUFFIXES[0]}"
    path.write_bytes(b"not a library")
    with pytest.raises(OSError, match="llmrun"):
        Library(path)
    assert find_library(tmp_path) is None


def test_where_it_was_not_built_kernels_refuse() -> None:
    with pytest.raises(ValueError, match="not built"):
        Kernels(None, 2)
