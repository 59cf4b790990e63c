"""The users file: one line a user, of fields with blanks between them, the name first.

    alice@example.org  $argon2id$v=19$...  SCRAM-SHA-256$15000:...  alias=sales@example.org  alias=@example.net
    bob@example.org  $argon2id$v=19$...  disabled
    carol@example.org  certificate=3b7e...

Empty lines, and lines that begin with #, stay as they are when the file is changed. `alias=` is an address that the
user may send as besides his own name; "@domain" stands for all addresses of a domain. `certificate=` is the SHA-256 of
a client certificate that the user may log in with, in hexadecimal.

INVARIANT: the file is replaced whole by a rename, after its new content is on the disk, so that a reader, and a crash,
find the old or the new one; who changes it holds the lock of its folder; its owner and mode stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from mta.policy.passwords import check_credential
from mta.policy.users.accounts import Account, Unavailable, folded
from mta.protocol.sasl.prep import saslprep

_ALIAS = "alias="
_CERTIFICATE = "certificate="
_DISABLED = "disabled"
_MOST_REPORTED = 5


class UserFileError(Exception):
    """The file cannot be read or changed; the text says why."""


def user_name(text: str) -> str:
    """A name as it is kept; ValueError."""
    name = folded(saslprep(text))
    if name.startswith("#") or any(c.isspace() for c in name):
        raise ValueError("has a blank in it, or begins with #")
    return name


def parse_line(line: str) -> Account | None:
    """One user; None for a comment. ValueError names the field by its place, as it may be a secret."""
    fields = line.split()
    if not fields or fields[0].startswith("#"):
        return None
    credentials, aliases, certificates, disabled = [], [], [], False
    name = user_name(fields[0])
    for place, field in enumerate(fields[1:], 2):
        if field == _DISABLED:
            disabled = True
        elif field.startswith(_ALIAS):
            aliases.append(alias_address(field.removeprefix(_ALIAS)))
        elif field.startswith(_CERTIFICATE):
            certificates.append(fingerprint(field.removeprefix(_CERTIFICATE)))
        else:
            try:
                check_credential(field)
            except ValueError as error:
                raise ValueError(f"field {place} {error}") from None
            credentials.append(field)
    return Account(
        name=name,
        credentials=tuple(credentials),
        aliases=tuple(aliases),
        certificates=tuple(certificates),
        disabled=disabled,
    )


def fingerprint(text: str) -> str:
    """A SHA-256 as it is kept; openssl writes it with colons. ValueError."""
    octets = text.replace(":", "").lower()
    if not re.fullmatch("[0-9a-f]{64}", octets):
        raise ValueError(f"{text!r} is no SHA-256 in hexadecimal")
    return octets


def alias_address(text: str) -> str:
    """An address, or "@domain"; ValueError."""
    address = folded(text)
    _, at, domain = address.rpartition("@")
    if not at or not domain or not address.isprintable() or any(c.isspace() for c in address):
        raise ValueError(f"{text!r} is no address, and no @domain")
    return address


def format_line(account: Account) -> str:
    fields = [account.name, *account.credentials, *(_ALIAS + a for a in account.aliases)]
    fields += [_CERTIFICATE + c for c in account.certificates]
    return "  ".join([*fields, _DISABLED] if account.disabled else fields)


def read_users(text: str) -> tuple[dict[str, Account], list[str]]:
    """All users of a text, and what is wrong with it, a line each. Of two lines for one name the first counts."""
    users: dict[str, Account] = {}
    problems = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            account = parse_line(line)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        if account is not None and account.name in users:
            problems.append(f"line {number}: {account.name} is there twice")
        elif account is not None:
            users[account.name] = account
    return users, problems


class UserFile:
    """The file as a source of accounts; read again when it was changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._users: dict[str, Account] = {}
        self._holders: dict[str, Account] = {}
        self._reading = asyncio.Lock()

    async def find(self, name: str) -> Account | None:
        try:
            await self._refresh()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"{self._path} cannot be read: {error}") from None
        return self._users.get(name)

    async def holder(self, fingerprint: str) -> Account | None:
        await self.find("")  # reads the file if it was changed
        return self._holders.get(fingerprint)

    async def _refresh(self) -> None:
        if _identity(self._path) == self._seen:
            return
        async with self._reading:  # the event loop goes on while a large file is read
            seen = _identity(self._path)
            if seen == self._seen:
                return
            text = await asyncio.get_running_loop().run_in_executor(None, self._path.read_text, "utf-8")
            self._users, problems = await asyncio.get_running_loop().run_in_executor(None, read_users, text)
            self._holders = {digest: user for user in self._users.values() for digest in user.certificates}
            self._seen = seen
        for problem in problems[:_MOST_REPORTED]:
            print(f"mta: {self._path}: {problem}; this user cannot log in", file=sys.stderr, flush=True)


def _identity(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def load_users(path: Path) -> tuple[dict[str, Account], list[str]]:
    """The users of a file, and its problems; a file that is not there has none. UserFileError."""
    try:
        return read_users(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}, []
    except (OSError, UnicodeDecodeError) as error:
        raise UserFileError(f"{path} cannot be read: {error}") from None


def change_user(path: Path, name: str, change: Callable[[Account | None], Account | None], group: int = -1) -> None:
    """Replace one user's line by what `change` makes of it: None takes it out. UserFileError.

    `group` is the one that may read a file that is made new by root.
    """
    try:
        with _locked_folder(path):
            old = path.read_text("utf-8") if path.exists() else ""
            _replace(path, _changed(old, name, change), group)
    except (OSError, UnicodeDecodeError) as error:
        raise UserFileError(f"{path} cannot be changed: {error}") from None


def _changed(text: str, name: str, change: Callable[[Account | None], Account | None]) -> str:
    lines, found = [], False
    for line in text.removesuffix("\n").split("\n") if text else []:
        fields = line.split(maxsplit=1)
        if not fields or fields[0].startswith("#") or folded(fields[0]) != name:
            lines.append(line)
        elif not found:
            found = True
            lines += _lines(change(_known(line)))
    if not found:
        lines += _lines(change(None))
    return "".join(line + "\n" for line in lines)


def _known(line: str) -> Account | None:
    try:
        return parse_line(line)
    except ValueError as error:
        raise UserFileError(f"the user's line is wrong, mend it by hand: {error}") from None


def _lines(account: Account | None) -> list[str]:
    return [] if account is None else [format_line(account)]


@contextlib.contextmanager
def _locked_folder(path: Path) -> Iterator[None]:
    """One change at a time; the folder itself is the lock, so that no file of its own lies about."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
        os.fsync(folder)
    finally:
        os.close(folder)


def _replace(path: Path, text: str, group: int) -> None:
    fresh = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()  # left of a crash
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "w", encoding="utf-8", newline="\n") as file:
            _take_over_owner(fd, path, group)
            file.write(text)
            file.flush()
            os.fsync(fd)
        fresh.rename(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        raise


def _take_over_owner(fd: int, path: Path, group: int) -> None:
    """INVARIANT: nobody can read the new file who could not read the old one."""
    try:
        old = path.stat()
    except FileNotFoundError:
        if group >= 0 and os.geteuid() == 0:
            os.fchown(fd, -1, group)
            os.fchmod(fd, 0o640)
        return
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode))
