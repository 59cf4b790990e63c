"""What holds for every input: mechanisms answer with a step, and both sides of SCRAM agree on any name and password."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mta.protocol.sasl.client import PlainClient, ScramClient, XOAuth2Client
from mta.protocol.sasl.oauth import OAuth
from mta.protocol.sasl.plain import Plain
from mta.protocol.sasl.prep import saslprep
from mta.protocol.sasl.scram import Scram
from mta.protocol.sasl.steps import AskPassword, AskToken, AskVerifier, Challenge, Proven
from mta.protocol.sasl.verifier import make_verifier
from tests.fuzz import sasl


def is_preparable(text: str) -> bool:
    try:
        return len(saslprep(text).encode()) < 200
    except ValueError:
        return False


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(is_preparable)
messages = st.binary(max_size=200) | st.lists(st.sampled_from(sasl.TOKENS), max_size=12).map(b"".join)


@given(st.integers(0, len(sasl.MECHANISMS) - 1), st.lists(st.none() | messages, max_size=5))
def test_no_message_breaks_a_mechanism(which: int, told: list[bytes | None]) -> None:
    sasl.play(which, told)


@settings(max_examples=60)
@given(texts, texts)
def test_scram_agrees(user: str, password: str) -> None:
    server = Scram("SHA-256", nonce="server")
    client = ScramClient(user, password, nonce="client")
    step = server.step(client.initial())
    assert isinstance(step, AskVerifier)
    step = server.supply(make_verifier(saslprep(password), b"salt", 4096))
    while isinstance(step, Challenge):
        step = server.step(client.respond(step.data))
    assert step == Proven(saslprep(user))
    assert client.finished


@given(texts, texts.filter(lambda text: "\0" not in text))
def test_plain_agrees(user: str, password: str) -> None:
    assert Plain().step(PlainClient(user, password).initial()) == AskPassword(saslprep(user), password)


@given(texts.filter(lambda text: "\x01" not in text), st.from_regex(r"\A[A-Za-z0-9._~+/-]+=*\Z"))
def test_xoauth2_agrees(user: str, token: str) -> None:
    assert OAuth(old=True).step(XOAuth2Client(user, token).initial()) == AskToken(saslprep(user), token)
