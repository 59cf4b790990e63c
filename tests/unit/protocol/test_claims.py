"""XCLIENT and XFORWARD attributes, and what is no value."""

import pytest

from mta.protocol.claims import XCLIENT, XFORWARD, ClaimError, parse


def test_all_attributes() -> None:
    said = (
        b"NAME=c.example ADDR=192.0.2.1 port=2525 PROTO=esmtp HELO=+5Bc+5D LOGIN=al+69ce DESTADDR=IPV6:::1 DESTPORT=25"
    )
    assert parse(said, XCLIENT) == {
        "NAME": "c.example",
        "ADDR": "192.0.2.1",
        "PORT": "2525",
        "PROTO": "ESMTP",
        "HELO": "[c]",
        "LOGIN": "alice",
        "DESTADDR": "::1",
        "DESTPORT": "25",
    }
    assert parse(b"IDENT=1A SOURCE=local", XFORWARD) == {"IDENT": "1A", "SOURCE": "LOCAL"}


def test_what_is_not_known() -> None:
    assert parse(b"NAME=[UNAVAILABLE] ADDR=[unavailable] HELO=[TEMPUNAVAIL]", XCLIENT) == {
        "NAME": "",
        "ADDR": "",
        "HELO": "",
    }


@pytest.mark.parametrize(
    "argument",
    [
        *(b"", b"ADDR", b"=x", b"FOO=x", b"IDENT=x", b"ADDR=192.0.2.1 ADDR=192.0.2.1", b"ADDR=192.0.2.256"),
        *(
            b"ADDR=IPV6:fe80::1%25eth0",
            b"ADDR=fe80::1%eth0",
            b"ADDR=x.example",
            b"PORT=65536",
            b"PORT=-1",
            b"PORT=+39x",
        ),
        *(b"PROTO=HTTP", b"HELO=a+0D+0Ab", b"HELO=a+00", b"HELO=a+20b", b"HELO=a+", b"HELO=a+G0", b"NAME=a b=c"),
        *(b"LOGIN=a+0Ab", b"LOGIN=+FF", b"LOGIN=a+20b", b"LOGIN=a+C2+85b", b"LOGIN=a+E2+80+AEb", b"HELO=" + b"x" * 256),
        *(b"NAME=x\tADDR=y", b"HELO=\xff", b"NAME=<x>"),
    ],
)
def test_what_is_refused(argument: bytes) -> None:
    with pytest.raises(ClaimError):
        parse(argument, XCLIENT)
