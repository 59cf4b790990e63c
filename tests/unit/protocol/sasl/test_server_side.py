"""Each mechanism's server side: right messages, and all that is wrong with wrong ones."""

from __future__ import annotations

import json

import pytest

from mta.protocol.sasl.client import LoginClient, PlainClient, ScramClient, ServerMisbehaves, XOAuth2Client
from mta.protocol.sasl.oauth import OAuth
from mta.protocol.sasl.plain import External, Login, Plain
from mta.protocol.sasl.prep import saslprep
from mta.protocol.sasl.scram import Scram
from mta.protocol.sasl.steps import (
    AskCertificate,
    AskPassword,
    AskToken,
    AskVerifier,
    Challenge,
    Proven,
    Refused,
    Step,
)
from mta.protocol.sasl.verifier import make_verifier, parse_verifier

VERIFIER = make_verifier("secret", b"0123456789abcdef", 4096)
BINDINGS = {"tls-server-end-point": b"\x01" * 32, "tls-exporter": b"\x02" * 32}


def fields(step: Step) -> object:
    """What a step says, password and all (its repr hides that)."""
    return {name: getattr(step, name) for name in type(step).__slots__}


def test_plain() -> None:
    assert Plain().step(None) == Challenge(b"")
    assert Plain().step(b"\0alice\0se cret") == AskPassword("alice", "se cret")
    assert Plain().step("alice\0alice\0pässword".encode()) == AskPassword("alice", "pässword")
    initial = PlainClient("alice", "x").initial()
    assert Plain().step(initial) == AskPassword("alice", "x")


def test_plain_user_names_are_prepared() -> None:
    assert Plain().step("\0I\u00adX\0x".encode()) == AskPassword("IX", "x")
    assert Plain().step("\0\u2168\0x".encode()) == AskPassword("IX", "x")


@pytest.mark.parametrize(
    "message",
    [
        *(b"", b"\0", b"alice\0secret", b"\0a\0b\0c", b"\0\0secret", b"\0alice\0", b"\0\xff\0x", b"\0a\x07\0x"),
        *(b"\0a\0\xff", b"\0" + b"a" * 5000 + b"\0x", b"\0a\0" + b"x" * 2000),
    ],
)
def test_plain_refuses(message: bytes) -> None:
    assert isinstance(Plain().step(message), Refused)


@pytest.mark.parametrize("message", [b"bob\0alice\0secret", b"\xc2\xad\0alice\0secret"])
def test_nobody_acts_for_another(message: bytes) -> None:
    assert isinstance(Plain().step(message), Refused)


def test_login() -> None:
    login = Login()
    assert login.step(None) == Challenge(b"Username:")
    client = LoginClient("alice", "secret")
    assert client.initial() is None
    assert login.step(client.respond(b"Username:")) == Challenge(b"Password:")
    assert not client.finished
    assert login.step(client.respond(b"Password:")) == AskPassword("alice", "secret")
    assert client.finished
    with pytest.raises(ServerMisbehaves):
        client.respond(b"Shoe size:")


def test_login_with_the_name_at_once() -> None:
    login = Login()
    assert login.step(b"alice") == Challenge(b"Password:")
    assert login.step(b"secret") == AskPassword("alice", "secret")


@pytest.mark.parametrize("name", [b"", b"\xff", b"\0", b"x" * 2000])
def test_login_refuses_names(name: bytes) -> None:
    assert isinstance(Login().step(name), Refused)


def test_external() -> None:
    assert External().step(None) == Challenge(b"")
    assert External().step(b"") == AskCertificate("")
    assert External().step(b"alice") == AskCertificate("alice")
    assert isinstance(External().step(b"\xff"), Refused)
    assert isinstance(External().step(b"x" * 2000), Refused)


def test_oauthbearer() -> None:
    """The examples of RFC 7628 section 4."""
    token = "vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg=="
    message = b"n,a=user@example.com,\x01host=server.example.com\x01port=587\x01auth=Bearer %b\x01\x01"
    exchange = OAuth(scope="mail", configuration="https://x.test/.well-known/openid-configuration")
    assert exchange.step(None) == Challenge(b"")
    step = exchange.step(message % token.encode())
    assert isinstance(step, AskToken)
    assert (step.user, step.token) == ("user@example.com", token)
    assert json.loads(exchange.reject().data) == {
        "status": "invalid_token",
        "scope": "mail",
        "openid-configuration": "https://x.test/.well-known/openid-configuration",
    }
    assert isinstance(exchange.step(b"\x01"), Refused)


