"""[spool] min_free: below so much free disk new mail is answered 452 at MAIL."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.server import Server


@pytest.mark.parametrize("size", ["900T", "1000T"])
def test_mail_is_for_later(tmp_path: Path, size: str) -> None:
    with Server(tmp_path, spool={"min_free": size}) as server, server.talk() as talk:
        talk.hello()
        talk.expect("MAIL FROM:<a@x.test>", "452 4.3.1")
        talk.expect("NOOP", "250")
        talk.expect("QUIT", "221")
