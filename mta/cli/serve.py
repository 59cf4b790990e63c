"""`mta serve`: the server, in the foreground."""

from __future__ import annotations

import argparse

from mta.cli.common import config_path, settings


def run(arguments: argparse.Namespace) -> int:
    from mta.supervisor import serve

    path = config_path(arguments.config)
    return serve(settings(str(path)), path)
