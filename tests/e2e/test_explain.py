"""Why mail is where it is, in a sentence and a tree: queued in every way, gone in every way, refused."""

from __future__ import annotations

import json
from pathlib import Path

from tests.kit.server import Server
from tests.kit.sink import Sink, refused_port

TEXT = b"Subject: x\r\n\r\nhello\r\n"
SOON = {"first": "0.2s", "jitter": 0.0, "factor": 1.0, "expiry": "1h"}
LATER = {"first": "1h", "jitter": 0.0, "factor": 2.0, "expiry": "5d"}


def explain(server: Server, *words: str) -> str:
    """What the command prints, without the price of a process each time."""
    code, out, _ = server.inside("queue", "explain", *words)
    assert code == 0
    return out


def tree(text: str) -> dict[str, str]:
    """The branches by label, the last one of a name."""
    branches = [line.strip()[3:] for line in text.splitlines() if line.strip()[:2] in ("├─", "└─")]
    return {label: rest.strip() for label, _, rest in (branch.partition("  ") for branch in branches)}


def routes(sink: Sink, dead: int) -> dict[str, str]:
    return {"held.test": "hold:", "dead.test": f"smtp:127.0.0.1:{dead}", "*": sink.next_hop}


def test_mail_that_waits(tmp_path: Path) -> None:
    busy = {"busy@a.test": ["450 4.7.1 greylisted, come back in an hour"]}
    with Sink(busy) as sink, Server(tmp_path, routes=routes(sink, refused_port()), retry=LATER) as server:
        deferred = server.send("ann@home.test", ["busy@a.test"], TEXT)
        server.send("ann@home.test", ["bob@dead.test"], TEXT)
        held = server.send("", ["joe@held.test"], TEXT)
        server.wait_part(deferred, "deferred")
        server.wait_part(held, "held")

        told = explain(server, deferred)
        assert told.startswith(f"{deferred}  The 1st attempt at smtp:127.0.0.1:")
        assert "ended with: 450 4.7.1 greylisted" in told
        branches = tree(told)
        assert branches["message"].startswith("from <ann@home.test>, here for ")
        assert branches["recipients"] == "<busy@a.test>"
        assert branches["state"] == "deferred, 1 attempt"
        assert branches["last reply"].startswith("450 4.7.1 greylisted")
        assert branches["class"] == "greylist"
        line = server.config.read_text().splitlines()[int(branches["rule"].split(":")[1]) - 1]
        assert (line, branches["rule"].partition(": ")[2]) == ("[[route]]", f"[[route]] *, next_hop = {sink.next_hop}")
        assert branches["site"].startswith("smtp:127.0.0.1:")
        assert "connections" in branches["limits"]
        assert branches["next"].startswith("the next attempt in ")
        assert branches["expiry"].startswith("it goes back to its sender in ")
        assert branches["if released now"].startswith("it would ")
        (attempt,) = [text for text in branches.values() if text.startswith("deferred <busy@a.test> at ")]
        assert "greylisted" in attempt

        branches = tree(explain(server, held))
        assert branches["message"].startswith("from <>")
        assert branches["next"] == "nothing, until somebody releases it"
        assert branches["expiry"].startswith("it is given up, untold in ")
        assert "held again" in branches["if released now"]

        server.wait_for_log("site-down")
        told = explain(server, server.send("ann@home.test", ["bob@dead.test"], TEXT))
        assert "It is ready, but the site is down" in told
        branches = tree(told)
        assert branches["held up"].startswith("the site is down")
        assert branches["ahead"].startswith("0 of its tenant and priority, 0 more urgent")
        assert branches["next"] == "its turn"

        assert explain(server, deferred, held).count("\n") == 2, "of several a sentence each"
        parts = json.loads(explain(server, deferred, "--json"))["parts"]
        assert [one["label"] for one in parts[0]["tree"]][:3] == ["message", "recipients", "state"]


def test_mail_that_is_gone(tmp_path: Path) -> None:
    answers = {"gone@a.test": ["550 5.1.1 no such user"], "slow@a.test": ["450 4.2.0 busy", ""]}
    with Sink(answers) as sink, Server(tmp_path, routes=routes(sink, refused_port()), retry=SOON) as server:
        delivered = server.send("ann@home.test", ["slow@a.test"], TEXT)
        bounced = server.send("", ["gone@a.test"], TEXT)
        deleted = server.send("ann@home.test", ["joe@held.test"], TEXT)
        with server.talk() as talk:
            talk.hello()
            talk.expect("MAIL FROM:<ann@home.test>", "250")
            refused = talk.expect("RCPT TO:<slow@a.test> FOO=BAR", "555")
        server.wait_part(deleted, "held")
        server.ctl("queue", "delete", f"id={deleted}", "--yes")
        sink.wait(1)
        server.wait_empty()

        told = explain(server, delivered)
        assert f"{delivered}  For <slow@a.test> it was delivered to 127.0.0.1[127.0.0.1]:" in told
        assert ", in attempt 2: 250" in told
        branches = tree(told)
        assert branches["message"].startswith("from <ann@home.test>, ")
        assert branches["client"] == "127.0.0.1"
        assert branches["state"] == "delivered <slow@a.test>"
        assert any(text.startswith("deferred <slow@a.test> at ") for text in branches.values())
        told = explain(server, bounced)
        assert "For <gone@a.test> it failed at 127.0.0.1[127.0.0.1]:" in told
        assert "after one attempt, for good: 550 5.1.1 no such user." in told
        assert tree(told)["state"] == "bounced <gone@a.test>, class unknown-user"
        assert "it was taken out of the queue at " in explain(server, deleted)

        session = str(refused).partition("[")[2].partition("]")[0]
        told = explain(server, session)
        assert told.startswith(
            f"{session}  RCPT from <ann@home.test> to <slow@a.test> of 127.0.0.1, who calls himself "
        )
        assert "was refused at " in told
        of_him = explain(server, "slow@a.test").splitlines()
        assert [line.split()[0] for line in of_him] == [delivered, session]
        code, out, errors = server.inside("queue", "explain", "nobody@a.test")
        assert (code, out) == (1, "")
        assert "nothing is known of that" in errors
