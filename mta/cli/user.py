"""`mta user add|passwd|alias|certificate|delete|list`: the users file of the configuration.

A password is asked for on a terminal, else read as the first line of standard input or of --password-file; it is never
an argument, as every user of the machine can read those. A running server sees the change by itself.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from dataclasses import replace
from pathlib import Path

from mta.cli.common import CONFIG, NOTHING, TEMPORARY, USAGE, fail, settings
from mta.config.settings import Settings
from mta.net.certificates import CertificateError, read_file
from mta.policy.passwords import make_credentials
from mta.policy.users.accounts import Account
from mta.policy.users.userfile import UserFileError, alias_address, change_user, fingerprint, load_users, user_name
from mta.premises import StartError, find_account

_SHORT = 8


def run(arguments: argparse.Namespace) -> int:
    found = settings(arguments.config)
    path = _users_file(found)
    try:
        if arguments.action == "list":
            return _list(path, as_json=arguments.json)
        name = user_name(arguments.name)
        return _ACTIONS[arguments.action](arguments, found, path, name)
    except ValueError as error:
        fail(USAGE, f"mta: {error}")
    except (UserFileError, CertificateError) as error:
        fail(TEMPORARY, f"mta: {error}")


def _users_file(found: Settings) -> Path:
    path = next((auth.path for auth in found.auth if auth.type == "file"), None)
    if path is None:
        fail(CONFIG, 'mta: there is no users file; add to the configuration: [[auth]] with type = "file" and a path')
    return path


def _list(path: Path, *, as_json: bool) -> int:
    users, problems = load_users(path)
    for account in users.values():
        if as_json:
            kinds = [_kind(credential) for credential in account.credentials]
            row = {"name": account.name, "aliases": account.aliases, "kinds": kinds, "disabled": account.disabled}
            row["certificates"] = account.certificates
            print(json.dumps(row))
        else:
            print("  ".join([account.name, *account.aliases, *(["(disabled)"] if account.disabled else [])]))
    for problem in problems:
        print(f"mta: {path}: {problem}", file=sys.stderr)
    return 0


def _kind(credential: str) -> str:
    return "ARGON2ID" if credential.startswith("$") else credential.partition("$")[0]


def _add(arguments: argparse.Namespace, found: Settings, path: Path, name: str) -> int:
    aliases = tuple(alias_address(text) for text in arguments.alias)
    if name in load_users(path)[0]:
        fail(NOTHING, f"mta: {name} is in {path} already; mta user passwd changes the password")
    fresh = Account(name=name, credentials=_credentials(arguments, found), aliases=aliases)

    def change(old: Account | None) -> Account:
        if old is not None:
            raise UserFileError(f"{name} was added by someone else meanwhile")
        return fresh

    change_user(path, name, change, _group(found))
    return 0


def _passwd(arguments: argparse.Namespace, found: Settings, path: Path, name: str) -> int:
    _require(path, name)
    credentials = _credentials(arguments, found)
    change_user(path, name, lambda old: replace(_still(old, name), credentials=credentials))
    return 0


def _alias(arguments: argparse.Namespace, found: Settings, path: Path, name: str) -> int:
    _require(path, name)
    added = [alias_address(text) for text in arguments.add]
    removed = {alias_address(text) for text in arguments.remove}

    def change(old: Account | None) -> Account:
        account = _still(old, name)
        return replace(account, aliases=tuple(a for a in dict.fromkeys([*account.aliases, *added]) if a not in removed))

    change_user(path, name, change)
    return 0


def _certificate(arguments: argparse.Namespace, found: Settings, path: Path, name: str) -> int:
    _require(path, name)
    added = [_fingerprint(text) for text in arguments.add]
    removed = {_fingerprint(text) for text in arguments.remove}

    def change(old: Account | None) -> Account:
        account = _still(old, name)
        known = dict.fromkeys([*account.certificates, *added])
        return replace(account, certificates=tuple(c for c in known if c not in removed))

    change_user(path, name, change)
    return 0


def _fingerprint(text: str) -> str:
    """Of a PEM file, or as it is given."""
    return read_file(Path(text)).digest.hex() if Path(text).is_file() else fingerprint(text)


def _delete(arguments: argparse.Namespace, found: Settings, path: Path, name: str) -> int:
    _require(path, name)
    change_user(path, name, lambda old: None)
    return 0


_ACTIONS = {"add": _add, "passwd": _passwd, "alias": _alias, "certificate": _certificate, "delete": _delete}


def _require(path: Path, name: str) -> None:
    if name not in load_users(path)[0]:
        fail(NOTHING, f"mta: there is no {name} in {path}; mta user list shows who is")


def _still(old: Account | None, name: str) -> Account:
    if old is None:
        raise UserFileError(f"{name} was deleted by someone else meanwhile")
    return old


def _credentials(arguments: argparse.Namespace, found: Settings) -> tuple[str, ...]:
    digests = ["SHA-256", "SHA-1"] if found.login.scram_sha_1 else ["SHA-256"]
    return make_credentials(_password(arguments.password_file), digests)


def _password(file: str | None) -> str:
    if file is None and sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if password != getpass.getpass("Again: "):
            raise ValueError("these were two different passwords; nothing was changed")
    else:
        try:
            raw = Path(file).read_bytes() if file is not None else sys.stdin.buffer.readline()
            password = raw.decode("utf-8").partition("\n")[0].removesuffix("\r")
        except OSError as error:
            raise ValueError(f"{file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError("the password is not UTF-8") from None
    if not password:
        raise ValueError("the password is empty")
    if len(password) < _SHORT:
        print(f"mta: this password has fewer than {_SHORT} characters and is easily guessed", file=sys.stderr)
    return password


def _group(found: Settings) -> int:
    """Who must be able to read a users file that root makes: the server's own group."""
    try:
        account = find_account(found.server.user)
    except StartError:
        return -1
    return -1 if account is None else account.gid
