"""What C code prints while a plan is made is no data."""

import subprocess
import sys

PRINTS = """
import ctypes
from llmrun.cli.apart import standard_output_apart
libc = ctypes.CDLL(None)
print("before")
with standard_output_apart():
    libc.printf(b"a line of HiGHS\\n")
print("after")
"""


def test_what_c_code_prints_goes_to_standard_error():
    done = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, text=True, check=True)
    assert done.stdout == "before\nafter\n"
    assert done.stderr == "a line of HiGHS\n"


def test_without_standard_output_nothing_is_changed():
    code = "import os; os.close(1)\n" + PRINTS.replace("print(", "str(")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).returncode == 0
