"""Programs that a test drives and that not every machine has."""

from __future__ import annotations

import os
import shutil

import pytest

from bench import postfix

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def need_smtp_source() -> tuple[list[str], dict[str, str]]:
    """Postfix's load generator, as command and environment: the installed one or that of the benchmarks' cache."""
    cache = postfix.cache_folder(None)
    if shutil.which("smtp-source", path=_PATH) is None and ((cache / "postfix/complete").exists() or in_ci()):
        return postfix.find(cache).program("smtp-source")
    return [need("smtp-source")], dict(os.environ)


def need(program: str) -> str:
    """The path of a program. Where it is missing the test is skipped, but in CI (CI=true) it fails."""
    found = shutil.which(program, path=_PATH)
    if found is not None:
        return found
    if in_ci():
        pytest.fail(f"{program} is missing, and CI must have it")
    pytest.skip(f"{program} is not installed")


def in_ci() -> bool:
    return os.environ.get("CI") == "true"
