"""The control socket: every verb, and what becomes of those who do not speak the protocol."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.config.settings import Control as Settings
from mta.control.access import Access, Peer, access_of
from mta.control.client import Client, NoServer, Refused
from mta.control.protocol import MAX_FRAME, Json, ProtocolError, decode, encode
from mta.control.verbs import VERBS
from tests.kit.operator import STATUS, Control, FakeOperator, row
from tests.kit.waiting import wait_for

ROWS = [row(n) for n in range(5)]


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    with Control(tmp_path / "run", FakeOperator(ROWS)) as served:
        yield served


@dataclass(frozen=True)
class Roles(Access):
    """Whoever a test says."""

    say: Callable[[int], Peer | None] = lambda uid: None

    def peer(self, uid: int) -> Peer | None:
        return self.say(uid)


def talk(control: Control, octets: bytes) -> list[Json]:
    """What is answered to octets, until the server closes or we have closed our side."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(control.path))
        try:
            sock.sendall(octets)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has hung up already
        answer = b""
        try:
            while data := sock.recv(1 << 16):
                answer += data
        except ConnectionResetError:
            pass
    return [json.loads(line) for line in answer.splitlines()]


def request(**changes: object) -> bytes:
    return json.dumps({"v": 1, "id": 7, "verb": "queue.count", "args": {"filter": ["all"]}} | changes).encode() + b"\n"


def is_alive(control: Control) -> bool:
    with Client(control.folder) as client:
        return client.call("status") == STATUS


def test_status(control: Control) -> None:
    assert is_alive(control)


@pytest.mark.parametrize("verb", ["count", "retry", "delete", "hold", "release", "expire", "bounce", "reroute"])
def test_verbs_on_messages(control: Control, verb: str) -> None:
    with Client(control.folder) as client:
        assert client.call(f"queue.{verb}", filter=["state=held", "x"])["messages"] == 5
    assert control.operator.calls == [(verb, ["state=held", "x"])]


def test_list(control: Control) -> None:
    with Client(control.folder) as client:
        assert list(client.rows("queue.list", filter=["all"])) == ROWS
        assert list(client.rows("queue.list", filter=["all"], limit=2)) == ROWS[:2]
        assert client.call("queue.list") == {"rows": 5}


def test_show(control: Control) -> None:
    with Client(control.folder) as client:
        assert list(client.rows("queue.show", id=ROWS[3]["id"])) == [ROWS[3]]
        assert list(client.rows("queue.show", id="none")) == []


@pytest.mark.parametrize("verb", ["count", "retry", "delete", "hold", "release", "list"])
def test_a_wrong_filter_is_told_and_the_conversation_goes_on(control: Control, verb: str) -> None:
    with Client(control.folder) as client:
        with pytest.raises(Refused, match="bad is no filter") as caught:
            client.call(f"queue.{verb}", filter=["bad"])
        assert caught.value.code == "usage"
        assert client.call("queue.count") == {"messages": 5}


def test_faults_of_the_spool_and_of_ours(control: Control, capfd: pytest.CaptureFixture[str]) -> None:
    with Client(control.folder) as client:
        for word, code in (("full", "failed"), ("bug", "internal")):
            with pytest.raises(Refused) as caught:
                client.call("queue.retry", filter=[word])
            assert caught.value.code == code
    assert "a bug for the test" in capfd.readouterr().err
    assert is_alive(control)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"v": 2}, "protocol version 2 is not spoken here"),
        ({"v": None}, "protocol version None"),
        ({"verb": "queue.burn"}, "unknown verb 'queue.burn'; known are hello, status, queue.list"),
        ({"verb": ["status"]}, "unknown verb"),
        ({"args": []}, "args must be an object"),
        ({"args": {"filter": "all"}}, "filter must be a list of strings"),
        ({"args": {"filter": [1]}}, "filter must be a list of strings"),
        ({"verb": "queue.list", "args": {"limit": -1}}, "limit must be a whole number"),
        ({"verb": "queue.list", "args": {"limit": True}}, "limit must be a whole number"),
        ({"verb": "queue.list", "args": {"limit": "5"}}, "limit must be a whole number"),
    ],
)
def test_wrong_requests(control: Control, changes: Json, text: str) -> None:
    refused, good = talk(control, request(**changes) + request(id=8))
    assert refused["id"] == 7
    error = refused["error"]
    assert isinstance(error, dict)
    assert error["code"] == "usage"
    assert text in error["text"]
    assert good == {"id": 8, "end": {"messages": 5}}


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\n", b"\xff\xfe\n", b"[1]\n", b"5\n", b"[" * 100_000 + b"\n", b"\0\n"]
)
def test_garbage_gets_one_error(control: Control, garbage: bytes) -> None:
    (answer,) = talk(control, garbage + request())
    error = answer["error"]
    assert isinstance(error, dict)
    assert error["code"] == "protocol"
    assert not control.operator.calls
    assert is_alive(control)


