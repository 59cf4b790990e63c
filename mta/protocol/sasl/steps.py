"""What a server-side mechanism says after each message of the client.

A mechanism knows only its messages. What it cannot know it asks for: whether a password is right, the verifier of a
user, whose token this is. The caller finds out and goes on; so the same code serves every back-end, and no mechanism
ever waits.

    step(None)        begin without an initial response
    step(response)    the client's next message, decoded
        Challenge     send this, then step again
        AskPassword   the exchange ends with the caller's verdict
        AskVerifier   call `supply(verifier)`, which gives the next step
        AskToken      the verdict is the caller's; for a refusal send what `reject()` gives, then step again
        AskCertificate  the verdict is the caller's, from the client's certificate
        Proven        the client has shown who it is
        Refused       it has not, and `reason` is for the log alone
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

LONGEST_MESSAGE: Final = 12_288  # octets before decoding (RFC 4954 §4); tokens are long
LONGEST_NAME: Final = 1024  # octets of a user name or password; RFC 4616 asks for 255


@dataclass(frozen=True, slots=True)
class Challenge:
    """The server's next message."""

    data: bytes


@dataclass(frozen=True, slots=True, repr=False)
class AskPassword:
    """Is this the password of this user? The password is as it came, the user name is prepared."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class AskVerifier:
    """The SCRAM verifier of this user; who is unknown gets one that nobody can prove."""

    user: str
    digest: str


@dataclass(frozen=True, slots=True, repr=False)
class AskToken:
    """Whose token is this? `user` is who the client says it is; "" when it leaves that to the token."""

    user: str
    token: str


@dataclass(frozen=True, slots=True)
class AskCertificate:
    """May who has this client certificate be `user`? "" leaves the choice to the certificate."""

    user: str


@dataclass(frozen=True, slots=True)
class Proven:
    """The mechanism itself has shown that the client is this user."""

    user: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The exchange is over. `malformed`: the message broke the mechanism's grammar; it was no wrong secret."""

    reason: str
    malformed: bool = False
    user: str = ""


Step = Challenge | AskPassword | AskVerifier | AskToken | AskCertificate | Proven | Refused


class ServerMechanism(Protocol):
    """One exchange, from the server's side."""

    def step(self, response: bytes | None) -> Step:
        """Take the client's next message."""


def malformed(reason: str) -> Refused:
    return Refused(reason, malformed=True)
