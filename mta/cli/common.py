"""What the verbs share: exit codes, the configuration file, a client for it.

Exit codes: 0, 1 nothing matched, 2 usage, 69 no server, 75 try again later, 78 configuration.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, NoReturn

from mta.config.load import ConfigError, load
from mta.config.settings import Settings
from mta.control.client import Client

NOTHING: Final = 1
USAGE: Final = 2
UNAVAILABLE: Final = 69
TEMPORARY: Final = 75
CONFIG: Final = 78
_PLACES = (Path("mta.toml"), Path("/etc/mta/mta.toml"))


def fail(code: int, text: str) -> NoReturn:
    """End with a message on standard error."""
    print(text, file=sys.stderr)
    raise SystemExit(code)


def config_path(given: str | None) -> Path:
    """The file that was named, or the first of the usual places that exists."""
    if given is not None:
        return Path(given)
    for place in _PLACES:
        if place.exists():
            return place
    fail(CONFIG, f"mta: no configuration: give -c FILE, or make {' or '.join(map(str, _PLACES))}")


def settings(given: str | None) -> Settings:
    """The settings, or the end with all that is wrong with them."""
    try:
        return load(config_path(given))
    except ConfigError as error:
        fail(CONFIG, str(error))


def connect(given: str | None) -> Client:
    """A client of the server that runs with this configuration. NoServer."""
    return Client(settings(given).server.runtime_dir)