@pytest.mark.parametrize("half", [b"", b'{"v": 1', request()[:-1]])
def test_half_a_request_is_none(control: Control, half: bytes) -> None:
    assert talk(control, half) == []
    assert not control.operator.calls
    assert is_alive(control)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_that_is_too_long(control: Control, end: bytes) -> None:
    # Its sender may be cut off before it has read why.
    told = talk(control, b"x" * (2 << 20) + end)
    assert told in (
        [],
        [{"id": None, "error": {"code": "protocol", "text": f"a request is at most {MAX_FRAME} octets"}}],
    )
    assert not control.operator.calls
    assert is_alive(control)


def test_strangers_are_denied(tmp_path: Path) -> None:
    with Control(tmp_path, FakeOperator(ROWS), Roles(say=lambda uid: None)) as control:
        with Client(tmp_path) as client, pytest.raises(Refused) as caught:
            client.call("queue.delete", filter=["all"])
        assert caught.value.code == "denied"
        assert str(caught.value) == f"user {os.geteuid()} may not control this server"
        assert not control.operator.calls


def test_who_it_is_comes_from_the_kernel(tmp_path: Path) -> None:
    asked: list[int] = []

    def peer(uid: int) -> Peer:
        asked.append(uid)
        return Peer(uid, "ann", "admin")

    with Control(tmp_path, FakeOperator(), Roles(say=peer)) as control:
        assert is_alive(control)
    assert asked == [os.geteuid()]


def test_a_viewer_looks_and_changes_nothing(tmp_path: Path) -> None:
    viewers = Roles(say=lambda uid: Peer(uid, "vera", "viewer"))
    with Control(tmp_path, FakeOperator(ROWS), viewers) as control, Client(tmp_path) as client:
        assert client.count("all") == 5
        assert client.hello().role == "viewer"
        for verb, row in VERBS.items():
            if row.role == "admin":
                with pytest.raises(Refused, match="vera may look, and change nothing") as caught:
                    client.call(verb, filter=["all"])
                assert caught.value.code == "denied"
        assert [call[0] for call in control.operator.calls] == ["count"]
        assert client.status() == STATUS, "the conversation goes on"


def test_a_slow_reader_is_waited_for(tmp_path: Path) -> None:
    many = 100_000
    operator = FakeOperator([row(0)] * many)
    with Control(tmp_path, operator), Client(tmp_path) as client:
        rows = client.rows("queue.list", filter=["all"])
        next(rows)
        wait_for(lambda: operator.given > 1)
        seen = -1
        while seen != operator.given:  # until the server, too, waits
            seen = operator.given
            with Client(tmp_path) as other:
                for _ in range(20):
                    other.call("status")
        assert operator.given < many / 20  # what the kernel and the transport hold, no more
        assert sum(1 for _ in rows) == many - 1


