"""Reads the configuration file into `Settings`, or says everything that is wrong with it.

The dataclasses of `mta.config.settings` declare every key once; this module walks them and knows types, not keys.
All problems of a file are told together, each with file, line, key and, where one is near, the right word.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from mta._fastparse import EXTENSIONS
from mta.config import auth, listeners, shapes, sources, tenants, values, wording
from mta.config.lines import Lines
from mta.config.lines import Path as KeyPath
from mta.config.settings import (
    TIMELY_EXTENSIONS,
    Address,
    Auth,
    CoolDown,
    Domain,
    Limits,
    Listener,
    Network,
    NextHop,
    Notices,
    Octets,
    Rate,
    Route,
    Seconds,
    Settings,
    Tls,
)

T = TypeVar("T")
_MOST_BY_DEFAULT = 32  # receivers, and couriers; more do not help one disk


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: in which file, on which line, with which key."""

    file: Path
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else f"{self.file}"
        return f"{where}: {self.key}: {self.text}" if self.key else f"{where}: {self.text}"


class ConfigError(Exception):
    """The file cannot be used; `problems` says why, a line each."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def load(path: Path) -> Settings:
    """The settings of a file, the rules that come with the program behind its own. Raises ConfigError."""
    settings = _load(Settings, path)
    if settings.delivery.provider_rules:
        rules = _load(shapes.Rules, shapes.PROVIDERS)
        settings = dataclasses.replace(settings, shape=(*settings.shape, *rules.shape))
    if settings.notices.language != wording.ENGLISH_NAME or settings.notices.templates is not None:
        words = _words_of(settings.notices, path)
        settings = dataclasses.replace(settings, notices=dataclasses.replace(settings.notices, wording=words))
    return settings


def _words_of(notices: Notices, path: Path) -> wording.Wording:
    """The words of the language that is set, from the file that has them."""
    name = f"{notices.language}.toml"
    folders = [folder for folder in (notices.templates, wording.SHIPPED) if folder is not None]
    file = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if file is None and notices.language == wording.ENGLISH_NAME:
        return wording.ENGLISH
    if file is None:
        line = Lines(path.read_text("utf-8")).of(("notices", "language"))
        where = " and ".join(map(str, folders))
        raise ConfigError([Problem(path, line, "notices.language", f"there is no {name} in {where}")])
    words = _load(wording.Wording, file)
    lines = Lines(file.read_text("utf-8"))
    faults = [Problem(file, lines.of(key), ".".join(key), text) for key, text in wording.problems(words)]
    if faults:
        raise ConfigError(faults)
    return words


def _load(kind: type[T], path: Path) -> T:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError([Problem(path, 0, "", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(path, 0, "", f"is not UTF-8: {error.reason} at octet {error.start}")]) from error
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # beside TOMLDecodeError: numbers and nesting beyond all measure
        raise ConfigError([_syntax(path, text, error)]) from error
    loader = _Loader(path, Lines(text))
    settings = loader.section(kind, table, ())
    if settings is None or loader.problems:
        raise ConfigError(sorted(loader.problems, key=lambda p: p.line))
    return settings


def processes(settings: Settings) -> tuple[int, int]:
    """How many receivers and couriers; 0 in the file means half the cores, at least one."""
    half = min(_MOST_BY_DEFAULT, max(1, (os.cpu_count() or 2) // 2))
    return settings.server.receivers or half, settings.server.couriers or half


def _syntax(path: Path, text: str, error: Exception) -> Problem:
    """A TOML error; its line is in the message, or it is the end of the file."""
    if not isinstance(error, tomllib.TOMLDecodeError):
        return Problem(path, 0, "", f"not TOML: {error}")
    match = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
    line = int(match[1]) if match else text.count("\n") + 1
    return Problem(path, line, "", f"not TOML: {re.sub(r' *[(]at .*[)]', '', str(error))}")


class _Loader:
    """One pass over one file."""

    def __init__(self, path: Path, lines: Lines) -> None:
        self._path = path
        self._base = path.parent.absolute()
        self._lines = lines
        self.problems: list[Problem] = []

    def say(self, key: KeyPath, text: str) -> None:
        self.problems.append(Problem(self._path, self._lines.of(key), _key_text(key), text))

    def _say_once(self, key: KeyPath, text: str) -> None:
        if not any(p.key == _key_text(key) and p.text == text for p in self.problems):
            self.say(key, text)

    def section(self, kind: type[T], table: object, key: KeyPath) -> T | None:
        """A table as an object of its dataclass; None when something in it is wrong."""
        if not isinstance(table, dict):
            self.say(key, f"must be a table: {_table_text(key)}")
            return None
        declared = dataclasses.fields(kind)  # type: ignore[arg-type]
        fields = {f.name: f for f in declared if not {"place", "made"} & f.metadata.keys()}
        hints = typing.get_type_hints(kind)
        before = len(self.problems)
        for name in table:
            if name not in fields:
                self._unknown((*key, name), list(fields))
        given = {
            name: self._value(hints[name], fields[name].metadata, table[name], (*key, name))
            for name in fields
            if name in table
        }
        for name, field in fields.items():
            if name in table:
                continue
            if _is_required(field):
                self.say((*key, name), f"is missing; {_missing_hint(key, name)}")
            elif isinstance(field.default, Path):
                given[name] = self._base / field.default  # so that no path depends on where a command is started
        given |= {f.name: f"{self._path}:{self._lines.of(key)}" for f in declared if "place" in f.metadata}
        if kind is Settings:
            self._check(given)
            if len(self.problems) == before:
                given["listener"] = _with_limits(given, table)
        return kind(**given) if len(self.problems) == before else None

    def _value(self, hint: Any, metadata: Any, value: object, key: KeyPath) -> Any:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if type(None) in arguments:
            hint = next(a for a in arguments if a is not type(None))
        if dataclasses.is_dataclass(hint) and hint not in (Address, NextHop, Rate):
            return self.section(hint, value, key)  # type: ignore[arg-type]
        if origin is tuple and arguments[0] is CoolDown:
            return self._cool_downs(value, key)
        if origin is tuple:
            return self._tuple(arguments[0], metadata, value, key)
        try:
            parsed = self._scalar(hint, value, key)
            _check_range(parsed, metadata)
        except ValueError as error:
            self.say(key, str(error))
            return None
        return parsed

    def _tuple(self, hint: Any, metadata: Any, value: object, key: KeyPath) -> tuple[Any, ...] | None:
        if isinstance(value, dict) and dataclasses.is_dataclass(hint) and hint is not Address:
            self.say(key, f"is a list of tables: write [[{_key_text(key)}]]")
            return None
        items = value if isinstance(value, list) else [value]
        return tuple(self._value(hint, metadata, item, (*key, n)) for n, item in enumerate(items))

    def _cool_downs(self, value: object, key: KeyPath) -> tuple[CoolDown, ...] | None:
        if not isinstance(value, dict):
            self.say(key, 'is a table of replies: { "421 4.7.28" = "pause 30m" }')
            return None
        found: list[CoolDown] = []
        for pattern, action in value.items():
            try:
                found.append(values.cool_down(pattern, action))
            except ValueError as error:
                self.say((*key, pattern), str(error))
        return tuple(found)

    def _scalar(self, hint: Any, value: object, key: KeyPath) -> object:
        if typing.get_origin(hint) is Literal:
            if value == "proxy":
                raise ValueError("the role proxy is not available in this version")
            return values.choice(value, typing.get_args(hint))
        if hint is NextHop:
            return values.next_hop(value, self._base)
        if hint is Path:
            return values.path(value, self._base)
        if hint is Address and key[0] == "listener":
            return values.listen_address(value, self._base)
        if key[0] == "domain" and key[-1] == "name":
            return values.domain(value)
        if key[0] == "source" and key[-1] in ("ipv4", "ipv6"):
            return sources.ip_address(value, int(str(key[-1])[-1]))
        if key[0] == "source" and key[-1] == "ehlo" and value:
            return values.domain(value)
        if key[0] == "egress" and key[-1] == "sender":
            return values.pattern(value)
        if (key[0] == "route" and key[-1] == "domain") or (key[0] == "tenant" and "senders" in key):
            return values.pattern(value)
        if key[0] == "control":
            return values.user(value)
        if key == ("server", "hostname"):
            return values.domain(value)
        if key[0] == "listener" and key[-1] == "socket_mode":
            return values.mode(value)
        if key[0] == "listener" and "mechanisms" in key:
            return values.choice(value, auth.MECHANISMS)
        if key[0] == "listener" and "without" in key:
            return values.choice(value, list(EXTENSIONS))
        if key[0] == "listener" and "trusted_extensions" in key:
            return values.choice(value, TIMELY_EXTENSIONS)
        if key[0] == "auth" and key[-1] == "database":
            return values.database(value, self._base)
        return _PARSERS[hint](value)

    def _unknown(self, key: KeyPath, names: list[str]) -> None:
        near = difflib.get_close_matches(str(key[-1]), names, 1)
        hint = f'; did you mean "{near[0]}"?' if near else f"; known are {', '.join(names)}"
        self.say(key, f"unknown key{hint}")

    # ---- what one key alone does not show

    def _check(self, given: Mapping[str, Any]) -> None:
        """`given` are the sections as far as they are right; a wrong one is None."""
        every = given.get("listener")
        if every == ():
            self.say(("listener",), "there is none: this server would accept nothing; add a [[listener]]")
        self._check_listeners(every or (), given.get("tls", Tls()), users=bool(given.get("auth")))
        self._check_auth(given.get("auth") or ())
        self._check_domains(given.get("domain") or ())
        self._check_routes(given.get("route") or ())
        if (retry := given.get("retry")) is not None and not given.get("source", ()):
            for n, rule in enumerate(retry.rule):
                if rule.quarantine:
                    self.say(("retry", "rule", n, "quarantine"), "means nothing without a [[source]]")
        if (notices := given.get("notices")) is not None:
            for name, text in wording.notices_problems(notices):
                self.say(("notices", name), text)
        for n, rule in enumerate(given.get("shape") or ()):
            for name, text in shapes.problems(rule) if rule is not None else ():
                self.say(("shape", n, name), text)
        declared = None if getattr(given.get("tenants"), "undeclared", False) else given.get("tenant") or ()
        names = None if declared is None or None in declared else [tenant.name for tenant in declared]
        for where, text in sources.problems(given.get("source") or (), given.get("egress") or (), names):
            self.say(where, text)
        for where, text in tenants.problems(given.get("tenant") or (), given.get("tenants"), every or ()):
            self.say(where, text)
        delivery = given.get("delivery")
        if delivery is not None and delivery.tls_authorities is not None:
            self._check_readable(("delivery", "tls_authorities"), delivery.tls_authorities)

    def _check_readable(self, key: KeyPath, file: Path) -> None:
        if not file.is_file() or not os.access(file, os.R_OK):
            self._say_once(key, f"{file} cannot be read")

    def _check_listeners(self, every: Sequence[Listener | None], tls: Tls | None, *, users: bool) -> None:
        seen: set[Address] = set()
        for n, listener in enumerate(every):
            if listener is None:
                continue
            if not listener.address:
                self.say(("listener", n, "address"), "names no address")
            for address in listener.address:
                if address in seen:
                    self.say(("listener", n, "address"), f"{address} is there twice")
                seen.add(address)
            if listener.tls != "off" and tls is not None:
                self._check_certificate(tls, n)
            if listener.client_certificates != "off" and tls is not None:
                self._check_client_certificates(listener, tls, n)
            for name, text in (*listeners.problems(listener), *auth.listener_problems(listener, users=users)):
                self.say(("listener", n, name), text)

    def _check_certificate(self, tls: Tls, listener: int) -> None:
        for name in ("certificate", "key"):
            file: Path | None = getattr(tls, name)
            if file is None:
                self.say(("listener", listener, "tls"), f"needs [tls] {name}")
            else:
                self._check_readable(("tls", name), file)
        for n, pair in enumerate(tls.certificates):
            self._check_readable(("tls", "certificates", n, "certificate"), pair.certificate)
            self._check_readable(("tls", "certificates", n, "key"), pair.key)

    def _check_client_certificates(self, listener: Listener, tls: Tls, n: int) -> None:
        if listener.tls == "off":
            self.say(("listener", n, "client_certificates"), 'means nothing with tls = "off"')
        elif tls.client_ca is None:
            self.say(("listener", n, "client_certificates"), "needs [tls] client_ca")
        else:
            self._check_readable(("tls", "client_ca"), tls.client_ca)

    def _check_auth(self, auths: Sequence[Auth | None]) -> None:
        for n, settings in enumerate(auths):
            for name, text in auth.problems(settings) if settings is not None else ():
                self.say(("auth", n, name), text)

    def _check_domains(self, domains: Sequence[Domain | None]) -> None:
        seen: set[str] = set()
        for n, domain in enumerate(domains):
            if domain is None:
                continue
            if domain.name in seen:
                self.say(("domain", n, "name"), f"{domain.name} is there twice")
            seen.add(domain.name)
            if domain.deliver.kind in ("mx", "hold"):
                self.say(("domain", n, "deliver"), f"{domain.deliver.text} delivers nothing; see [[route]]")

    def _check_routes(self, routes: Sequence[Route | None]) -> None:
        for n, route in enumerate(routes):
            if route is not None and route.next_hop.kind == "maildir":
                self.say(("route", n, "next_hop"), "maildir: is for own domains; declare a [[domain]]")


def _with_limits(given: Mapping[str, Any], table: Mapping[str, Any]) -> tuple[Listener, ...]:
    """The listeners with all their limits: what their own table says, else [limits], else what their role does."""
    shared = {name: getattr(given["limits"], name) for name in table.get("limits", ())}
    return tuple(
        dataclasses.replace(
            listener,
            limits=Limits(
                **{f.name: f.metadata["roles"][listener.role] for f in _LIMITS if listener.role in f.metadata["roles"]}
                | shared
                | {name: getattr(listener.limits, name) for name in written.get("limits", ())}
            ),
        )
        for listener, written in zip(given["listener"], table["listener"], strict=True)
    )


_LIMITS = [field for field in dataclasses.fields(Limits) if "roles" in field.metadata]


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} must be a string in quotes")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} must be a whole number")
    values.finite(value)
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{value!r} must be a number")
    return values.finite(value)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} must be true or false")
    return value


_PARSERS: dict[object, Callable[[object], object]] = {
    Seconds: values.seconds,
    Octets: values.octets,
    Address: values.address,
    Network: values.network,
    Rate: values.rate,
    str: _string,
    int: _whole,
    bool: _truth,
    float: _number,
}


def _check_range(value: object, metadata: Any) -> None:
    low, high = metadata.get("low"), metadata.get("high")
    if not isinstance(value, int | float):
        return
    if low is not None and value < low:
        raise ValueError(f"{_short(value)} is too small; at least {_short(low)}")
    if high is not None and value > high:
        raise ValueError(f"{_short(value)} is too large; at most {_short(high)}")


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _missing_hint(key: KeyPath, name: str) -> str:
    if key:
        return f"add it to {_table_text(key)}"
    return "add a [[listener]]" if name == "listener" else f"add a table [{name}]"


def _key_text(key: KeyPath) -> str:
    """("listener", 0, "address") as people say it: listener.address."""
    return ".".join(str(part) for part in key if isinstance(part, str))


def _table_text(key: KeyPath) -> str:
    """The header of a table: [server], or [[listener]] for one of a list."""
    return f"[[{_key_text(key)}]]" if isinstance(key[-1], int) else f"[{_key_text(key)}]"