def test_oauthbearer_without_a_user_and_with_escapes() -> None:
    assert fields(OAuth().step(b"n,,\x01auth=bearer abc\x01\x01")) == {"user": "", "token": "abc"}
    assert fields(OAuth().step(b"n,a=a=2Cb=3Dc,\x01auth=Bearer abc\x01\x01")) == {"user": "a,b=c", "token": "abc"}


def test_xoauth2() -> None:
    exchange = OAuth(old=True)
    client = XOAuth2Client("some@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg")
    step = exchange.step(client.initial())
    assert isinstance(step, AskToken)
    assert (step.user, step.token) == ("some@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg")
    rejection = exchange.reject()
    assert json.loads(rejection.data)["status"] == "401"
    assert isinstance(exchange.step(client.respond(rejection.data)), Refused)
    assert client.problem == rejection.data


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x01",
        b"n,,",
        b"y,,\x01auth=Bearer abc\x01\x01",
        b"p=tls-exporter,,\x01auth=Bearer abc\x01\x01",
        b"n,,\x01auth=Bearer abc\x01",
        b"n,,\x01auth=Basic abc\x01\x01",
        b"n,,\x01auth=Bearer a c\x01\x01",
        b"n,,\x01auth=Bearer a\r\nX: y\x01\x01",
        b"n,,\x01auth=Bearer abc\x01auth=Bearer def\x01\x01",
        b"n,,\x01host=x\x01\x01",
        b"n,a=x=2Y,\x01auth=Bearer abc\x01\x01",
        b"n,a=\xff,\x01auth=Bearer abc\x01\x01",
        b"n,,\x01auth=Bearer " + b"a" * 20000 + b"\x01\x01",
    ],
)
def test_oauthbearer_refuses(message: bytes) -> None:
    assert isinstance(OAuth().step(message), Refused)


def scram(client: ScramClient, server: Scram) -> Step:
    """Until the server has decided."""
    step = server.step(client.initial())
    if isinstance(step, AskVerifier):
        step = server.supply(VERIFIER)
    while isinstance(step, Challenge):
        step = server.step(client.respond(step.data))
    return step


def test_scram_both_sides() -> None:
    assert scram(ScramClient("alice", "secret", nonce="abc"), Scram("SHA-256", nonce="def")) == Proven("alice")
    assert isinstance(scram(ScramClient("alice", "Secret", nonce="abc"), Scram("SHA-256", nonce="def")), Refused)


def test_scram_names_are_escaped() -> None:
    assert scram(ScramClient("a,b=c", "secret", nonce="abc"), Scram("SHA-256", nonce="def")) == Proven("a,b=c")


@pytest.mark.parametrize("kind", ["tls-server-end-point", "tls-exporter"])
def test_scram_plus(kind: str) -> None:
    def server() -> Scram:
        return Scram("SHA-256", nonce="def", plus=True, offered_plus=True, bindings=BINDINGS)

    client = ScramClient("alice", "secret", nonce="abc", binding=(kind, BINDINGS[kind]))
    assert scram(client, server()) == Proven("alice")
    in_between = ScramClient("alice", "secret", nonce="abc", binding=(kind, b"\x03" * 32))
    assert isinstance(scram(in_between, server()), Refused)
    unknown = ScramClient("alice", "secret", nonce="abc", binding=("tls-unique", b"\x03" * 32))
    assert isinstance(scram(unknown, server()), Refused)
    assert isinstance(scram(ScramClient("alice", "secret", nonce="abc"), server()), Refused)