def test_a_reader_that_leaves_harms_nobody(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    operator = FakeOperator([row(0)] * 50_000)
    with Control(tmp_path, operator) as control:
        with Client(tmp_path) as client:
            next(client.rows("queue.list", filter=["all"]))
        assert is_alive(control)
    assert "Traceback" not in capfd.readouterr().err


def test_connections_do_not_wait_for_each_other(control: Control) -> None:
    with Client(control.folder), Client(control.folder) as second:
        assert second.call("status") == STATUS


def test_no_server_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(NoServer) as caught:
        Client(tmp_path)
    assert f"no server answers on {tmp_path}/control.sock (No such file or directory)" in str(caught.value)


def test_a_socket_that_a_killed_server_left(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "control.sock"))
    with pytest.raises(NoServer, match="Connection refused"):
        Client(tmp_path)
    with Control(tmp_path, FakeOperator()) as control:
        assert is_alive(control)


def test_a_server_that_says_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "control.sock"))
        sock.listen()
        with Client(tmp_path, timeout=0.1) as client, pytest.raises(NoServer, match="stopped answering"):
            client.call("status")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "closed the connection"),
        (b'{"id": 1, "row"', "not understood|closed the connection"),
        (b"nonsense\n", "not understood"),
        (b'{"id": 1, "end": 5}\n', "not understood"),
        (b'{"id": 1, "error": "no"}\n', "not understood"),
    ],
)
def test_answers_that_are_none(tmp_path: Path, answer: bytes, text: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "control.sock"))
        sock.listen()
        with Client(tmp_path) as client:
            peer, _ = sock.accept()
            with peer:
                peer.sendall(answer)
                peer.shutdown(socket.SHUT_WR)
                with pytest.raises(NoServer, match=text):
                    client.call("status")


def test_the_socket_is_its_owners(control: Control) -> None:
    assert stat.S_IMODE(control.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(control.folder.stat().st_mode) == 0o700


def test_a_path_longer_than_a_socket_may_be(tmp_path: Path) -> None:
    with Control(tmp_path / ("d" * 120), FakeOperator()) as control:
        assert is_alive(control)
        assert stat.S_IMODE(control.path.stat().st_mode) == 0o600


def test_frames() -> None:
    assert decode(b'{"a": 1}\n') == {"a": 1}
    for bad in (b"", b"1", b"null", b"{", b"\xff"):
        with pytest.raises(ProtocolError):
            decode(bad)


# ---- roles


def test_roles_by_name_and_number() -> None:
    access = access_of(Settings(admins=("root", "4711"), viewers=("4712", "nobody", "nobody-of-this-name")))
    assert access.peer(4711) == Peer(4711, "4711", "admin")
    assert access.peer(4712) == Peer(4712, "4712", "viewer")
    assert access.peer(pwd.getpwnam("nobody").pw_uid).role == "viewer"  # type: ignore[union-attr]
    assert access.peer(4713) is None
    assert access.peer(0).role == access.peer(os.geteuid()).role == "admin"  # type: ignore[union-attr]
    assert access.others
    assert not access_of(Settings()).others
    assert not Access(frozenset((0, os.geteuid()))).others


def test_others_can_reach_the_socket_only_where_they_are_named(tmp_path: Path) -> None:
    with Control(tmp_path / "run", FakeOperator(), Access(viewers=frozenset((4712,)))) as control:
        assert stat.S_IMODE(control.path.stat().st_mode) == 0o666
        assert stat.S_IMODE(control.folder.stat().st_mode) == 0o711
        assert is_alive(control)


# ---- cancelling, and much at once


def test_a_running_request_is_cancelled(tmp_path: Path) -> None:
    operator = FakeOperator([row(0)] * 1_000_000)
    with Control(tmp_path, operator), Client(tmp_path) as client:
        rows = client.list("all")
        next(rows)
        client.cancel()
        with pytest.raises(Refused) as caught:
            for _ in rows:
                pass
        assert caught.value.code == "cancelled"
        assert operator.given < 1_000_000
        assert client.status() == STATUS


def test_a_loop_that_is_left_does_not_disturb_the_next_request(tmp_path: Path) -> None:
    operator = FakeOperator([row(0)] * 1_000_000)
    with Control(tmp_path, operator), Client(tmp_path) as client:
        for _ in client.list("all"):
            break
        assert client.count("all") == 1_000_000
        assert operator.given < 1_000_000
        assert client.status() == STATUS


def test_what_waits_is_cancelled_before_it_begins(control: Control) -> None:
    asked = request(id=1, verb="queue.list") + request(id=2, verb="queue.delete") + cancel(9, 2) + cancel(10, 77)
    answers = talk(control, asked)
    assert {"id": 9, "end": {"cancelled": True}} in answers
    assert {"id": 10, "end": {"cancelled": False}} in answers
    assert answers[-1] == {
        "id": 2,
        "error": {"code": "cancelled", "text": "it was cancelled before it began"},
    }
    assert [call[0] for call in control.operator.calls] == ["list"]


def test_cancel_takes_a_number(control: Control) -> None:
    (answer,) = talk(control, json.dumps({"v": 1, "id": 3, "cancel": [1]}).encode() + b"\n")
    assert answer["error"] == {"code": "usage", "text": "cancel must be the id of a request"}


def cancel(number: int, wanted: int) -> bytes:
    return json.dumps({"v": 1, "id": number, "cancel": wanted}).encode() + b"\n"


def flood(control: Control, frames: int) -> None:
    """Many requests in one go, read by nobody until all are sent; others are served meanwhile."""
    one = request(verb="hello", args={})
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(control.path))
        sock.settimeout(300)

        def send() -> None:
            sock.sendall(one * frames)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert is_alive(control)
        answers = 0
        while data := sock.recv(1 << 20):
            answers += data.count(b"\n")
        sender.join()
    assert answers == frames
    assert is_alive(control)


