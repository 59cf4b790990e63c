"""The reference of all settings, from their declarations: `python -m mta.config.reference > docs/configuration.md`."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any, Literal

from mta.config.settings import Address, Blame, CoolDown, Limits, Network, NextHop, Octets, Rate, Seconds, Settings

_HEAD = """\
# Configuration

One TOML file. Unknown keys, wrong types and wrong values are errors that name the file, the line and the key
(`mta check -c FILE`). Durations are written "250ms", "30s", "5m", "1h30m", "5d" or as a number of seconds; sizes
"256K", "64M" or a number of octets; rates "5/s", "60/m" or "60/min", "1000/h", "9000/d" or "none". Relative paths
begin at the folder of the file.

This page is generated from the declarations: `python -m mta.config.reference > docs/configuration.md`.
"""
_TYPES: dict[object, str] = {
    Seconds: "duration",
    Octets: "size",
    Address: "address",
    NextHop: "next hop",
    Network: "network",
    Rate: "rate",
    CoolDown: "table of replies",
    Limits: "table",
    Path: "path",
    Blame: "class of replies",
    str: "string",
    int: "number",
    bool: "true or false",
    float: "number",
}


def reference() -> str:
    """The whole page."""
    hints = typing.get_type_hints(Settings)
    return _HEAD + "".join(_section(name, hint) for name, hint in hints.items())


def _section(name: str, hint: Any) -> str:
    several = typing.get_origin(hint) is tuple
    kind = typing.get_args(hint)[0] if several else hint
    _, _, sentence = (kind.__doc__ or "").partition(": ")
    title = f"[[{name}]]" if several else f"[{name}]"
    lines = [
        f"\n## {title}\n",
        " ".join((sentence[:1].upper() + sentence[1:]).split()),
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    hints = typing.get_type_hints(kind)
    lines += [_row(field, hints[field.name]) for field in dataclasses.fields(kind) if "help" in field.metadata]
    below = [_section(f"{name}.{inner}", hint) for inner, hint in hints.items() if _is_tables(hint)]
    return "\n".join(lines) + "\n" + "".join(below)


def _is_tables(hint: Any) -> bool:
    kind = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None
    return dataclasses.is_dataclass(kind) and kind not in _TYPES


def _row(field: dataclasses.Field[Any], hint: Any) -> str:
    default = "required" if field.default is dataclasses.MISSING else _default(field.default)
    default += "".join(f"; {role}: {_default(value)}" for role, value in field.metadata.get("roles", {}).items())
    meaning = field.metadata["help"].replace("|", "\\|")
    return f"| `{field.name}` | {_type(hint)} | {default} | {meaning} |"


def _type(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _TYPES:
        return _TYPES[hint]
    if origin is Literal:
        return " or ".join(f'"{a}"' for a in arguments)
    if _is_tables(hint):
        return "tables"
    if arguments and arguments[0] is CoolDown:
        return _TYPES[CoolDown]
    if origin is tuple:
        return f"{_type(arguments[0])} or list"
    if type(None) in arguments:
        return _type(arguments[0])
    raise TypeError(f"no word for {hint}")


def _default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value in ((), None, "") or isinstance(value, Limits):
        return "none"
    return f'"{value}"' if isinstance(value, str | Path) else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    print(reference(), end="")
