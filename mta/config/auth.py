"""What is wrong with an [[auth]] as a whole: each type needs some keys and has no use for the others."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Final

from mta.config.settings import Auth, Listener

MECHANISMS: Final = (
    *("PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1", "OAUTHBEARER", "XOAUTH2", "EXTERNAL"),
)
_KEYS: Final = {  # type: (needed, also known)
    "file": (("path",), ()),
    "dovecot": (("path",), ()),
    "sql": (("database", "query"), ()),
    "hook": (("hook",), ()),
    "oauth": ((), ("introspection", "jwks", "issuer", "audience", "scope", "claim", "client_id", "client_secret_file")),
}


def problems(auth: Auth) -> Iterator[tuple[str, str]]:
    """(key, what is wrong)."""
    needed, known = _KEYS[auth.type]
    for field in dataclasses.fields(auth):
        value = getattr(auth, field.name)
        if field.name in needed and not value:
            yield field.name, f'is missing; type "{auth.type}" needs it'
        elif field.name not in ("type", *needed, *known) and value != field.default:
            yield field.name, f'means nothing with type "{auth.type}"'
    if auth.type == "sql":
        yield from _sql_problems(auth)
    elif auth.type == "hook" and auth.hook and not re.fullmatch(r"[\w.]+:\w+", auth.hook):
        yield "hook", f'{auth.hook!r} is no function; write "module:function"'
    elif auth.type == "oauth":
        yield from _oauth_problems(auth)


def listener_problems(listener: Listener, *, users: bool) -> Iterator[tuple[str, str]]:
    """(key, what is wrong). `users`: there is an [[auth]]."""
    if listener.tls == "implicit":
        for name in ("early_talk", "greeting_delay"):
            if getattr(listener, name) not in ("ignore", 0):
                yield name, 'means nothing with tls = "implicit": there the client speaks first'
    if listener.role != "submission":
        for name in ("mechanisms", "auth_without_tls"):
            if getattr(listener, name):
                yield name, f'means nothing with role "{listener.role}": nobody logs in there'
    elif users and listener.tls == "off" and not listener.auth_without_tls:
        yield "tls", 'without it nobody may log in; use "starttls" or "implicit" (or auth_without_tls = true)'


def _sql_problems(auth: Auth) -> Iterator[tuple[str, str]]:
    if auth.database and not auth.database.startswith(("sqlite:", "postgresql://", "postgres://")):
        yield "database", 'is no database; write "sqlite:PATH" or "postgresql://USER@HOST/DATABASE"'
    if auth.query and not re.search(r"(?<!:):user\b", auth.query):
        yield "query", "never asks for :user, so every name would be the same to it"


def _oauth_problems(auth: Auth) -> Iterator[tuple[str, str]]:
    if bool(auth.introspection) == bool(auth.jwks):
        yield "jwks", "name either introspection or jwks, and not both"
    if auth.jwks and not auth.audience:
        yield "audience", "is missing; without it a token meant for another service would be good here"
    for name in ("introspection", "jwks"):
        url = getattr(auth, name)
        if url and not re.match(r"https://|http://(127\.0\.0\.1|\[::1\]|localhost)[:/]", url):
            yield name, "must begin with https:// (http:// is for this machine only)"
