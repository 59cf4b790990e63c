"""From [[auth]] to back-ends: made in each receiver, after the fork, as they own sockets, threads and connections."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from mta.config.settings import Auth
from mta.policy.users.accounts import BackEnd
from mta.policy.users.dovecot import DovecotJudge
from mta.policy.users.hook import HookJudge, load_hook
from mta.policy.users.sql import Postgres, Sqlite, SqlSource
from mta.policy.users.tokens import Http, Introspection, SignedTokens
from mta.policy.users.userfile import UserFile

_SQLITE = "sqlite:"


def make_back_ends(auths: Sequence[Auth]) -> list[BackEnd]:
    """In the order of the file. ValueError: see `obstacle`."""
    return [_make(auth) for auth in auths]


def _make(auth: Auth) -> BackEnd:
    match auth.type:
        case "file":
            assert auth.path is not None  # the configuration was checked
            return UserFile(auth.path)
        case "dovecot":
            assert auth.path is not None
            return DovecotJudge(auth.path)
        case "hook":
            return HookJudge(auth.hook)
        case "sql" if auth.database.startswith(_SQLITE):
            return SqlSource(Sqlite(Path(auth.database.removeprefix(_SQLITE)), auth.query))
        case "sql":
            return SqlSource(Postgres(auth.database, auth.query))
    if auth.jwks:
        return SignedTokens(auth, Http())
    secret = auth.client_secret_file.read_text("utf-8").strip() if auth.client_secret_file else ""
    return Introspection(auth, secret, Http())


def obstacle(auths: Sequence[Auth]) -> str:
    """Why a receiver could not make these; "" when it can."""
    for auth in auths:
        if auth.type == "hook":
            try:
                load_hook(auth.hook)
            except ValueError as error:
                return f"[[auth]] hook: {error}"
        for package, extra in _needed(auth):
            if importlib.util.find_spec(package) is None:
                return f'[[auth]] type "{auth.type}" needs the package {package}: pip install "mta[{extra}]"'
        if auth.client_secret_file is not None:
            try:
                auth.client_secret_file.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                return f"[[auth]] client_secret_file: {auth.client_secret_file} cannot be read: {error}"
    return ""


def _needed(auth: Auth) -> list[tuple[str, str]]:
    if auth.type == "sql" and not auth.database.startswith(_SQLITE):
        return [("asyncpg", "postgresql")]
    if auth.type == "oauth":
        return [("aiohttp", "oauth"), *([("jwt", "oauth")] if auth.jwks else [])]
    return []
