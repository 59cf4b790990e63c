"""Exchanges over real back-ends: the verdicts, their order, their time, and who is shut out."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from mta.config.settings import Login, Seconds
from mta.policy import authenticate
from mta.policy.authenticate import Answer, Authenticator, Denied, Granted
from mta.policy.failures import FailureTable
from mta.policy.passwords import make_credentials
from mta.policy.users.accounts import Account, BackEnd, Unavailable, User
from mta.policy.users.userfile import UserFile, change_user
from mta.protocol.sasl.client import ScramClient, ServerMisbehaves
from mta.protocol.sasl.steps import Challenge
from mta.protocol.x509 import ClientCertificate

CLIENT = "192.0.2.1"
CREDENTIALS = make_credentials("secret", ["SHA-256", "SHA-1"])
BINDINGS = {"tls-server-end-point": b"\x01" * 32}


class Judge:
    """Knows one user, and remembers what it was asked."""

    def __init__(self, user: str = "dave", *, down: bool = False) -> None:
        self.user = user
        self.down = down
        self.asked: list[str] = []

    async def judge(self, name: str, password: str, client: str) -> User | None:
        self.asked.append(name)
        if self.down:
            raise Unavailable("it is down")
        return User(name, ("dave@x.test",)) if (name, password) == (self.user, "dove") else None


class Tokens:
    scope = "mail"
    configuration = ""

    async def owner(self, token: str) -> str | None:
        return {"good": "Alice@X.test", "disabled": "bob@x.test"}.get(token)


@pytest.fixture
def users(tmp_path: Path) -> UserFile:
    path = tmp_path / "users"
    for account in (
        Account(name="alice@x.test", credentials=CREDENTIALS, aliases=("sales@x.test",)),
        Account(name="bob@x.test", credentials=CREDENTIALS, disabled=True),
        Account(name="carol@x.test", credentials=CREDENTIALS[:1]),
    ):
        change_user(path, account.name, lambda _, account=account: account)  # type: ignore[misc]
    return UserFile(path)


def make(*back_ends: BackEnd, **login: Any) -> Authenticator:
    settings = Login(**{"delay": Seconds(0), "scram_sha_1": True, **login})
    return Authenticator(back_ends, settings, FailureTable(), b"server's secret")


async def say(
    authenticator: Authenticator,
    mechanism: str,
    *messages: bytes | None,
    client: str = CLIENT,
    certificate: ClientCertificate | None = None,
) -> Answer:
    """The last answer to these messages."""
    exchange = authenticator.begin(mechanism, None, client, certificate)
    assert exchange is not None
    for message in messages:
        answer = await exchange.step(message)
    return answer


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


def plain(user: str, password: str) -> bytes:
    return b"\0%b\0%b" % (user.encode(), password.encode())


def is_wrong(answer: Answer) -> bool:
    return isinstance(answer, Denied) and answer.reply is authenticate.WRONG


def test_plain_and_login(users: UserFile) -> None:
    async def go() -> None:
        them = make(users)
        granted = Granted("alice@x.test", ("sales@x.test",))
        assert await say(them, "PLAIN", plain("alice@x.test", "secret")) == granted
        assert await say(them, "PLAIN", plain("Alice@X.test", "secret")) == granted
        assert await say(them, "PLAIN", None, plain("alice@x.test", "secret")) == granted
        assert await say(them, "LOGIN", None, b"alice@x.test", b"secret") == granted
        assert await say(them, "LOGIN", b"alice@x.test", b"secret") == granted
        assert is_wrong(await say(them, "PLAIN", plain("alice@x.test", "Secret")))
        assert is_wrong(await say(them, "PLAIN", plain("bob@x.test", "secret")))
        assert is_wrong(await say(them, "PLAIN", plain("nobody@x.test", "secret")))

    run(go())


async def scram(them: Authenticator, user: str, password: str, mechanism: str = "SCRAM-SHA-256") -> Answer:
    plus = mechanism.endswith("-PLUS")
    binding = ("tls-server-end-point", BINDINGS["tls-server-end-point"]) if plus else None
    digest = "SHA-1" if "SHA-1" in mechanism else "SHA-256"
    client = ScramClient(user, password, nonce="abc", binding=binding, digest=digest)
    exchange = them.begin(mechanism, BINDINGS if plus else None, CLIENT)
    assert exchange is not None
    answer = await exchange.step(client.initial())
    while isinstance(answer, Challenge):
        answer = await exchange.step(client.respond(answer.data))
    return answer


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1"])
def test_scram(users: UserFile, mechanism: str) -> None:
    async def go() -> None:
        them = make(users)
        assert await scram(them, "alice@x.test", "secret", mechanism) == Granted("alice@x.test", ("sales@x.test",))
        for user, password in (("alice@x.test", "x"), ("bob@x.test", "secret"), ("carol@x.test", "secret"), ("z", "z")):
            assert is_wrong(await scram(them, user, password, mechanism)), user

    run(go())


def test_the_salt_of_an_unknown_user_is_always_the_same(users: UserFile) -> None:
    async def salt(secret: bytes, user: str) -> bytes:
        them = Authenticator([users], Login(), FailureTable(), secret)
        return (await them.verifier(user, "SHA-256")).salt

    async def go() -> None:
        assert await salt(b"1", "nobody") == await salt(b"1", "nobody")
        assert await salt(b"1", "nobody") != await salt(b"1", "nobody2")
        assert await salt(b"1", "nobody") != await salt(b"2", "nobody")

    run(go())


def test_back_ends_are_asked_in_order(users: UserFile) -> None:
    async def go() -> None:
        judge = Judge()
        them = make(users, judge)
        assert is_wrong(await say(them, "PLAIN", plain("alice@x.test", "wrong")))
        assert judge.asked == []  # the file knows her
        assert await say(them, "PLAIN", plain("dave", "dove")) == Granted("dave", ("dave@x.test",))
        assert is_wrong(await say(them, "PLAIN", plain("dave", "love")))
        first = make(Judge("alice@x.test"), users)
        assert await say(first, "PLAIN", plain("alice@x.test", "dove")) == Granted("alice@x.test", ("dave@x.test",))
        assert isinstance(await say(first, "PLAIN", plain("alice@x.test", "secret")), Granted)

    run(go())


def test_a_back_end_that_is_down_is_no_wrong_password(users: UserFile) -> None:
    async def go() -> None:
        them = make(users, Judge(down=True), address_failures=1)
        for _ in range(3):
            answer = await say(them, "PLAIN", plain("dave", "dove"))
            assert isinstance(answer, Denied)
            assert answer.reply is authenticate.UNAVAILABLE
        assert isinstance(await say(them, "PLAIN", plain("alice@x.test", "secret")), Granted)

    run(go())


def test_tokens(users: UserFile) -> None:
    def message(user: str, token: str) -> bytes:
        return b"user=%b\x01auth=Bearer %b\x01\x01" % (user.encode(), token.encode())

    async def go() -> None:
        them = make(users, Tokens())
        granted = Granted("alice@x.test", ("sales@x.test",))
        assert await say(them, "XOAUTH2", message("alice@x.test", "good")) == granted
        assert await say(them, "OAUTHBEARER", b"n,,\x01auth=Bearer good\x01\x01") == granted
        for user, token in (("carol@x.test", "good"), ("bob@x.test", "disabled"), ("alice@x.test", "bad")):
            assert isinstance(await say(them, "XOAUTH2", message(user, token)), Challenge)
            assert is_wrong(await say(them, "XOAUTH2", message(user, token), b""))

    run(go())


def certificate(*names: str, fingerprint: str = "00" * 32) -> ClientCertificate:
    return ClientCertificate(names, fingerprint)


def test_certificates_by_the_names_in_them(users: UserFile) -> None:
    async def go() -> None:
        them = make(users)
        granted = Granted("alice@x.test", ("sales@x.test",))
        assert await say(them, "EXTERNAL", b"", certificate=certificate("Alice@x.test")) == granted
        assert await say(them, "EXTERNAL", None, b"", certificate=certificate("Alice@x.test")) == granted
        both = certificate("dave", "alice@x.test")
        assert await say(them, "EXTERNAL", b"alice@x.test", certificate=both) == granted
        assert is_wrong(await say(them, "EXTERNAL", b"carol@x.test", certificate=certificate("alice@x.test")))
        assert is_wrong(await say(them, "EXTERNAL", b"", certificate=certificate("bob@x.test")))  # disabled
        assert is_wrong(await say(them, "EXTERNAL", b"", certificate=certificate()))

    run(go())


def test_a_certificate_makes_no_user_where_users_are_kept(users: UserFile) -> None:
    async def go() -> None:
        assert is_wrong(await say(make(users), "EXTERNAL", b"", certificate=certificate("dave")))
        assert await say(make(Judge()), "EXTERNAL", b"", certificate=certificate("dave")) == Granted("dave", ())

    run(go())


def test_certificates_by_their_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"erin@x.test certificate={'AB:' * 31}AB alias=sales@x.test\nfrank@x.test\n")

    async def go() -> None:
        them = make(UserFile(path))
        granted = Granted("erin@x.test", ("sales@x.test",))
        mine = certificate(fingerprint="ab" * 32)
        assert await say(them, "EXTERNAL", b"", certificate=mine) == granted
        assert await say(them, "EXTERNAL", b"Erin@x.test", certificate=mine) == granted
        assert is_wrong(await say(them, "EXTERNAL", b"frank@x.test", certificate=mine))
        assert is_wrong(await say(them, "EXTERNAL", b"", certificate=certificate()))
        named = certificate("frank@x.test", fingerprint="ab" * 32)
        assert await say(them, "EXTERNAL", b"", certificate=named) == granted
        assert await say(them, "EXTERNAL", b"frank@x.test", certificate=named) == Granted("frank@x.test", ())
        path.write_text("frank@x.test\n")
        assert is_wrong(await say(them, "EXTERNAL", b"", certificate=mine))

    run(go())


def test_nobody_is_shut_out_by_what_another_certificate_wants(users: UserFile) -> None:
    async def go() -> None:
        them = make(users)
        for _ in range(50):
            await say(them, "EXTERNAL", b"alice@x.test", certificate=certificate("mallory@x.test"))
        granted = Granted("alice@x.test", ("sales@x.test",))
        assert await say(them, "PLAIN", b"\0alice@x.test\0secret", client="198.51.100.7") == granted

    run(go())


def test_what_is_offered(users: UserFile) -> None:
    async def go() -> None:
        assert make().mechanisms() == ()
        assert make(Judge()).mechanisms(bindings=True) == ("PLAIN", "LOGIN")
        assert make(Tokens()).mechanisms() == ("OAUTHBEARER", "XOAUTH2")
        everything = make(users, Tokens()).mechanisms(bindings=True, certificate=True)
        assert everything == (
            *("EXTERNAL", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1", "OAUTHBEARER", "XOAUTH2"),
            *("PLAIN", "LOGIN"),
        )
        for mechanism in ("EXTERNAL", "SCRAM-SHA-256-PLUS", "CRAM-MD5", "", "plain"):
            assert make(users).begin(mechanism, None, CLIENT) is None

    run(go())


def test_malformed_and_cancelled_exchanges(users: UserFile) -> None:
    async def go() -> None:
        them = make(users)
        assert await say(them, "LOGIN", None, b"alice@x.test", None) == Denied(authenticate.CANCELLED, "", "cancelled")
        answer = await say(them, "PLAIN", b"nonsense")
        assert isinstance(answer, Denied)
        assert answer.reply is authenticate.MALFORMED

    run(go())


def test_who_fails_too_often_is_shut_out(users: UserFile) -> None:
    async def go() -> None:
        them = make(users, user_failures=3)
        for n in range(3):
            assert is_wrong(await say(them, "PLAIN", plain("alice@x.test", "wrong"), client=f"192.0.2.{n}"))
        for answer in (
            await say(them, "PLAIN", plain("alice@x.test", "secret"), client="192.0.2.9"),
            await say(them, "SCRAM-SHA-256", b"n,,n=alice@x.test,r=abc", client="192.0.2.9"),
        ):
            assert isinstance(answer, Denied)
            assert answer.reply is authenticate.SHUT_OUT
        for _ in range(3):
            assert is_wrong(await say(them, "PLAIN", plain("nobody", "x"), client="192.0.2.4"))
        answer = await say(them, "PLAIN", plain("nobody", "x"), client="192.0.2.5")
        assert isinstance(answer, Denied)
        assert answer.reply is authenticate.SHUT_OUT  # users that do not exist are shut out alike

    run(go())


def test_scram_failures_count(users: UserFile) -> None:
    async def go() -> None:
        them = make(users, user_failures=2)
        for _ in range(2):
            assert is_wrong(await scram(them, "alice@x.test", "wrong"))
        with pytest.raises(AssertionError):
            assert is_wrong(await scram(them, "alice@x.test", "secret"))

    run(go())


def test_refusals_take_the_same_time_for_all(users: UserFile) -> None:
    async def go() -> None:
        them = make(users, Judge(), delay=Seconds(0.3))
        times = []
        for user in ("alice@x.test", "bob@x.test", "nobody"):
            started = time.monotonic()
            assert is_wrong(await say(them, "PLAIN", plain(user, "wrong")))
            times.append(time.monotonic() - started)
        assert min(times) >= 0.3

    run(go())


def test_a_hash_is_computed_for_everybody(users: UserFile, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    real = authenticate.is_password_of

    def counting(credentials: tuple[str, ...], password: str) -> bool:
        checked.append(len(credentials[0]))
        return real(credentials, password)

    monkeypatch.setattr(authenticate, "is_password_of", counting)

    async def go() -> None:
        them = make(users)
        for user in ("alice@x.test", "bob@x.test", "nobody"):
            await say(them, "PLAIN", plain(user, "wrong"))
        assert len(checked) == 3
        assert len(set(checked)) == 1

    run(go())


def test_too_many_at_once_are_told_to_come_again(users: UserFile, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = threading.Event()
    monkeypatch.setattr(authenticate, "is_password_of", lambda *_: hold.wait(20))

    async def go() -> None:
        them = make(users, threads=1, waiting=2)
        await users.find("anybody")  # reads the file
        them._nobody = CREDENTIALS
        message = plain("alice@x.test", "secret")
        waiting = [asyncio.create_task(say(them, "PLAIN", message)) for _ in range(3)]
        for _ in range(10):  # turns of the loop until all three have got as far as the thread
            await asyncio.sleep(0)
        assert them.threads._busy == 3
        answer = await say(them, "PLAIN", message)
        assert isinstance(answer, Denied)
        assert answer.reply is authenticate.OVERLOADED
        hold.set()
        assert all(isinstance(answer, Granted) for answer in await asyncio.gather(*waiting))

    run(go())


def test_the_event_loop_goes_on_while_passwords_are_hashed(users: UserFile) -> None:
    async def go() -> None:
        them = make(users)
        turns = 0
        task = asyncio.create_task(say(them, "PLAIN", plain("alice@x.test", "secret")))
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > 20

    run(go())


def test_a_false_server_would_be_found_out(users: UserFile) -> None:
    async def go() -> None:
        them = make(users)
        client = ScramClient("alice@x.test", "wrong", nonce="abc")
        exchange = them.begin("SCRAM-SHA-256", None, CLIENT)
        assert exchange is not None
        answer = await exchange.step(client.initial())
        assert isinstance(answer, Challenge)
        client.respond(answer.data)
        with pytest.raises(ServerMisbehaves):
            client.respond(b"v=" + b"A" * 43 + b"=")

    run(go())
