"""Every mechanism of a login, the server's side, and the client's side of SCRAM.

The first octet chooses the mechanism, `<|>` parts the messages. Nothing may raise, every message gets a step, and
nobody is let in: the verifier's password is in no input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mta.protocol.sasl.client import ScramClient, ServerMisbehaves
from mta.protocol.sasl.oauth import OAuth
from mta.protocol.sasl.plain import External, Login, Plain
from mta.protocol.sasl.scram import Scram
from mta.protocol.sasl.steps import AskToken, AskVerifier, Challenge, Proven, Refused, ServerMechanism
from mta.protocol.sasl.verifier import Verifier

WATCHED = ("mta.protocol.sasl",)
LONGEST = 500
NEXT = b"<|>"
VERIFIER = Verifier("SHA-256", 4096, b"salt", b"\x01" * 32, b"\x02" * 32)
BINDINGS = {"tls-server-end-point": b"\x03" * 32}
MECHANISMS: list[Callable[[], ServerMechanism]] = [
    *(Plain, Login, External, OAuth, lambda: OAuth(old=True), lambda: Scram("SHA-256", nonce="def")),
    lambda: Scram("SHA-256", nonce="def", plus=True, offered_plus=True, bindings=BINDINGS),
]
TOKENS = [
    NEXT,
    *(
        b"\0",
        b"\x01",
        b",",
        b"=",
        b"n,,",
        b"y,,",
        b"p=tls-server-end-point,,",
        b"n=user",
        b"r=abc",
        b"r=abcdef",
        b"a=x",
    ),
    *(b"c=biws", b"c=", b"p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", b"m=1", b"=2C", b"=3D", b"=2c", b"v=AAAA"),
    *(
        b"auth=Bearer ",
        b"user=",
        b"token",
        b"\x01\x01",
        b"host=",
        b"port=1",
        b"\xff",
        b"\xc3\xa4",
        b"\xc2\xad",
        b"\r\n",
    ),
    *(b"x" * 60, b"s=MDEy", b"i=4096", b"i=1", b"alice", b"secret", b"\xe2\x85\xa8", b"\xd8\xa7", b" "),
]
STARTS = [
    *(b"\0alice\0secret", b"alice", b"n,,n=alice,r=abc", b"p=tls-server-end-point,,n=alice,r=abc", b"", b"\x01"),
    b"c=biws,r=abcdef,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    *(b"n,a=alice,\x01host=x\x01auth=Bearer abc\x01\x01", b"user=alice\x01auth=Bearer abc\x01\x01"),
    *(b"r=abcdef,s=MDEy,i=4096", b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
]


def play(which: int, messages: Sequence[bytes | None]) -> None:
    """One exchange; an exception, or AssertionError, is a finding."""
    mechanism = MECHANISMS[which]()
    for message in messages:
        step = mechanism.step(message)
        if isinstance(step, AskVerifier):
            assert isinstance(mechanism, Scram)
            step = mechanism.supply(VERIFIER)
        elif isinstance(step, AskToken):
            assert isinstance(mechanism, OAuth)
            step = mechanism.reject()
        assert not isinstance(step, Proven), messages
        if isinstance(step, Refused):
            assert step.reason
        if not isinstance(step, Challenge):
            return


def play_client(messages: Sequence[bytes]) -> None:
    client = ScramClient("alice", "secret", nonce="abc")
    client.initial()
    try:
        for message in messages:
            client.respond(message)
    except ServerMisbehaves:
        pass
    assert not client.finished


def check(data: bytes) -> None:
    if not data:
        return
    which, messages = data[0], data[1:].split(NEXT)
    if which % 8 == 7:
        play_client(messages)
    else:
        play(which % 8, [None, *messages] if which & 8 else messages)


def seeds() -> Iterator[bytes]:
    for which in range(16):
        for start in STARTS:
            yield bytes([which]) + start
            yield bytes([which]) + NEXT.join([start, *STARTS[4:7]])
