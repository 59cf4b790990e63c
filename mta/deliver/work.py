"""A job in the courier's hands: what the queue manager asked for, and what the spool says about it."""

from __future__ import annotations

from mta.model import Envelope, Job, Reader, Ref, Stored, part_members


class Work:
    """One delivery to try.

    `since` is when it began to wait for a connection. `fresh` tells that it is the first transaction of its
    connection, `again` that a connection ended under it once before anything had been said about it.
    `notify` are the bits NOTIFY_... of all recipients together, `traced` is by-trace of RFC 2852.
    """

    __slots__ = ("addresses", "again", "fresh", "job", "members", "notify", "sender", "since", "stored", "traced")

    def __init__(self, job: Job, since: float) -> None:
        self.job = job
        self.since = since
        self.fresh = True
        self.again = False
        self.sender = b""
        self.notify = 0
        self.traced = False
        self.members: tuple[int, ...] = ()  # indexes into the envelope's recipients
        self.addresses: tuple[bytes, ...] = ()  # of the members, in the same order
        self.stored: Stored | None = None

    def open(self, reader: Reader) -> Stored:
        """Read envelope and text; StoreError when they are gone or damaged."""
        stored = reader.read(Ref(self.job.ref))
        if stored.path:
            reader.verify(stored)  # before its first octet is on the wire: later there is no way back
        self.stored = stored
        self._know(stored.envelope, stored.parts)
        return stored

    def address(self, reader: Reader) -> None:
        """Learn who the recipients are, for the log; StoreError when the message is gone."""
        if not self.members:
            stored = reader.read(Ref(self.job.ref))
            self._know(stored.envelope, stored.parts)

    def _know(self, envelope: Envelope, parts: tuple[tuple[int, ...], ...]) -> None:
        recipients = envelope.recipients
        self.sender = envelope.sender
        if envelope.options is not None:
            self.traced = envelope.options.by_trace
        if len(recipients) == 1:
            self.members = (0,)
            self.addresses = (recipients[0].address,)
            self.notify = recipients[0].notify
        else:
            part = self.job.part
            self.members = self.job.pending or (parts[part] if parts else tuple(part_members(recipients, part)))
            self.addresses = tuple([recipients[i].address for i in self.members])
            for i in self.members:
                self.notify |= recipients[i].notify
