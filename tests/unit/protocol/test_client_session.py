"""The client session: extension and reference alike, whole, cut anywhere, and against servers of every temper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta import _fastparse
from mta.protocol import client as reference

OUTPUT, CLOSE, READY, NEXT, SEND, DONE = (
    _fastparse.OUTPUT,
    _fastparse.CLOSE,
    _fastparse.READY,
    _fastparse.NEXT,
    _fastparse.SEND,
    _fastparse.DONE,
)
EHLO = b"250-mx.example.net\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250 8BITMIME\r\n"
PLAIN_EHLO = b"250 mx.example.net\r\n"
A = (b"a@example.org", [b"b@example.net"])


@pytest.fixture(params=[_fastparse, reference], ids=["extension", "reference"])
def module(request: pytest.FixtureRequest) -> Any:
    return request.param


class Talk:
    """A session with what it said so far."""

    def __init__(self, module: Any, *, lmtp: bool = False) -> None:
        self.session = module.ClientSession(b"me.example", lmtp=lmtp)
        self.flags = 0
        self.results: list[Any] = []

    def hear(self, octets: bytes) -> bytes:
        return self._after(self.session.receive(octets, len(octets)))

    def offer(
        self, token: object, sender: bytes, recipients: list[bytes], size: int = 5, *, eight_bit: bool = False
    ) -> bytes:
        return self._after(self.session.offer(token, sender, recipients, size, eight_bit))

    def text(self, chunk: bytes, last: bool = True) -> bytes:
        return self._after(self.session.send_body(chunk, last))

    def lost(self) -> None:
        self._after(self.session.lost())

    def _after(self, flags: int) -> bytes:
        self.flags = flags
        if flags & DONE:
            self.results += self.session.take_results()
        return self.session.take_output() if flags & OUTPUT else b""


def ready(module: Any, ehlo: bytes = EHLO, *, lmtp: bool = False) -> Talk:
    talk = Talk(module, lmtp=lmtp)
    talk.hear(b"220 mx.example.net ESMTP\r\n")
    talk.hear(ehlo)
    assert talk.flags == READY
    return talk


def test_flag_values_are_the_same() -> None:
    for name in ("OUTPUT", "CLOSE", "READY", "NEXT", "SEND", "DONE"):
        assert getattr(_fastparse, name) == getattr(reference, name)
    flags = [OUTPUT, CLOSE, READY, NEXT, SEND, DONE, _fastparse.BODY, _fastparse.MESSAGE, _fastparse.DISCARD]
    assert len(set(flags)) == len(flags) == sum(f.bit_count() for f in flags)


# ---- greeting


def test_introduces_itself_and_learns_extensions(module: Any) -> None:
    talk = Talk(module)
    assert talk.hear(b"220-mx.example.net ESMTP\r\n220 be welcome\r\n") == b"EHLO me.example\r\n"
    assert talk.session.greeting == (220, "mx.example.net ESMTP\nbe welcome")
    assert talk.hear(b"250-mx\r\n250-size 100\r\n250-AUTH PLAIN LOGIN\r\n250 PIPELINING\r\n") == b""
    assert talk.flags == READY
    assert talk.session.extensions == {"SIZE": "100", "AUTH": "PLAIN LOGIN", "PIPELINING": ""}


def test_falls_back_to_helo(module: Any) -> None:
    talk = Talk(module)
    talk.hear(b"220 old\r\n")
    assert talk.hear(b"502 what?\r\n") == b"HELO me.example\r\n"
    talk.hear(b"250\r\n")
    assert talk.flags == READY
    assert talk.session.extensions == {}


@pytest.mark.parametrize(
    ("octets", "failure", "said"),
    [
        (b"554 5.7.1 go away\r\n", (554, "5.7.1 go away"), b"QUIT\r\n"),
        (b"450 later\r\n", (450, "later"), b"QUIT\r\n"),
        (b"421 busy\r\n", (421, "busy"), b""),
        (b"354 what\r\n", (0, "reply out of place: 354 what"), b""),
        (b"HTTP/1.1 400 Bad Request\r\n", (0, "not an SMTP reply: HTTP/1.1 400 Bad Request"), b""),
        (b"199 no\r\n", (0, "not an SMTP reply: 199 no"), b""),
        (b"2x0 no\r\n", (0, "not an SMTP reply: 2x0 no"), b""),
        (b"22\r\n", (0, "not an SMTP reply: 22"), b""),
        (b"\r\n", (0, "not an SMTP reply: "), b""),
        (b"2200 no\r\n", (0, "not an SMTP reply: 2200 no"), b""),
        (b"\x16\x03\x01\xff\r\n", (0, "not an SMTP reply: \x16\x03\x01\\xff"), b""),
    ],
)
def test_bad_greetings(module: Any, octets: bytes, failure: tuple[int, str], said: bytes) -> None:
    talk = Talk(module)
    assert talk.hear(octets) == said
    assert talk.flags & CLOSE
    assert talk.session.failure == failure
    assert talk.hear(b"220 second thoughts\r\n") == b""
    assert talk.flags == 0


@pytest.mark.parametrize("answer", [b"450 4.3.2 no\r\n", b"421 4.3.2 no\r\n"])
def test_ehlo_refused_for_now(module: Any, answer: bytes) -> None:
    talk = Talk(module)
    talk.hear(b"220 mx\r\n")
    talk.hear(answer)
    assert talk.flags & CLOSE
    assert talk.session.failure == (int(answer[:3]), "4.3.2 no")


def test_helo_refused_too(module: Any) -> None:
    talk = Talk(module)
    talk.hear(b"220 mx\r\n")
    talk.hear(b"500 no\r\n")
    assert talk.hear(b"550 no\r\n") == b"QUIT\r\n"
    assert talk.session.failure == (550, "no")


def test_lmtp_has_no_helo(module: Any) -> None:
    talk = Talk(module, lmtp=True)
    assert talk.hear(b"220 mx\r\n") == b"LHLO me.example\r\n"
    assert talk.hear(b"500 no\r\n") == b"QUIT\r\n"
    assert talk.session.failure == (500, "no")


def test_reply_of_many_lines_is_bounded(module: Any) -> None:
    talk = Talk(module)
    line = b"220-" + b"x" * 100 + b"\r\n"
    for _ in range(610):
        talk.hear(line)
        assert not talk.flags
    for _ in range(10):
        talk.hear(line)
    assert talk.session.failure == (0, "reply longer than 64 KiB")


def test_line_without_end_is_bounded(module: Any) -> None:
    talk = Talk(module)
    talk.hear(b"220 " + b"x" * 65532)
    assert not talk.flags
    talk.hear(b"x")
    assert talk.session.failure == (0, "reply longer than 64 KiB")


# ---- one transaction


def test_pipelined_envelope(module: Any) -> None:
    talk = ready(module)
    said = talk.offer("t", b"a@x", [b"b@y", b"c@y"], 120, eight_bit=True)
    assert said == (b"MAIL FROM:<a@x> SIZE=120 BODY=8BITMIME\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nDATA\r\n")
    assert talk.flags & NEXT
    talk.hear(b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n550 5.1.1 no such user\r\n354 go\r\n")
    assert talk.flags == SEND | NEXT
    assert talk.text(b"hi\r\n") == b"hi\r\n.\r\n"
    assert talk.session.awaits_final
    talk.hear(b"250 2.0.0 queued\r\n")
    assert not talk.session.awaits_final
    assert talk.session.in_hand == 0
    (result,) = talk.results
    assert result.token == "t"
    assert result.mail == (250, "2.1.0 ok")
    assert result.recipients == [(250, "2.1.5 ok"), (550, "5.1.1 no such user")]
    assert result.data == (354, "go")
    assert result.finals == [(250, "2.0.0 queued")]
    assert result.dotted


def test_lock_step_without_pipelining(module: Any) -> None:
    talk = ready(module, PLAIN_EHLO)
    assert talk.offer("t", b"", [b"b@y", b"c@y"], 120, eight_bit=True) == b"MAIL FROM:<>\r\n"
    assert talk.hear(b"250 ok\r\n") == b"RCPT TO:<b@y>\r\n"
    assert talk.hear(b"450 4.2.1 later\r\n") == b"RCPT TO:<c@y>\r\n"
    assert talk.hear(b"251 forwarded\r\n") == b"DATA\r\n"
    assert talk.hear(b"354\r\n") == b""
    assert talk.flags == SEND | NEXT
    assert talk.text(b"") == b".\r\n"
    talk.hear(b"250\n")
    assert talk.results[0].finals == [(250, "")]
    assert talk.results[0].recipients == [(450, "4.2.1 later"), (251, "forwarded")]


def test_mail_refused_pipelined_reads_the_rest(module: Any) -> None:
    talk = ready(module)
    talk.offer("t", *A)
    talk.hear(b"550 5.7.1 not you\r\n")
    assert not talk.flags
    talk.hear(b"503 no\r\n503 no\r\n")
    assert talk.flags == DONE | NEXT
    assert talk.results[0].mail == (550, "5.7.1 not you")
    assert not talk.results[0].finals
    assert talk.offer("u", *A).startswith(b"MAIL")


def test_mail_refused_lock_step_ends_at_once(module: Any) -> None:
    talk = ready(module, PLAIN_EHLO)
    talk.offer("t", *A)
    assert talk.hear(b"450 wait\r\n") == b""
    assert talk.flags == DONE | NEXT
    assert talk.results[0].recipients == [None]


def test_no_recipient_left_lock_step_owes_rset(module: Any) -> None:
    talk = ready(module, PLAIN_EHLO)
    talk.offer("t", *A)
    talk.hear(b"250 ok\r\n")
    assert talk.hear(b"550 no\r\n") == b""
    assert talk.flags == DONE | NEXT
    assert talk.offer("u", *A) == b"RSET\r\n"
    assert talk.hear(b"250 ok\r\n") == b"MAIL FROM:<a@example.org>\r\n"


def test_no_recipient_left_and_data_refused_owes_rset(module: Any) -> None:
    talk = ready(module)
    talk.offer("t", *A)
    assert talk.hear(b"250 ok\r\n550 no\r\n554 no valid recipients\r\n") == b""
    said = talk.offer("u", *A)
    assert said.startswith(b"RSET\r\nMAIL FROM:<a@example.org>")
    assert said.endswith(b"DATA\r\n")
    talk.hear(b"250 reset\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    assert talk.flags & SEND


def test_no_recipient_left_but_data_accepted_gets_a_lone_dot(module: Any) -> None:
    talk = ready(module)
    talk.offer("t", *A)
    assert talk.hear(b"250 ok\r\n550 no\r\n354 go\r\n") == b".\r\n"
    assert not talk.flags & SEND
    talk.hear(b"554 no valid recipients\r\n")
    assert talk.flags == DONE | NEXT
    assert not talk.results[0].dotted
    assert talk.offer("u", *A).startswith(b"MAIL")


def test_354_behind_refused_mail_sends_nothing(module: Any) -> None:
    talk = ready(module)
    talk.offer("t", *A)
    assert talk.hear(b"550 no\r\n250 ok\r\n354 go\r\n") == b""
    assert talk.flags & CLOSE
    assert talk.session.failure is not None
    assert talk.session.failure[0] == 0
    assert talk.results[0].mail == (550, "no")


@pytest.mark.parametrize("replies", [b"354 go\r\n", b"250 ok\r\n354 go\r\n", b"250 ok\r\n250 ok\r\n250 done\r\n"])
def test_reply_of_the_wrong_kind_breaks(module: Any, replies: bytes) -> None:
    talk = ready(module)
    talk.offer("t", *A)
    talk.hear(replies)
    assert talk.flags == CLOSE | DONE
    assert talk.session.failure is not None
    assert talk.session.failure[0] == 0
    assert not talk.results[0].dotted


def test_lmtp_answers_for_each_recipient(module: Any) -> None:
    talk = ready(module, lmtp=True)
    talk.offer("t", b"a@x", [b"b@y", b"c@y", b"d@y"])
    talk.hear(b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n")
    talk.text(b"hi\r\n")
    talk.hear(b"250 b done\r\n")
    assert not talk.flags
    talk.hear(b"452 d over quota\r\n")
    assert talk.flags == DONE | NEXT
    assert talk.results[0].finals == [(250, "b done"), (452, "d over quota")]


# ---- two transactions


def test_next_envelope_rides_on_the_final_dot(module: Any) -> None:
    talk = ready(module)
    talk.offer("t", *A)
    assert talk.offer("u", b"c@x", [b"d@y"]) == b""
    assert talk.session.in_hand == 2
    talk.hear(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert talk.flags == SEND
    assert talk.text(b"hi\r\n") == b"hi\r\n.\r\nMAIL FROM:<c@x> SIZE=5\r\nRCPT TO:<d@y>\r\nDATA\r\n"
    assert talk.hear(b"250 queued\r\n250 ok\r\n250 ok\r\n354 go\r\n") == b""
    assert talk.flags == DONE | NEXT | SEND
    assert [r.token for r in talk.results] == ["t"]
    assert talk.text(b"ho\r\n") == b"ho\r\n.\r\n"
    talk.hear(b"250 queued\r\n")
    assert [r.token for r in talk.results] == ["t", "u"]


def test_offer_behind_the_dot_leaves_at_once(module: Any) -> None:
    talk = ready(module)
    talk.offer("t", *A)
    talk.hear(b"250 ok\r\n250 ok\r\n354 go\r\n")
    talk.text(b"hi\r\n")
    assert talk.offer("u", *A).startswith(b"MAIL")
    talk.hear(b"550 5.6.0 bad text\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    assert talk.flags == DONE | NEXT | SEND


def test_without_pipelining_the_next_waits_for_the_reply(module: Any) -> None:
    talk = ready(module, PLAIN_EHLO)
    talk.offer("t", *A)
    talk.offer("u", b"c@x", [b"d@y"])
    talk.hear(b"250 ok\r\n")
    talk.hear(b"250 ok\r\n")
    talk.hear(b"354 go\r\n")
    assert talk.text(b"hi\r\n") == b"hi\r\n.\r\n"
    assert talk.hear(b"250 ok\r\n") == b"MAIL FROM:<c@x>\r\n"
    assert talk.flags == DONE | NEXT | OUTPUT


def test_next_follows_at_once_when_no_text_was_sent(module: Any) -> None:
    talk = ready(module)
    talk.offer("t", *A)
    talk.offer("u", b"c@x", [b"d@y"])
    said = talk.hear(b"450 no\r\n503 no\r\n503 no\r\n")
    assert said.startswith(b"MAIL FROM:<c@x>")
    assert talk.flags == DONE | NEXT | OUTPUT


def test_no_third_offer(module: Any) -> None:
    talk = ready(module)
    talk.offer("t", *A)
    talk.offer("u", *A)
    with pytest.raises(RuntimeError):
        talk.offer("v", *A)


def test_offer_needs_a_ready_session(module: Any) -> None:
    with pytest.raises(RuntimeError):
        Talk(module).offer("t", *A)
    talk = ready(module)
    talk.lost()
    with pytest.raises(RuntimeError):
        talk.offer("t", *A)


@pytest.mark.parametrize("bad", [b"a@x>\r\nDATA", b"a\n@x", b"\r"])
def test_no_command_can_hide_in_an_address(module: Any, bad: bytes) -> None:
    with pytest.raises(ValueError, match="line end"):
        ready(module).offer("t", bad, [b"b@y"])
    with pytest.raises(ValueError, match="line end"):
        ready(module).offer("t", b"", [b"b@y", bad])


def test_transaction_needs_recipients(module: Any) -> None:
    with pytest.raises(ValueError, match="recipients"):
        ready(module).offer("t", b"", [])


# ---- ends


def test_421_while_idle(module: Any) -> None:
    talk = ready(module)
    talk.hear(b"421 idle too long\r\n")
    assert talk.flags == CLOSE
    assert talk.session.failure == (421, "idle too long")


def test_unasked_reply_while_idle_breaks(module: Any) -> None:
    talk = ready(module)
    talk.hear(b"250 ok\r\n")
    assert talk.session.failure == (0, "reply out of place: 250 ok")


REPLIES = (b"250 ok\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n")


@pytest.mark.parametrize("at", range(5))
def test_421_answers_what_is_outstanding(module: Any, at: int) -> None:
    talk = ready(module)
    talk.offer("t", b"a@x", [b"b@y", b"c@y"])
    talk.offer("u", *A)
    talk.hear(b"".join(REPLIES[:at]))
    if at == 4:
        talk.text(b"hi\r\n")
    talk.hear(b"421 4.3.2 going down\r\n")
    assert talk.flags == CLOSE | DONE
    bye = (421, "4.3.2 going down")
    assert talk.session.failure == bye
    first, second = talk.results
    assert first.mail == (bye if at == 0 else (250, "ok"))
    ok = (250, "ok")
    assert first.recipients == {0: [None, None], 1: [bye, bye], 2: [ok, bye]}.get(at, [ok, ok])
    assert first.data == {3: bye, 4: (354, "go")}.get(at)
    assert first.finals == ([bye] if at == 4 else [])
    assert (second.token, second.mail, second.dotted) == ("u", None, False)


@pytest.mark.parametrize(("early", "code"), [(b"552 too big\r\n", 552), (b"421 bye\r\n", 421), (b"250 ok\r\n", 0)])
def test_reply_in_the_middle_of_a_text(module: Any, early: bytes, code: int) -> None:
    talk = ready(module)
    talk.offer("t", *A)
    talk.hear(b"250 ok\r\n250 ok\r\n354 go\r\n")
    talk.text(b"first part", last=False)
    talk.hear(early)
    assert talk.flags == CLOSE | DONE
    assert talk.session.failure is not None
    assert talk.session.failure[0] == code
    (result,) = talk.results
    assert not result.dotted
    assert result.finals == [None if code == 0 else talk.session.failure]
    assert talk.text(b"second part") == b""


def test_lost_with_two_in_hand(module: Any) -> None:
    talk = ready(module)
    talk.offer("t", *A)
    talk.offer("u", *A)
    talk.hear(b"250 ok\r\n250 ok\r\n354 go\r\n")
    talk.text(b"hi\r\n")
    talk.hear(b"250 unfinished")
    talk.lost()
    assert talk.flags == DONE
    assert [(r.token, r.dotted, r.finals) for r in talk.results] == [("t", True, [None]), ("u", False, [])]
    assert talk.session.in_hand == 0


def test_quit(module: Any) -> None:
    talk = ready(module)
    assert talk._after(talk.session.quit()) == b"QUIT\r\n"
    talk.hear(b"221 bye\r\n")
    assert talk.flags == CLOSE
    assert talk.session.failure is None


def test_no_quit_with_work_in_hand(module: Any) -> None:
    talk = ready(module)
    talk.offer("t", *A)
    with pytest.raises(RuntimeError):
        talk.session.quit()


# ---- text

TEXTS = st.lists(st.sampled_from([b".", b"\r\n", b"a", b"\n", b"\r", b"..", b"\r\n.", b"\x00", b"\xff"])).map(b"".join)


@given(text=TEXTS, cuts=st.lists(st.integers(1, 5)))
def test_any_text_is_stuffed_and_ended(text: bytes, cuts: list[int]) -> None:
    lines = text.split(b"\n")
    stuffed = b"\n".join(b"." + line if line.startswith(b".") else line for line in lines)
    assert _fastparse.stuff(text) == reference.stuff(text) == stuffed
    end = b".\r\n" if not text or text.endswith(b"\r\n") else b"\r\n.\r\n"
    for module in (_fastparse, reference):
        talk = ready(module)
        talk.offer("t", *A)
        talk.hear(b"250 ok\r\n250 ok\r\n354 go\r\n")
        said, rest = b"", text
        for cut in cuts:
            said += talk.text(rest[:cut], last=False)
            rest = rest[cut:]
        assert said + talk.text(rest) == stuffed + end


def test_text_takes_any_buffer(module: Any) -> None:
    talk = ready(module)
    talk.offer("t", *A)
    talk.hear(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert talk.text(memoryview(bytearray(b".x\r\n"))[:]) == b"..x\r\n.\r\n"  # type: ignore[arg-type]


# ---- any server, any split


@dataclass
class Server:
    """Answers each command with the next answer that it was given; remembers all it heard."""

    answers: list[str]
    pipelining: bool
    lmtp: bool
    heard: bytes = b""
    rest: bytes = b""
    accepted: int = 0
    in_text: bool = False
    mood: int = 0

    def hear(self, octets: bytes) -> bytes:
        self.heard += octets
        self.rest += octets
        said = b""
        while True:
            end = self.rest.find(b".\r\n" if self.in_text else b"\r\n")
            if end < 0:
                return said
            line, self.rest = self.rest[: end + 2], self.rest[end + (3 if self.in_text else 2) :]
            said += self._answer(line)

    def _answer(self, line: bytes) -> bytes:
        if self.in_text:
            self.in_text = False
            return b"".join(self._pick(b"250") for _ in range(self.accepted if self.lmtp else 1))
        verb = line[:4].upper()
        if verb in (b"EHLO", b"LHLO"):
            return (b"250-x\r\n250 PIPELINING\r\n" if self.pipelining else b"250 x\r\n").replace(
                b"250", self._pick(b"250")[:3] if self.mood % 7 == 0 else b"250"
            )
        reply = self._pick(b"354" if verb == b"DATA" else b"250")
        if verb == b"MAIL":
            self.accepted = 0
        self.accepted += verb == b"RCPT" and reply.startswith(b"2")
        self.in_text = verb == b"DATA" and reply.startswith(b"354")
        return reply

    def _pick(self, good: bytes) -> bytes:
        self.mood += 1
        answer = self.answers[self.mood % len(self.answers)]
        return {
            "good": good + b" 2.0.0 fine\r\n",
            "bare": good + b"\r\n",
            "lf": good + b" fine\n",
            "long": good + b"-one\r\n" + good + b"-\r\n" + good + b" three\r\n",
            "later": b"450 4.2.0 later\r\n",
            "never": b"550-5.1.1 no\r\n550 5.1.1 never\r\n",
            "bye": b"421 4.3.2 bye\r\n",
            "noise": b"\x80\xff noise\r\n",
            "wrong": b"354 what\r\n",
            "twice": good + b" fine\r\n" + good + b" fine\r\n",
        }[answer]


def converse(module: Any, server: Server, jobs: list[int], sizes: list[int]) -> tuple[Any, ...]:
    """Run the jobs; the server's octets arrive in pieces of these sizes, in turn. What came of it all."""
    session = module.ClientSession(b"me", lmtp=server.lmtp)
    jobs = list(jobs)
    results: list[Any] = []
    turn = 0
    arriving = b"220 hello\r\n"
    for _ in range(200):
        flags = 0
        while arriving:
            size = sizes[turn % len(sizes)]
            turn += 1
            flags |= session.receive(arriving[:size], len(arriving[:size]))
            arriving = arriving[size:]
        said = session.take_output()
        if not flags & CLOSE and flags & (READY | NEXT):
            while jobs and session.in_hand < 2:
                count = jobs.pop(0)
                session.offer(count, b"s@x", [b"r%d@y" % i for i in range(count)], 9, False)
                said += session.take_output()
        if flags & SEND and not flags & CLOSE:
            session.send_body(b"some text\r\n", True)
            said += session.take_output()
        results += session.take_results()
        if flags & CLOSE or not said:
            break
        arriving = server.hear(said)
    session.lost()
    results += session.take_results()
    return (
        server.heard,
        session.greeting,
        session.failure,
        session.extensions,
        [(r.token, r.mail, r.recipients, r.data, r.finals, r.dotted) for r in results],
        jobs,
    )


