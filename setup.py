"""Builds the extension modules. Everything else about the package is in pyproject.toml.

MTA_TRACE=1     line tracing and profiling hooks, for coverage of the .pyx files
MTA_ANNOTATE=1  an HTML page beside each .pyx that shows where Python is called
MTA_DEBUG=1     bounds checks and debug symbols
MTA_SANITIZE=1  with AddressSanitizer and UndefinedBehaviorSanitizer, as `make sanitize` does it
"""

import hashlib
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

TRACE = bool(os.environ.get("MTA_TRACE"))
ANNOTATE = bool(os.environ.get("MTA_ANNOTATE"))
DEBUG = bool(os.environ.get("MTA_DEBUG"))
SANITIZE = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"] if os.environ.get("MTA_SANITIZE") else []

SOURCES = (
    "mta/_fastparse.pyx",
    "mta/history/_scan.pyx",
    "mta/net/_wire.pyx",
    "mta/observe/_lines.pyx",
    "mta/queue/_arena.pyx",
    "mta/spool/_commit.pyx",
    "mta/spool/_replay.pyx",
)


def require_toolchain() -> None:
    """Say in one line which package is missing, instead of a page of compiler output."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if not (shutil.which(os.environ.get("CC", compiler).split()[0]) or shutil.which("gcc")):
        sys.exit("mta: no C compiler found; install one, on Debian with: apt-get install gcc")
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    if not header.exists():
        sys.exit(f"mta: {header} is missing; install it, on Debian with: apt-get install python3-dev")


def source_hash(source: str) -> tuple[str, str]:
    """A macro that tells the module what it was built from, so that a stale one is found by a test."""
    return "MTA_SOURCE_HASH", f'"{hashlib.sha256(Path(source).read_bytes()).hexdigest()}"'


def extensions() -> list[Extension]:
    from Cython.Build import cythonize

    macros = [("CYTHON_TRACE_NOGIL", "1")] if TRACE else []
    modules = [
        Extension(
            source.removesuffix(".pyx").replace("/", "."),
            [source],
            define_macros=[*macros, source_hash(source)],
            depends=[str(h) for h in Path(source).parent.glob("*.h")],
            extra_compile_args=[*(["-O0", "-g"] if DEBUG else ["-O1", "-g"] if SANITIZE else ["-O3"]), *SANITIZE],
            extra_link_args=["-pthread", *SANITIZE],
        )
        for source in SOURCES
    ]
    return cythonize(  # type: ignore[no-any-return]
        modules,
        annotate=ANNOTATE,
        compiler_directives={
            "language_level": "3",
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "linetrace": TRACE,
            "profile": TRACE,
            "emit_code_comments": DEBUG,
            "warn.undeclared": False,
        },
    )


if {"build_ext", "bdist_wheel", "install", "develop", "editable_wheel"} & set(sys.argv):
    require_toolchain()
    setup(ext_modules=extensions())
else:
    setup()
