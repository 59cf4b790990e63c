"""SIGTERM: finish what is in hand, tell the others to come again, end with exit code 0."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.kit.server import Server
from tests.kit.sink import ScriptedServer

TEXT = b"Subject: x\r\n\r\nhello\r\n"


def test_an_idle_session_is_told_to_come_again(tmp_path: Path) -> None:
    with Server(tmp_path) as server, server.talk() as talk:
        talk.hello()
        server.stop()
        assert talk.reply().startswith("421 4.3.2")
        assert talk.closed()
        server.start()


def test_a_text_on_its_way_is_not_torn(tmp_path: Path) -> None:
    """The open transaction is either finished with a 250 that counts, or ended with a 421: never a lie."""
    with Server(tmp_path, routes={"*": "hold:"}) as server:
        with server.talk() as talk:
            talk.hello()
            talk.expect("MAIL FROM:<a@x.test>", "250")
            talk.expect("RCPT TO:<b@y.test>", "250")
            talk.expect("DATA", "354")
            talk.socket.sendall(b"Subject: half\r\n")
            server.signal(signal.SIGTERM)
            talk.socket.sendall(b"\r\nrest\r\n.\r\n")
            reply = talk.reply()
            assert reply[:3] in ("250", "421"), reply
        server.ended()
        server.start()
        assert server.count() == (1 if reply.startswith("250") else 0)


def test_a_delivery_in_hand_is_finished(tmp_path: Path) -> None:
    """The peer's last reply is waited for, so the message does not come twice."""
    with ScriptedServer({}) as peer, Server(tmp_path, routes={"*": peer.next_hop}) as server:
        for _ in range(20):
            server.send("a@x.test", ["b@y.test"], TEXT)
        server.stop()
        server.start()
        server.wait_empty()
        assert len(peer.messages) == 20


def test_a_hanging_peer_cannot_keep_the_server(tmp_path: Path) -> None:
    with ScriptedServer({".": b"<hang>"}) as peer, Server(tmp_path, routes={"*": peer.next_hop}) as server:
        server.configure_server(drain="0.5s")
        server.stop()
        server.start()
        server.send("a@x.test", ["b@y.test"], TEXT)
        server.wait_for_log("received")
        server.stop()
        server.start()
        assert server.count() == 1


def test_new_connections_are_refused_while_it_stops(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        port = server.port
        server.stop()
        try:
            with server.talk() as talk:
                assert talk.reply() == ""
        except ConnectionError:
            assert server.port == port
        server.start()