MOODS = ["good"] * 6 + ["bare", "lf", "long", "later", "never", "bye", "noise", "wrong", "twice"]


@settings(max_examples=300, deadline=None)
@given(
    answers=st.lists(st.sampled_from(MOODS), min_size=1, max_size=12),
    pipelining=st.booleans(),
    lmtp=st.booleans(),
    jobs=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
)
def test_any_server_cut_anywhere(
    answers: list[str], pipelining: bool, lmtp: bool, jobs: list[int], sizes: list[int]
) -> None:
    def outcome(module: Any, cut: list[int]) -> tuple[Any, ...]:
        return converse(module, Server(answers, pipelining, lmtp), jobs, cut)

    whole = outcome(reference, [1 << 20])
    assert outcome(reference, sizes) == whole
    assert outcome(_fastparse, [1 << 20]) == whole
    assert outcome(_fastparse, [1]) == whole
    assert outcome(_fastparse, sizes) == whole
    # Each job comes to exactly one result, in order, or was never taken.
    assert [r[0] for r in whole[4]] + whole[5] == jobs


@given(octets=st.binary(max_size=300), sizes=st.lists(st.integers(1, 40), min_size=1))
def test_any_octets_are_survived_alike(octets: bytes, sizes: list[int]) -> None:
    seen = []
    for module in (reference, _fastparse):
        session = module.ClientSession(b"me")
        rest = octets
        for size in sizes:
            session.receive(rest[:size], len(rest[:size]))
            rest = rest[size:]
        seen.append((session.take_output(), session.failure, session.greeting, session.extensions))
    assert seen[0] == seen[1]


def test_the_reference_has_the_same_names() -> None:
    for name in ("ClientSession", "TransactionResult", "stuff"):
        assert hasattr(reference, name)
    session = reference.ClientSession(b"me")
    names = {n for n in dir(_fastparse.ClientSession) if not n.startswith("_")}
    assert names <= set(dir(session))
    result = {n for n in dir(_fastparse.TransactionResult) if not n.startswith("_")}
    assert result <= set(dir(reference.TransactionResult))
