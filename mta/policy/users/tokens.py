"""Whose a bearer token is: asked of the service that issued it (RFC 7662), or read from its signature (RFC 9068).

What is asked of a token either way: it is good now, was issued by `issuer`, is meant for `audience`, permits `scope`.
aiohttp and PyJWT are an extra (`mta[oauth]`).

- INVARIANT: only asymmetric algorithms are believed. With HS256 anybody could sign with our public key, and "none" is
  no signature.
- Keys are fetched again at most once a minute, whatever key ids clients make up.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from mta.config.settings import Auth
from mta.policy.users.accounts import Unavailable

_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_SECONDS = 10.0
_KEYS_FRESH = 3600.0
_KEYS_AGAIN = 60.0
_LEEWAY = 30.0  # seconds that clocks may differ
_LARGEST = 1 << 20


class Http:
    """One small client, opened when it is first needed."""

    def __init__(self) -> None:
        self._session: Any = None

    async def json(self, method: str, url: str, **more: Any) -> Mapping[str, Any]:
        """The object that the answer holds. Unavailable."""
        import aiohttp  # an extra, and not needed by anybody else

        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS))
        try:
            async with self._session.request(method, url, allow_redirects=False, **more) as answer:
                if answer.status != 200:
                    raise Unavailable(f"{url} answered {answer.status}")
                if (answer.content_length or 0) > _LARGEST:
                    raise Unavailable(f"{url} answered too much")
                found = await answer.json(content_type=None)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise Unavailable(f"{url}: {error or type(error).__name__}") from None
        if not isinstance(found, dict):
            raise Unavailable(f"{url} answered no JSON object")
        return found

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class Introspection:
    """A TokenJudge that asks."""

    def __init__(self, auth: Auth, secret: str, http: Http) -> None:
        self.scope = auth.scope
        self.configuration = _configuration(auth)
        self._auth = auth
        self._secret = secret
        self._http = http

    async def owner(self, token: str) -> str | None:
        auth = self._auth
        headers = {"Authorization": _basic(auth.client_id, self._secret)} if auth.client_id else {}
        form = {"token": token, "token_type_hint": "access_token"}
        claims = await self._http.json("POST", auth.introspection, data=form, headers=headers)
        if claims.get("active") is not True or _is_over(claims.get("exp"), time.time()):
            return None
        if auth.issuer and claims.get("iss") != auth.issuer:
            return None
        if auth.audience and auth.audience not in _list(claims.get("aud")):
            return None
        return _named(claims, auth)

    async def close(self) -> None:
        await self._http.close()


class SignedTokens:
    """A TokenJudge that checks signatures itself."""

    def __init__(self, auth: Auth, http: Http, now: Callable[[], float] = time.monotonic) -> None:
        self.scope = auth.scope
        self.configuration = _configuration(auth)
        self._auth = auth
        self._http = http
        self._now = now
        self._keys: Any = None
        self._fetched = 0.0
        self._fetching = asyncio.Lock()

    async def owner(self, token: str) -> str | None:
        import jwt

        try:
            key = await self._key(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                return None
            auth = self._auth
            claims = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                audience=auth.audience,
                issuer=auth.issuer or None,
                leeway=_LEEWAY,
                options={"require": ["exp", "aud"]},
            )
        except jwt.PyJWTError:
            return None
        return _named(claims, auth)

    async def close(self) -> None:
        await self._http.close()

    async def _key(self, wanted: object) -> Any:
        async with self._fetching:
            age = self._now() - self._fetched
            if self._keys is None or age > _KEYS_FRESH or (self._find(wanted) is None and age > _KEYS_AGAIN):
                await self._fetch()
        return self._find(wanted)

    def _find(self, wanted: object) -> Any:
        """The key of that id; a token without one may only be meant for the only key there is."""
        keys = self._keys.keys
        if wanted is None:
            return keys[0] if len(keys) == 1 else None
        return next((key for key in keys if key.key_id == wanted), None)

    async def _fetch(self) -> None:
        import jwt

        try:
            self._keys = jwt.PyJWKSet.from_dict(dict(await self._http.json("GET", self._auth.jwks)))
        except jwt.PyJWTError as error:
            raise Unavailable(f"{self._auth.jwks}: {error}") from None
        self._fetched = self._now()


def _configuration(auth: Auth) -> str:
    """Where a client may find out how to get a better token (RFC 7628 §3.2.2)."""
    return f"{auth.issuer.rstrip('/')}/.well-known/openid-configuration" if auth.issuer.startswith("https:") else ""


def _basic(name: str, secret: str) -> str:
    """RFC 7617, with both parts encoded as RFC 6749 §2.3.1 asks."""
    return "Basic " + base64.b64encode(f"{quote(name, safe='')}:{quote(secret, safe='')}".encode()).decode("ascii")


def _named(claims: Mapping[str, Any], auth: Auth) -> str | None:
    permitted = claims.get("scope", "")
    if auth.scope and auth.scope not in (permitted.split() if isinstance(permitted, str) else _list(permitted)):
        return None
    name = claims.get(auth.claim)
    return name if isinstance(name, str) and name else None


def _is_over(end: object, now: float) -> bool:
    return isinstance(end, int | float) and end + _LEEWAY < now


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]
