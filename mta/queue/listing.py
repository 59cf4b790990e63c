"""Rows of `mta queue list`: a delivery as operators see it, from its entry in the index and its envelope.

Made for a million of them: texts that many share are escaped once. Everything is printable.
"""

from __future__ import annotations

from mta.model import Glance, id_text, id_time_ms
from mta.observe.maillog import printable
from mta.queue import _arena
from mta.queue._arena import Query
from mta.queue.choice import Entry, left
from mta.queue.filter import AMBIGUOUS, STATE_NAMES
from mta.queue.manager import QueueManager

ANY = Query([("all",)], 0.0, 0.0, 0.0)
_MOST_KEPT = 100_000  # texts

Row = dict[str, object]


class Rows:
    """Those of one answer; `age` is as of its beginning."""

    def __init__(self, manager: QueueManager) -> None:
        self._manager = manager
        self._now = manager.clock()
        self._sites: dict[int, str] = {}
        self._reasons: dict[int, str] = {}
        self._domains: dict[int, str] = {}

    def row(self, entry: Entry, glance: Glance | None) -> Row:
        """Without a glance, for a damaged record, what the index knows."""
        manager = self._manager
        slot, message_id, _, domain, _, state, attempts, due, why, _, site, _ = entry
        reason = self._reasons.get(why)
        if reason is None:
            reason = self._kept(self._reasons, why, manager.reasons.text(why))
        site_name = self._sites.get(site)
        if site_name is None:
            site_name = self._kept(self._sites, site, manager.site_name(site))
        domain_name = self._domains.get(domain)
        if domain_name is None:
            domain_name = self._kept(self._domains, domain, manager.domains[domain])
        sender, size, recipients = "?", 0, []
        if glance is not None:
            envelope = glance.envelope
            sender, size = printable(envelope.sender), glance.size
            if len(envelope.recipients) == 1:
                recipients = [printable(envelope.recipients[0].address)]
            else:
                recipients = [printable(envelope.recipients[i].address) for i in left(manager, entry, envelope)]
        return {
            "id": id_text(message_id),
            "state": AMBIGUOUS if slot in manager.extras.ambiguous else STATE_NAMES[state],
            "sender": sender,
            "recipients": recipients,
            "size": size,
            "age": round(self._now - id_time_ms(message_id) / 1000, 3),  # type: ignore[arg-type]
            "attempts": attempts,
            "next": round(manager.seconds(due), 3) if state == _arena.DEFERRED else None,
            "domain": domain_name,
            "site": site_name,
            "reason": reason,
        }

    def _kept(self, texts: dict[int, str], number: int, text: str | bytes) -> str:
        if len(texts) > _MOST_KEPT:
            texts.clear()
        found = texts[number] = printable(text)
        return found