def test_scram_is_not_talked_down() -> None:
    """RFC 5802 section 6: "y" says that -PLUS was not shown; where it was, someone took it away."""

    def client() -> ScramClient:
        return ScramClient("alice", "secret", nonce="abc", could_bind=True)

    assert scram(client(), Scram("SHA-256", nonce="def")) == Proven("alice")
    refused = scram(client(), Scram("SHA-256", nonce="def", offered_plus=True, bindings=BINDINGS))
    assert isinstance(refused, Refused)
    assert not refused.malformed


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"n,",
        b"n,,",
        b"n,,n=,r=abc",
        b"n,,n=a",
        b"n,,n=a,r=",
        b"n,,n=a,r=a b",
        b"n,,m=1,n=a,r=abc",
        b"n,,n=a=,r=abc",
        b"n,,n=a=2c,r=abc",
        b"n,,n=\xff,r=abc",
        b"x,,n=a,r=abc",
        b"n,b,n=a,r=abc",
        b"n,a=b,n=a,r=abc",
        b"p=tls-exporter,,n=a,r=abc",
        b"n,,n=a,r=abc,",
        b"n,,n=a,r=abc\n",
        b"n,,n=" + b"a" * 5000 + b",r=abc",
    ],
)
def test_scram_refuses_first_messages(message: bytes) -> None:
    assert isinstance(Scram("SHA-256", nonce="def").step(message), Refused)


PROOF = b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"c=biws,r=abcdef",
        b"c=biws,r=abcdef,p=",
        b"c=biws,r=abcdef,p=AAAA",
        b"c=biws,r=abcxyz,p=" + PROOF,
        b"c=eSws,r=abcdef,p=" + PROOF,
        b"c=biw,r=abcdef,p=" + PROOF,
        b"c=biws,r=abcdef,p=" + PROOF,
        b"c=biws,r=abcdef,p=" + PROOF + b",x=y",
        b"c=biws,r=abcdef,p=" + PROOF + b"\n",
    ],
)
def test_scram_refuses_proofs(message: bytes) -> None:
    server = Scram("SHA-256", nonce="def")
    assert isinstance(server.step(b"n,,n=a,r=abc"), AskVerifier)
    assert server.supply(VERIFIER) == Challenge(b"r=abcdef,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096")
    assert isinstance(server.step(message), Refused)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"r=abc,s=MDEy,i=4096",
        b"r=xyzdef,s=MDEy,i=4096",
        b"r=abcdef,s=MDEy,i=1",
        b"r=abcdef,s=MDEy,i=999999999",
        b"r=abcdef,s=M,i=4096",
        b"r=abcdef,i=4096,s=MDEy",
        b"e=other-error",
    ],
)
def test_the_scram_client_does_not_trust_the_server(message: bytes) -> None:
    client = ScramClient("alice", "secret", nonce="abc")
    with pytest.raises(ServerMisbehaves):
        client.respond(message)
    assert not client.finished


def test_verifiers_as_text() -> None:
    assert parse_verifier(str(VERIFIER)) == VERIFIER
    assert VERIFIER.holds("secret")
    assert not VERIFIER.holds("secret ")
    assert "Verifier" not in repr(VERIFIER) or str(VERIFIER.stored_key) not in repr(VERIFIER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SCRAM-SHA-256",
        "SCRAM-MD5$4096:QUJD$QUJD:QUJD",
        "SCRAM-SHA-256$4096:QUJD$QUJD:QUJD",
        str(VERIFIER).replace("$4096", "$1"),
        str(VERIFIER).replace("$4096", "$99999999"),
        str(VERIFIER).replace("MDEy", "MDE"),
    ],
)
def test_wrong_verifiers(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no SCRAM verifier|has keys"):
        parse_verifier(text)


@pytest.mark.parametrize(
    ("given", "prepared"),
    [("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a"), ("\u2168", "IX"), ("a\u00a0b", "a b")],
)
def test_saslprep(given: str, prepared: str) -> None:
    """RFC 4013 section 3."""
    assert saslprep(given) == prepared


@pytest.mark.parametrize("given", ["\u0007", "\u06271", "", "\u00ad", "a\0", "\ufffd", "a\u0627", "\U000e0001"])
def test_saslprep_refuses(given: str) -> None:
    with pytest.raises(ValueError):
        saslprep(given)


def test_passwords_and_tokens_stay_out_of_tracebacks() -> None:
    for step in (AskPassword("alice", "hidden"), AskToken("alice", "hidden")):
        assert "hidden" not in repr(step)
