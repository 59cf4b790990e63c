"""A job in the courier's hands: what the queue manager asked for, and what the spool says about it."""

from __future__ import annotations

from mta.model import Envelope, Job, Reader, Ref, Stored, part_members


class Work:
    """One delivery to try.

    `since` is when it began to wait for a connection. `fresh` tells that it is the first transaction of its
    connection, `again` that a connection ended under it once before anything had been said about it.
    """

    __slots__ = ("addresses", "again", "fresh", "job", "members", "sender", "since", "stored")

    def __init__(self, job: Job, since: float) -> None:
        self.job = job
        self.since = since
        self.fresh = True
        self.again = False
        self.sender = b""
        self.members: tuple[int, ...] = ()  # indexes into the envelope's recipients
        self.addresses: tuple[bytes, ...] = ()  # of the members, in the same order
        self.stored: Stored | None = None

    def open(self, reader: Reader) -> Stored:
        """Read envelope and text; StoreError when they are gone."""
        stored = self.stored = reader.read(Ref(self.job.ref))
        self._know(stored.envelope)
        return stored

    def address(self, reader: Reader) -> None:
        """Read the envelope alone, for the log; StoreError when it is gone."""
        if not self.members:
            self._know(reader.envelope(Ref(self.job.ref)))

    def _know(self, envelope: Envelope) -> None:
        recipients = envelope.recipients
        self.sender = envelope.sender
        if len(recipients) == 1:
            self.members = (0,)
            self.addresses = (recipients[0].address,)
        else:
            self.members = self.job.pending or tuple(part_members(recipients, self.job.part))
            self.addresses = tuple([recipients[i].address for i in self.members])
