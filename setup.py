"""The kernels: one plain shared library, built where there is a compiler and left out where there is none.

Everything else about the package is in pyproject.toml.
"""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("llmrun", "kernels", "src")

setup(
    ext_modules=[
        Extension(
            "llmrun.kernels._llmrun",
            sources=sorted(map(str, SOURCES.glob("*.c"))),
            depends=sorted(map(str, [*SOURCES.glob("*.h"), *SOURCES.glob("*.inc")])),
            extra_compile_args=["-O3", "-g0", "-std=c11", "-ffp-contract=off", "-fvisibility=hidden", "-pthread"],
            extra_link_args=["-pthread"],
            libraries=["m"],
            optional=True,  # without a compiler torch's own operators serve
        )
    ]
)
