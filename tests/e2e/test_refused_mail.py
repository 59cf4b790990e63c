"""What becomes of mail that is refused: another source where the address is blamed, notices in the words that are set,
and a postmaster for those that have no sender."""

from __future__ import annotations

import email
import email.policy
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session
from flufl.bounce import all_failures

from tests.kit.server import Server
from tests.kit.sink import Sink

TEXT = b"Subject: important\r\n\r\nhello\r\n"
SOURCES = [{"name": "one", "ipv4": "127.0.0.2"}, {"name": "two", "ipv4": "127.0.0.3"}]
TURN = {"retry.rule": [{"classes": ["reputation"], "quarantine": "1h"}]}
MANY = 12


class Picky(Sink):
    """Does not like 127.0.0.2; `asked` are the addresses that came with mail."""

    asked: list[str]

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.asked.append(session.peer[0])
        if session.peer[0] == "127.0.0.2":
            return "554 5.7.1 Service unavailable; Client host [127.0.0.2] blocked using bl.test"
        return await super().handle_MAIL(server, session, envelope, address, options)


def test_another_source_does_better(tmp_path: Path) -> None:
    sink = Picky()
    sink.asked = []
    with sink, Server(tmp_path, routes={"*": sink.next_hop}, source=SOURCES, **TURN) as server:
        for n in range(MANY):
            server.send("ann@home.test", [f"b{n}@a.test"], TEXT)
        sink.wait(MANY)
        server.wait_empty()
        log = server.log.read_text()
        assert log.count(" quarantined source=one ") == 1
        assert " class=reputation rule=" in log
        assert "mta.toml:" in log.partition(" quarantined ")[2].partition("\n")[0]
        assert "bounced" not in log
        assert sink.asked.count("127.0.0.3") == MANY
        before = sink.asked.count("127.0.0.2")
        for n in range(MANY):
            server.send("ann@home.test", [f"c{n}@a.test"], TEXT)
        sink.wait(2 * MANY)
        assert sink.asked.count("127.0.0.2") == before


def test_the_words_of_notices_and_who_hears_of_those_without_a_sender(tmp_path: Path) -> None:
    notices = {"language": "de", "postmaster": "post@home.test"}
    gone = {"bob@a.test": ["550 5.1.1 user unknown"] * 9}
    with Sink(gone) as sink, Server(tmp_path, routes={"*": sink.next_hop}, notices=notices) as server:
        server.send("ann@home.test", ["bob@a.test"], TEXT)
        server.send("", ["bob@a.test"], TEXT)
        for who, subject in (
            ("ann", "Ihre Nachricht konnte nicht zugestellt werden"),
            ("post", "Eine Benachrichtigung konnte nicht zugestellt werden"),
        ):
            (letter,) = server.wait_letters(who)
            message = email.message_from_bytes(letter, policy=email.policy.default)
            assert message["Subject"] == subject
            assert message["To"] == f"{who}@home.test"
            assert "127.0.0.1[127.0.0.1]" in next(message.iter_parts()).get_content()  # type: ignore[attr-defined]
            assert all_failures(message) == (set(), {b"bob@a.test"})
        server.wait_empty()
