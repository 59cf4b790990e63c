"""Throws mutated ClientHellos at the reader.

    python -m tests.fuzz.clienthello --inputs 100000 [--seed 1]

Nothing but HelloError may be raised; the outcome must not depend on how the octets are cut; a server name that is read
is a host name. The same seed and number give the same inputs.
"""

from __future__ import annotations

import argparse
import random
import re
import ssl
import sys
from collections.abc import Sequence

from mta.protocol.clienthello import LONGEST, ClientHello, HelloError, HelloReader

_NAME = re.compile(r"[a-z0-9_.-]*")


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(words)
    whole = fuzz(options.inputs, random.Random(options.seed))
    print(f"{options.inputs} inputs, {whole} of them read as a ClientHello")
    return 0


def fuzz(inputs: int, rng: random.Random) -> int:
    """How many were read as a ClientHello; AssertionError names the input."""
    starts = [_start(name, alpn) for name in (None, "mx.example.org") for alpn in ([], ["smtp"], ["h2", "http/1.1"])]
    whole = 0
    for _ in range(inputs):
        data = _mutated(rng, rng.choice(starts))
        outcome = _read(data, [len(data)])
        cuts = [rng.randint(1, 40) for _ in range(60)]
        assert _read(data, cuts) == outcome, data.hex()
        if isinstance(outcome, ClientHello):
            whole += 1
            assert _NAME.fullmatch(outcome.server_name), data.hex()
    return whole


def _start(name: str | None, alpn: list[str]) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(alpn)
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")


def _mutated(rng: random.Random, data: bytes) -> bytes:
    made = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 5, 20))):
        at = rng.randrange(len(made))
        match rng.randrange(5):
            case 0:
                made[at] = rng.randrange(256)
            case 1:
                made[at] ^= 1 << rng.randrange(8)
            case 2:
                del made[at : at + rng.randint(1, 8)]
            case 3:
                made[at:at] = rng.randbytes(rng.randint(1, 8))
            case 4:  # another record within the message
                made[at:at] = b"\x16\x03\x01" + rng.choice((0, 1, 4, len(made) - at)).to_bytes(2, "big")
        if not made:
            break
    return bytes(made)


def _read(data: bytes, sizes: Sequence[int]) -> ClientHello | type[HelloError] | None:
    """The outcome for these portions; the last one takes the rest."""
    reader = HelloReader()
    at = 0
    for size in (*sizes, len(data)):
        portion, at = data[at : at + size], at + size
        try:
            found = reader.feed(portion)
        except HelloError as error:
            return type(error)
        assert len(reader.octets) <= 2 * LONGEST + len(portion)
        if found is not None:
            return found
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
