"""Who may do what over the control socket: roles by the user at the other end, as the kernel tells it (SO_PEERCRED).

    admin     everything: root, the server's own user, and those of `[control] admins`
    viewer    looks, and changes nothing: those of `[control] viewers`

Invariant: who has no role is told so and never read from.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from mta.config.settings import Control

Role = Literal["viewer", "admin"]
_PEER = struct.Struct("3i")  # pid, uid, gid


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks."""

    uid: int
    name: str
    role: Role

    @property
    def admin(self) -> bool:
        return self.role == "admin"


@dataclass(frozen=True, slots=True)
class Access:
    """The users with a role, besides root and the one that this process runs as."""

    admins: frozenset[int] = field(default_factory=frozenset)
    viewers: frozenset[int] = field(default_factory=frozenset)

    @property
    def others(self) -> bool:
        """Whether anybody else may come, so that the socket must let him in."""
        return bool((self.admins | self.viewers) - {0, os.geteuid()})

    def peer(self, uid: int) -> Peer | None:
        """A user with his role; None for one without."""
        if uid in (0, os.geteuid()) or uid in self.admins:
            return Peer(uid, user_name(uid), "admin")
        return Peer(uid, user_name(uid), "viewer") if uid in self.viewers else None


def access_of(settings: Control) -> Access:
    """The roles of a configuration. One who is gone since it was read has none."""
    return Access(frozenset(_uids(settings.admins)), frozenset(_uids(settings.viewers)))


def _uids(users: Iterable[str]) -> Iterable[int]:
    for user in users:
        if user.isdigit():
            yield int(user)
            continue
        try:
            yield pwd.getpwnam(user).pw_uid
        except KeyError:
            continue


def user_name(uid: int) -> str:
    """As people know him; his number where he has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def uid_of(connection: socket.socket) -> int:
    """The user at the other end of a unix socket."""
    uid: int = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[1]
    return uid