def test_many_frames_are_answered_and_hurt_nobody(control: Control) -> None:
    flood(control, 10_000)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_million_frames(control: Control) -> None:
    flood(control, 1_000_000)


def test_frames_that_nobody_reads_the_answers_of_are_not_read_either(control: Control) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(control.path))
        sock.setblocking(False)
        sent, stuck = 0, 0
        one = request(verb="hello", args={}) * 1000
        while stuck < 20:  # some turns of the server in which it takes no more
            try:
                sent += sock.send(one)
                stuck = 0
            except BlockingIOError:
                stuck += 1
                assert is_alive(control)
        assert sent < 16 << 20


def test_many_clients(control: Control) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(control.folder)) for _ in range(150)]
        assert all(client.count("all") == 5 for client in clients)


def test_too_many_clients_are_told(control: Control) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(control.folder)) for _ in range(200)]
        assert all(client.status() == STATUS for client in clients)
        with Client(control.folder) as late, pytest.raises(Refused) as caught:
            late.status()
        assert caught.value.code == "busy"


# ---- the typed client


def test_rows_are_typed(control: Control) -> None:
    with Client(control.folder) as client:
        (first, *_) = client.list("all")
        assert (first.id, first.state, first.size, first.recipients) == (
            "000000000000",
            "deferred",
            1234,
            ("u@example.org",),
        )
        assert client.hold("all").messages == 5
        assert client.hello().version == 1
        assert client.show("none") is None


def test_verbs_of_the_typed_client(control: Control) -> None:
    with Client(control.folder) as client:
        client.bounce("no", "all", most=9)
        client.reroute("rules", "state=held", dry_run=True)
        client.undo(12)
        assert [(o.verb, dict(o.arguments), o.dry_run, o.most) for o in control.operator.orders] == [
            ("bounce", {"reason": "no"}, False, 9),
            ("reroute", {"to": "rules"}, True, 0),
            ("undo", {"operation": 12}, False, 0),
        ]
        assert {o.doer.uid for o in control.operator.orders} == {os.geteuid()}
        with pytest.raises(Refused, match="it is 5 messages") as caught:
            client.delete("all", most=4)
        assert caught.value.code == "many"
        newest, oldest = client.log()
        assert (newest.verb, newest.ended, oldest.user) == ("bounce", None, "ann")
        assert [o.number for o in client.log(limit=1)] == [2]


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.integers() | st.none() | st.lists(st.text())))
def test_whatever_is_said_comes_across(frame: dict[str, object]) -> None:
    assert decode(encode(frame)) == frame  # type: ignore[arg-type]


def test_words_that_are_no_utf8() -> None:
    assert json.loads(encode({"filter": ["sender=\udcff"]})) == {"filter": ["sender=\udcff"]}
