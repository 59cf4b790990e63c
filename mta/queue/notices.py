"""Notices to senders: composed, stored, and the delivery goes on or ends.

One notice for each message and attempt, about all recipients of which its sender wants to hear (`mta.queue.fates`).

Mail without a sender that fails is told to nobody, or to `[notices] postmaster`, whose own notices end there: there is
at most one notice about a notice.

Invariants
- INVARIANT: the change that finishes failed recipients is recorded only after the notice about them is durable; that
  a sender was told of a delay, likewise.
- A success waits for nothing: its notice is appended to the log before the change that finishes the delivery, so that
  a crash keeps both or none. The mail itself is never sent again for the sake of a notice.

Failure: where the disk takes no notice, failed recipients wait, and the rest is not told, which the mail log says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from mta.config.settings import Notices
from mta.mail.dsn import Fate, Original, compose
from mta.mail.replyclass import classify
from mta.mail.trace import date_text
from mta.model import (
    NOTIFY_NEVER,
    TOLD_DELAY,
    TOLD_LATE,
    Arrival,
    Arrivals,
    Draft,
    Envelope,
    IdSource,
    MessageId,
    Options,
    Recipient,
    Ref,
    Reply,
    Stored,
    StoreError,
    id_text,
)
from mta.observe.counters import INDEX
from mta.observe.maillog import printable, quoted
from mta.queue.fates import Telling, Warn, choose, delayed
from mta.queue.imports import Imported
from mta.queue.manager import QueueManager
from mta.queue.outcome import Group, Verdict

_AGAIN = 1.0  # seconds before a notice that could not be stored is put again
_LATER = 60.0  # seconds before a delivery whose notice found no room at all is looked at again
_BEGINNING = 64 << 10  # octets of a text that are read for its headers
_PLAIN = Options()
_UNHEARD = Group((), Reply(250, "2.0.0", "taken, says the note of a process that died"))
_NO_ROOM = "none (no room for it)"


@dataclass(frozen=True, slots=True)
class _Notice:
    """A notice on its way to the disk, and the delivery that it is about.

    With a `verdict` the delivery waits, idle, until the notice is there; `late` is told then. Others do not wait.
    """

    draft: Draft
    slot: int
    original: int
    part: int
    verdict: Verdict | None = None
    failed: frozenset[int] = frozenset()
    late: bool = False


class Notifier:
    """Composes and stores notices; see mta.queue.manager.Teller. `committed` is the store's callback."""

    def __init__(self, settings: Notices, hostname: str, log: int, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._hostname = hostname
        self._log = log
        self._loop = loop
        self._ids = IdSource(log)
        self._manager: QueueManager | None = None

    def attach(self, manager: QueueManager, floor: int) -> None:
        self._manager = manager
        self._ids = IdSource(self._log, floor)

    def new_id(self) -> MessageId:
        """For what else is put into the same log."""
        assert self._manager is not None
        return self._ids.next(int(self._manager.clock() * 1000))

    # ---- what the queue manager asks for

    def settled(self, manager: QueueManager, slot: int, verdict: Verdict) -> None:
        """An attempt ended, or its time: the delivery in this slot is idle."""
        try:
            stored = manager.store.read(Ref(manager.arena.ref(slot)))
        except StoreError as error:
            self._unreadable(manager, slot, verdict, error)
            return
        kind = manager.sites.by_number[manager.arena.site(slot)].site.kind
        until = manager.wishes.ends(slot) if verdict.warn else 0.0
        telling = choose(stored.envelope, verdict, manager.left(slot), kind=kind, until=until, warn=self._settings.warn)
        postmaster = self._told_in_place(stored.envelope, telling)
        if postmaster:
            telling = replace(telling, told=telling.untold, untold=())
        if manager.suppression is not None:
            manager.suppression.learn(stored.id, stored.envelope, (*telling.told, *telling.untold))
        must_tell = any(fate.action == "failed" for fate in telling.told)
        if must_tell and (refusing := manager.store.refusing) is not None:
            self._put_off(manager, slot, verdict, str(refusing))
            return
        self._note(manager, slot, telling.untold, "none (not wanted)" if stored.envelope.sender else _NULL)
        draft = self._announced(manager, slot, stored, telling.told, postmaster)
        if draft is None:
            self._go_on(manager, slot, verdict, telling.failed, warned=verdict.warn and not telling.told)
        elif must_tell or verdict.warn:
            self._put(self._notice(manager, slot, draft, verdict=verdict, failed=telling.failed))
        else:
            self._put(self._notice(manager, slot, draft))
            self._go_on(manager, slot, verdict, telling.failed)

    def late(self, manager: QueueManager, slot: int, deliver_by: int) -> None:
        """The time that the sender had set is past (RFC 2852, by-mode N); the delivery stays where it is."""
        try:
            stored = manager.store.read(Ref(manager.arena.ref(slot)))
        except StoreError:
            return  # its next attempt will find that out
        why = f"not delivered by {date_text(deliver_by)}, the time that its sender had set"
        manager.arena.mark(slot, TOLD_LATE)
        self._tell_waiting(manager, slot, stored, why, "all")

    def waits(self, manager: QueueManager, slot: int) -> None:
        """It takes long, and there was no attempt that would have found that out; the delivery stays where it is."""
        manager.arena.mark(slot, TOLD_DELAY)
        try:
            stored = manager.store.read(Ref(manager.arena.ref(slot)))
        except StoreError:
            return  # its next attempt will find that out
        self._tell_waiting(manager, slot, stored, "it waits for its turn", self._settings.warn)

    def _tell_waiting(self, manager: QueueManager, slot: int, stored: Stored, why: str, warn: Warn) -> None:
        last = manager.regulator.why(slot) or manager.reasons.text(manager.arena.why(slot)) or "it was not tried yet"
        group = Group((), Reply(0, "4.4.7", f"{why}; the last answer was: {last}"))
        fates = delayed(stored.envelope, group, manager.left(slot), manager.wishes.ends(slot), warn)
        if draft := self._announced(manager, slot, stored, fates):
            self._put(self._notice(manager, slot, draft, late=True))

    def unheard(self, manager: QueueManager, slot: int) -> None:
        """A delivery was taken, and the courier that heard it is dead: whether the next host tells is not known."""
        try:
            stored = manager.store.read(Ref(manager.arena.ref(slot)))
        except StoreError:
            return
        kind = manager.sites.by_number[manager.arena.site(slot)].site.kind
        verdict = Verdict(successes=(_UNHEARD,))
        telling = choose(stored.envelope, verdict, manager.left(slot), kind=kind, until=0.0, warn="asked")
        if draft := self._announced(manager, slot, stored, telling.told):
            self._put(self._notice(manager, slot, draft))

    def committed(self, tokens: Sequence[object], arrivals: Sequence[Arrival], error: StoreError | None) -> None:
        """Notices are on disk, or failed to get there: then they are put again."""
        manager = self._manager
        assert manager is not None
        for token in tokens:
            if isinstance(token, Imported):
                token.told(error)
                continue
            assert isinstance(token, _Notice)
            if error is not None:
                self._loop.call_later(_AGAIN, self._put, token)
            else:
                self._told(manager, token)
        if arrivals:
            manager.admission.arrived(Arrivals(self._log, tuple(arrivals)))
            for token in tokens:
                if isinstance(token, Imported):
                    token.arrived(manager)
            manager.dispatch()

    # ---- inside

    def _told(self, manager: QueueManager, notice: _Notice) -> None:
        """A notice is on disk: now what it says may be recorded, unless an operator deleted the mail meanwhile."""
        if not manager.arena.holds(notice.slot, notice.original, notice.part):
            return
        if notice.late:
            manager.wishes.told_late(notice.slot)
        elif notice.verdict is not None:
            self._go_on(manager, notice.slot, notice.verdict, notice.failed, warned=notice.verdict.warn)

    def _notice(
        self,
        manager: QueueManager,
        slot: int,
        draft: Draft,
        *,
        verdict: Verdict | None = None,
        failed: frozenset[int] = frozenset(),
        late: bool = False,
    ) -> _Notice:
        return _Notice(draft, slot, manager.arena.id(slot), manager.arena.part(slot), verdict, failed, late)

    def _told_in_place(self, envelope: Envelope, telling: Telling) -> str:
        """The postmaster, where mail without a sender failed and he wants to hear of it; never of what is his own."""
        settings = self._settings
        if envelope.sender or not settings.postmaster or not telling.untold:
            return ""
        if any(recipient.address == settings.postmaster.encode() for recipient in envelope.recipients):
            return ""
        only = settings.double_bounces
        heard = not only or any(classify(fate.reply).value in only for fate in telling.untold)
        return settings.postmaster if heard else ""

    def _announced(
        self, manager: QueueManager, slot: int, stored: Stored, fates: Sequence[Fate], postmaster: str = ""
    ) -> Draft | None:
        """A notice, noted in the log; None where there is nothing to tell, or no room for it, which is noted too."""
        if not fates:
            return None
        draft = self._draft(stored, fates, manager.clock(), postmaster) if manager.store.refusing is None else None
        self._note(manager, slot, fates, _NO_ROOM if draft is None else id_text(draft.id))
        return draft

    def _draft(self, stored: Stored, fates: Sequence[Fate], now: float, postmaster: str = "") -> Draft:
        notice_id = self._ids.next(int(now * 1000))
        sender, options = stored.envelope.sender, stored.envelope.options or _PLAIN
        original = self._original(stored, failed=any(fate.action == "failed" for fate in fates))
        text = compose(
            hostname=self._hostname,
            notice_id=notice_id,
            original=original,
            fates=fates,
            now=int(now),
            wording=self._settings.wording,
            language=self._settings.language,
            postmaster=postmaster,
        )
        sender = postmaster.encode() or sender
        envelope = Envelope(
            sender=b"",
            recipients=(Recipient(sender, NOTIFY_NEVER),),  # RFC 3461 §6
            eight_bit=not text.isascii(),
            options=_options_of_notice(sender, options),
        )
        return Draft(notice_id, envelope, b"", text)

    def _original(self, stored: Stored, *, failed: bool) -> Original:
        options = stored.envelope.options or _PLAIN
        # RFC 3461 §4.3: only of what failed. RFC 8689 §5: not of what needs TLS. RFC 3030: a report cannot hold a text
        # without lines.
        whole = failed and options.ret == "FULL" and not options.require_tls and not options.binary
        whole = whole and stored.size <= self._settings.return_size
        text = stored.content + _more(stored, stored.size if whole else _BEGINNING)
        return Original(
            id=stored.id,
            sender=stored.envelope.sender,
            text=text,
            whole=whole and len(text) == stored.size,
            utf8=options.utf8,
            envid=options.envid,
            deliver_by=options.deliver_by // 1000,
            hold=options.hold,
        )

    def _put_off(self, manager: QueueManager, slot: int, verdict: Verdict, why: str) -> None:
        """No room for a notice about what failed: the delivery is looked at again later."""
        if verdict.delivered:
            manager.note_done(slot, verdict.delivered)
        manager.arena.set_why(slot, manager.reasons.number(f"its notice cannot be stored: {why}"))
        due = manager.clock() + _LATER
        manager.arena.schedule(slot, manager.tick(due))
        manager.settling.record(manager.change(slot, "waiting", due))

    def _go_on(
        self, manager: QueueManager, slot: int, verdict: Verdict, failed: Set[int], *, warned: bool = False
    ) -> None:
        """What becomes of the delivery once what there is to tell is told."""
        left = set(manager.left(slot)) - failed - set(verdict.delivered)
        if verdict.deferred and left:
            if failed:
                manager.note_done(slot, failed)
            if verdict.back:
                manager.settling.record(manager.by_hand.put_back(slot, verdict.back))
                return
            if warned:
                manager.arena.mark(slot, TOLD_DELAY)
            change = manager.settling.defer(slot, verdict, manager.clock())
        elif verdict.untried and left:
            manager.note_done(slot, failed | set(verdict.delivered))
            manager.settling.again(slot)
            return
        else:
            change = manager.finish(slot)
        manager.settling.record(change)

    def _put(self, notice: _Notice) -> None:
        manager = self._manager
        assert manager is not None
        try:
            manager.store.put(notice.draft, notice)
        except StoreError:
            self._loop.call_later(_AGAIN, self._put, notice)

    def _note(self, manager: QueueManager, slot: int, fates: Sequence[Fate], notice: str) -> None:
        for fate in fates:
            event = "bounced" if fate.action == "failed" else "notified"
            action = "" if fate.action == "failed" else f" action={fate.action}"
            told = f"notice={notice} class={classify(fate.reply)} reason={quoted(str(fate.reply))}"
            manager.log(slot, event, f"to=<{printable(fate.address)}>{action} {told}")
        if fates and " " not in notice:
            kinds = {_COUNTERS[fate.action] for fate in fates}
            for counter in kinds:
                manager.counters[counter] += 1

    def _unreadable(self, manager: QueueManager, slot: int, verdict: Verdict, error: StoreError) -> None:
        """The message cannot be read: what is left of it stays in the queue, held, for a person to look at."""
        manager.log(slot, "unreadable", f"reason={quoted(str(error))}")
        if not verdict.failures and not verdict.deferred:
            manager.settling.record(manager.finish(slot))  # all have it
            return
        manager.arena.set_why(slot, manager.reasons.number(f"its record cannot be read: {error}"))
        manager.settling.record(manager.by_hand.hold_idle(slot))


def _options_of_notice(sender: bytes, original: Options) -> Options | None:
    """It is protected as its original was (RFC 8689 §5), as urgent (RFC 6710 §4.6), and on the same account."""
    made = Options(
        utf8=not sender.isascii(),
        require_tls=original.require_tls,
        priority=original.priority,
        tenant=original.tenant,
        rank=original.rank,
    )
    return None if made == Options() else made


_NULL = "none (null reverse-path)"
_COUNTERS = {
    "failed": INDEX["bounces_made"],
    "delayed": INDEX["delays_told"],
    "delivered": INDEX["successes_told"],
    "relayed": INDEX["successes_told"],
}


def _more(stored: Stored, most: int) -> bytes:
    """What follows of a text whose body lies in a file of its own; less, or nothing, where it cannot be read."""
    if not stored.path:
        return b""
    try:
        with open(stored.path, "rb") as file:
            file.seek(stored.offset)
            return file.read(most)
    except OSError:
        return b""
