"""Bearer tokens: introspection and signed ones, over real HTTP and with real keys."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mta.config.settings import Auth
from mta.policy.users.accounts import Unavailable
from mta.policy.users.tokens import Http, Introspection, SignedTokens

EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
ISSUER = "https://login.test"
CLAIMS = {"email": "alice@x.test", "aud": "mail", "iss": ISSUER, "scope": "openid smtp"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def with_service(handler: Handler, use: Callable[[str, Http], Awaitable[None]]) -> None:
    application = web.Application()
    application.router.add_route("*", "/{path}", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    http = Http()
    try:
        host, port = runner.addresses[0][:2]
        await use(f"http://{host}:{port}/x", http)
    finally:
        await http.close()
        await runner.cleanup()


def serve(answer: Any, status: int = 200) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        return web.json_response(answer, status=status)

    return handle


@pytest.mark.parametrize(
    ("changed", "owner"),
    [
        ({}, "alice@x.test"),
        ({"aud": ["other", "mail"]}, "alice@x.test"),
        ({"active": False}, None),
        ({"active": "true"}, None),
        ({"aud": "other"}, None),
        ({"aud": None}, None),
        ({"iss": "https://else.test"}, None),
        ({"scope": "openid smtpx"}, None),
        ({"scope": 5}, None),
        ({"email": ""}, None),
        ({"email": ["alice@x.test"]}, None),
        ({"exp": 1000}, None),
        ({"exp": 10**10}, "alice@x.test"),
    ],
)
def test_introspection(changed: dict[str, Any], owner: str | None) -> None:
    async def handle(request: web.Request) -> web.Response:
        form = await request.post()
        assert request.method == "POST"
        assert form["token"] == "t0ken"
        assert request.headers["Authorization"] == "Basic bXRhOnMzY3JldA=="
        return web.json_response({"active": True, **CLAIMS, **changed})

    async def use(url: str, http: Http) -> None:
        auth = Auth(type="oauth", introspection=url, client_id="mta", audience="mail", issuer=ISSUER, scope="smtp")
        assert await Introspection(auth, "s3cret", http).owner("t0ken") == owner

    asyncio.run(with_service(handle, use))


@pytest.mark.parametrize(("answer", "status"), [({}, 500), ({"active": True}, 302), ([], 200), ("x", 200)])
def test_a_service_that_does_not_answer(answer: Any, status: int) -> None:
    async def use(url: str, http: Http) -> None:
        with pytest.raises(Unavailable):
            await Introspection(Auth(type="oauth", introspection=url), "", http).owner("t0ken")

    asyncio.run(with_service(serve(answer, status), use))


def public(key: Any, name: str) -> dict[str, Any]:
    algorithm = (
        jwt.algorithms.ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else jwt.algorithms.RSAAlgorithm
    )
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": name}


KEYS = {"keys": [public(EC_KEY, "e"), public(RSA_KEY, "r")]}


def token(key: Any = EC_KEY, kid: str | None = "e", algorithm: str = "ES256", **changed: Any) -> str:
    claims = {"exp": int(time.time()) + 600, **CLAIMS, **changed}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm, headers={"kid": kid} if kid else None)


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        (token(), "alice@x.test"),
        (token(RSA_KEY, "r", "RS256"), "alice@x.test"),
        (token(RSA_KEY, "r", "RS256", aud=["x", "mail"]), "alice@x.test"),
        (token(exp=int(time.time()) - 600), None),
        (token(exp=None), None),
        (token(nbf=int(time.time()) + 600), None),
        (token(aud="other"), None),
        (token(aud=None), None),
        (token(iss="https://else.test"), None),
        (token(scope="openid"), None),
        (token(scope=["smtp"]), "alice@x.test"),
        (token(kid="r"), None),
        (token(kid=None), None),
        (token("k" * 64, "e", "HS256"), None),
        (token(None, "e", "none"), None),
        (token(ec.generate_private_key(ec.SECP256R1())), None),
        (token()[:-4] + "AAAA", None),
        ("abc", None),
        ("", None),
    ],
)
def test_signed_tokens(text: str, owner: str | None) -> None:
    async def use(url: str, http: Http) -> None:
        auth = Auth(type="oauth", jwks=url, audience="mail", issuer=ISSUER, scope="smtp")
        judge = SignedTokens(auth, http)
        assert await judge.owner(text) == owner
        assert judge.configuration == "https://login.test/.well-known/openid-configuration"

    asyncio.run(with_service(serve(KEYS), use))


def test_keys_are_fetched_again_but_not_for_every_made_up_id() -> None:
    fetched = 0
    keys: dict[str, Any] = {"keys": [public(RSA_KEY, "r")]}

    async def handle(request: web.Request) -> web.Response:
        nonlocal fetched
        fetched += 1
        return web.json_response(keys)

    async def use(url: str, http: Http) -> None:
        now = 1000.0
        judge = SignedTokens(Auth(type="oauth", jwks=url, audience="mail"), http, lambda: now)
        for _ in range(3):
            assert await judge.owner(token()) is None
        assert fetched == 1
        keys["keys"].append(public(EC_KEY, "e"))
        now += 61
        assert await judge.owner(token()) == "alice@x.test"
        assert await judge.owner(token()) == "alice@x.test"
        assert fetched == 2
        now += 3601
        assert await judge.owner(token()) == "alice@x.test"
        assert fetched == 3

    asyncio.run(with_service(handle, use))


@pytest.mark.parametrize("answer", [{}, {"keys": []}, {"keys": [{"kty": "EC"}]}])
def test_keys_that_are_none(answer: Any) -> None:
    async def use(url: str, http: Http) -> None:
        with pytest.raises(Unavailable):
            await SignedTokens(Auth(type="oauth", jwks=url, audience="mail"), http).owner(token())

    asyncio.run(with_service(serve(answer), use))
