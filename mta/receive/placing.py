"""From a connection to the facts that say whose its mail is (mta.policy.tenancy)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mta.model import Body, Options
from mta.policy.submission import LoggedIn
from mta.policy.tenancy import Facts

if TYPE_CHECKING:
    from mta.policy.tenancy import Tenancy
    from mta.receive.connection import Connection


def place(
    connection: Connection, tenancy: Tenancy, options: Options | None, body: bytes | Body
) -> tuple[Options | None, bytes | Body]:
    """The options, and the text, of the message that the connection has whole."""
    session, trusted = connection.session, connection.trusted
    named = connection.named
    if trusted and isinstance(body, bytes):
        named, body = tenancy.read_header(body)
    user = session.user
    tenant, priority = (user.tenant, user.priority) if isinstance(user, LoggedIn) else ("", 0)
    facts = Facts(session.sender, user, tenant, priority, trusted, named)
    return tenancy.place(options, facts), body


def first_read(connection: Connection, tenancy: Tenancy, chunk: bytes) -> bytes:
    """The beginning of a large text: what its header says is noted."""
    connection.named = ""
    if connection.trusted:
        connection.named, chunk = tenancy.read_header(chunk)
    return chunk
