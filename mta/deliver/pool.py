"""The connections to one site, and the jobs that wait for them.

Fewer, hotter connections are better: the envelope of the next message rides on the final dot of the one before, which
saves a round trip and two system calls. So of the connections at hand as many are used as have `_HOT` jobs each to do;
the others join when the oldest job has waited for `_IDLE_PATIENCE`. The first connection is opened at once, another
only when the oldest job has waited for `_PATIENCE` and none is free or on its way; each round opens twice as many as
the one before, up to the site's limit. Until one has succeeded, only one is attempted at a time. Idle ones are used
last in, first out, so that the others run into the idle time-out.

Invariants
- Each job ends in exactly one result, or is put back in front of the queue once: when a connection that had
  served before ended under it, before anything was said about it, or one that cannot do PIPELINING although its host
  offers it.
- What a server said in a transaction in which it broke the protocol fails nobody.
- While jobs wait there is a connection, or an attempt to open one. When every host has failed and no
  connection is left, all that waits is deferred together: a dead site costs one attempt, not one a message.
- There are no more connections than the queue manager gives (`Site.connections`): after a smaller share has come, those
  too many end with the mail that they have in hand.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial

from mta import _fastparse
from mta.deliver.agreement import agree, why
from mta.deliver.connection import Connection
from mta.deliver.desk import Desk
from mta.deliver.fitting import Fitted, Unfitted, fit
from mta.deliver.handover import NO_DELIVERBY
from mta.deliver.manners import Lesson
from mta.deliver.opener import Demand, Opener
from mta.deliver.outcomes import all_delivered, outcomes_of, reply_of, untouched
from mta.deliver.pieces import cut, note, uncut, whole
from mta.deliver.traffic import Tally
from mta.deliver.work import Work
from mta.mail.downgrade import Need
from mta.model import Job, Outcome, Reply, Site, Source, Status, Stored, StoreError
from mta.net.dial import DialFailure

_HOT = 8  # waiting jobs for which one connection is in use
_IDLE_PATIENCE = 0.005  # seconds that the oldest job waits before all idle connections are used
_PATIENCE = 0.020  # seconds that the oldest job waits before another connection is opened for it
_GROWTH_TICK = 0.005
_SLOW_OPENING = 1.0  # a connection on its way for longer than this is not waited for
_MOST_FITTING = 8  # texts that are made fit for a host at once: they may be large
_GROWTH_PAUSE = 5.0  # after a host refused another connection, unless the queue manager knows better
_STOPPING = Reply(0, "4.3.2", "this server is stopping")


class Pool:
    """One SMTP or LMTP site. `demands`: its mail that not every host of it may have, on connections of its own."""

    def __init__(
        self, desk: Desk, site: Site, *, demands: Demand = Demand.NOTHING, lenient: Pool | None = None
    ) -> None:
        self._desk = desk
        self.site = site
        self._demands = demands
        self._strict = Demand.TLS in demands
        self._lenient = lenient  # of a strict one: where notices may go that nobody takes with REQUIRETLS
        self._special: dict[Demand, Pool] = {}  # for the mail of this site that needs it
        self._fitting: set[Work] = set()  # texts that are being made fit
        self._waiting: deque[Work] = deque()
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []
        self._opener = Opener(desk, self, demands=demands, passed_over=self._passed_over)
        self._leaving: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._growth = 1
        self._most = site.connections  # until `_most_until` the hosts have no room for more than so many
        self._most_until = 0.0
        self._tally = Tally(desk.traffic, self)
        self._narrow = _narrow(site)  # connections may not take whatever there is
        self._opening_since = 0.0
        self._ticking = False
        self._stopping = False

    # ---- the sink

    def add(self, jobs: Sequence[Job]) -> None:
        now = self._desk.loop.time()
        self.add_works([Work(job, now) for job in jobs])

    def add_works(self, works: Sequence[Work]) -> None:
        if self._stopping or not self.site.connections:
            for work in works:
                self._desk.report.untried(work)
            return
        if any(work.job.urgent for work in works):
            self._put_first(works)
        else:
            self._waiting.extend(works)
        self._dispatch()

    def update(self, site: Site) -> None:
        self.site = site
        self._most_until = 0.0
        told = any(connection.offer.mails for connection in self._connections)
        self._narrow = _narrow(site) or told or len(self._connections) > site.connections
        for pool in self._special.values():
            pool.update(site)
        while self._idle and len(self._connections) > site.connections:
            self._dismiss(self._idle[0])
        if not site.connections:
            self._give_back()

    @property
    def source(self) -> Source:
        return self._desk.source

    @property
    def apart(self) -> bool:
        """Whether it is one beside the ordinary pool of its site, so that it does not speak for the site."""
        return bool(self._demands)

    @property
    def busy_connections(self) -> int:
        return len(self._connections) - len(self._idle)

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def busy(self) -> Iterator[Job]:
        for connection in self._connections:
            for work in connection.works:
                yield work.job
        for work in (*self._waiting, *self._fitting):
            yield work.job
        for pool in self._special.values():
            yield from pool.busy()

    def sweep(self) -> None:
        for connection in [*self._connections, *self._opener.shaking, *self._leaving]:
            self._desk.tapes.sweep(self.site.name, connection)
            late = connection.overdue()
            if late:
                connection.give_up(Reply(0, "4.4.2", late))
        patience = self._desk.settings.idle_timeout
        for connection in list(self._idle):
            if self._desk.clock.since(connection.active) >= patience:
                self._dismiss(connection)
        for demands, pool in [*self._special.items()]:
            pool.sweep()
            if pool.unused:
                del self._special[demands]

    @property
    def unused(self) -> bool:
        mine = self._connections or self._opener.shaking or self._leaving or self._opening
        return not (self._waiting or self._fitting or mine or self._special)

    def stop(self) -> None:
        self._stopping = True
        for pool in self._special.values():
            pool.stop()
        self._give_back()
        for task in self._opening:
            task.cancel()
        for connection in list(self._idle):
            self._dismiss(connection)

    def abandon(self) -> None:
        for connection in [*self._connections, *self._opener.shaking, *self._leaving]:
            connection.give_up(_STOPPING)
        for pool in self._special.values():
            pool.abandon()

    def _give_back(self) -> None:
        """What waits, untried; what some recipients have got already is no more to be tried by others."""
        for work in (*self._waiting, *self._fitting):
            if work.pieces is None:
                self._desk.report.untried(work)
            else:
                self._settled(work, [Outcome(Status.DEFERRED, _STOPPING)])
        self._waiting.clear()
        self._fitting.clear()

    # ---- what connections ask and tell

    def take(self, connection: Connection) -> Work | None:
        if self._narrow and self._has_had_enough(connection):
            return None
        while self._waiting:
            work = self._waiting.popleft()
            try:
                stored = work.open(self._desk.reader)
            except StoreError as error:
                reply = Reply(0, "4.3.0", f"the message cannot be read from the spool: {error}")
                self._desk.report.settled(work, [Outcome(Status.DEFERRED, reply)])
            else:
                if work.several:
                    cut(work, _least(self.site.recipients_per_message, connection.offer.recipients))
                ordinary = stored.size <= connection.ceiling and not work.special
                if ordinary or self._agrees(work, connection):
                    connection.given += 1
                    self._tally.begin()
                    return work
                if len(self._fitting) >= _MOST_FITTING:
                    return None
        return None

    def _put_first(self, works: Sequence[Work]) -> None:
        """Urgent ones go before all that are not, in the order in which they came."""
        waiting = self._waiting
        waiting.extend(work for work in works if not work.job.urgent)
        place = next((n for n, work in enumerate(waiting) if not work.job.urgent), len(waiting))
        for n, work in enumerate(work for work in works if work.job.urgent):
            waiting.insert(place + n, work)

    def _has_had_enough(self, connection: Connection) -> bool:
        """Whether it is to be closed: it has carried its mail, or is one too many."""
        most = _least(self.site.messages_per_connection, connection.offer.mails)
        return bool(most and connection.given >= most) or len(self._connections) > self.site.connections

    def _agrees(self, work: Work, connection: Connection) -> bool:
        """Whether the connection may have the work now; if not, it is elsewhere, or settled."""
        stored = work.stored
        assert stored is not None
        options = stored.envelope.options
        final = self.site.kind == "lmtp"
        if options is not None and options.require_tls and not (self._strict or final or work.unguarded):
            self._divert(work, Demand.TLS)
            return False
        chunking = self._desk.settings.chunking
        now_ms, hop = int(time.time() * 1000), connection.hop
        agreed = agree(work, connection.offer, now_ms, hop=hop, chunking=chunking, final=final)
        if agreed is None:
            return True
        if isinstance(agreed, Need):
            self._make_fit(work, stored, agreed, connection.hop)
        elif agreed is NO_DELIVERBY and len(self.site.hops) > 1:
            self._divert(work, Demand.TIME)  # another host of the site may do better
        else:
            self._settled(work, [Outcome(Status.FAILED, agreed, connection.hop)], tls=connection.tls)
        return False

    def _divert(self, work: Work, demand: Demand) -> None:
        """To hosts that can do it (RFC 8689 §4.2.1, RFC 2852 §4.1.4.1)."""
        demands = self._demands | demand
        if demands not in self._special:
            lenient = self if demand is Demand.TLS else self._lenient
            self._special[demands] = Pool(self._desk, self.site, demands=demands, lenient=lenient)
        work.stored = None
        self._special[demands].add_works([work])

    def _make_fit(self, work: Work, stored: Stored, need: Need, hop: str) -> None:
        self._fitting.add(work)
        made = self._desk.loop.run_in_executor(None, fit, stored, need, self._desk.scratch, why(need))
        made.add_done_callback(partial(self._made_fit, work, hop))

    def _made_fit(self, work: Work, hop: str, made: asyncio.Future[Fitted | Unfitted]) -> None:
        if work not in self._fitting:  # it was given back meanwhile
            return
        self._fitting.discard(work)
        error = made.exception()
        result = (
            Unfitted(Reply(0, "4.3.0", f"the text cannot be converted: {error!r}"), False) if error else made.result()
        )
        if isinstance(result, Unfitted):
            status = Status.FAILED if result.permanent else Status.DEFERRED
            self._settled(work, [Outcome(status, result.reply, hop)])
            self._desk.loop.call_soon(self._dispatch)
        else:
            work.fitted = result
            work.stored = None
            self._waiting.appendleft(work)
            self._dispatch()
        if error is not None:
            self._desk.report.count("internal_errors")
            raise error  # a bug of ours shows as an unhandled error of the loop

    def rests(self, connection: Connection) -> None:
        if self._stopping or (self._narrow and self._has_had_enough(connection)):
            self._dismiss(connection)
        else:
            self._idle.append(connection)

    def settle(self, connection: Connection, work: Work, result: _fastparse.TransactionResult) -> None:
        report = self._desk.report
        untimed = bool(work.timed) and connection.offer.deliver_by is None and time.time() * 1000 < work.timed
        if work.pieces is not None:
            self._settle_piece(connection, work, result, untimed=untimed)
        elif all_delivered(result):
            self._tally.took()
            code, text = result.finals[0] or (0, "")
            said, handed_on = f"{code} {text}", connection.offer.dsn
            report.delivered(work, connection.hop, said, tls=connection.tls, dsn_handed_on=handed_on, untimed=untimed)
            if self._desk.tapes.successes:
                self._desk.tapes.delivered(self.site.name, connection, work)
        elif untouched(result) and self._stopping:
            report.untried(work)
        elif not work.again and self._deserves_another(connection, work, result):
            work.again = True
            work.words = None
            work.restore()
            self._waiting.appendleft(work)
            # Not from within: the other works of this connection are still to be settled.
            self._desk.loop.call_soon(self._dispatch)
        elif _void(connection, result):
            self._desk.tapes.failed(self.site.name, connection, work)
            report.settled(work, [Outcome(Status.DEFERRED, connection.ended, connection.hop)], tls=connection.tls)
        else:
            self._tally.heard()
            handed_on = connection.offer.dsn
            outcomes = outcomes_of(
                result, work.members, connection.hop, connection.ended, dsn_handed_on=handed_on, untimed=untimed
            )
            report.settled(work, outcomes, tls=connection.tls)
            self._desk.tapes.failed(self.site.name, connection, work)

    def _settle_piece(
        self, connection: Connection, work: Work, result: _fastparse.TransactionResult, *, untimed: bool
    ) -> None:
        """A transaction for some of the recipients is over: the next ones, or the result of all."""
        if all_delivered(result):
            self._tally.took()
            text = reply_of(*(result.finals[0] or (0, "")))
            handed_on = connection.offer.dsn
            outcomes: Sequence[Outcome] = [
                Outcome(Status.DELIVERED, text, connection.hop, dsn_handed_on=handed_on, untimed=untimed)
            ]
        elif untouched(result) or _void(connection, result):
            uncut(work)
            last = Outcome(Status.DEFERRED, connection.ended, connection.hop)
            self._desk.report.settled(work, whole(work, last), tls=connection.tls)
            return
        else:
            self._tally.heard()
            handed_on = connection.offer.dsn
            outcomes = outcomes_of(
                result, work.members, connection.hop, connection.ended, dsn_handed_on=handed_on, untimed=untimed
            )
        if note(work, work.whole(outcomes)):
            self._waiting.appendleft(work)
            self._desk.loop.call_soon(self._dispatch)
        else:
            self._desk.report.settled(work, whole(work), tls=connection.tls)

    def _settled(self, work: Work, outcomes: list[Outcome], *, tls: str = "") -> None:
        """What becomes of a work, and of what is left of one in pieces, without a transaction."""
        if work.pieces is not None:
            uncut(work)
            outcomes = whole(work, outcomes[0])
        self._desk.report.settled(work, outcomes, tls=tls)

    def _deserves_another(self, connection: Connection, work: Work, result: _fastparse.TransactionResult) -> bool:
        """Whether the connection is to be blamed, not the mail, so that another one may be asked at once."""
        if not (untouched(result) or _void(connection, result)):
            return False
        if connection.chokes and (work.fresh or result.mail is not None):
            self._desk.learn(connection.hop, Lesson.PIPELINING, str(connection.ended))
            return True
        # One that is ended at its first mail, while others live, was one too many.
        return not work.fresh or (connection.ended.code == 421 and bool(self._connections))

    def closed(self, connection: Connection) -> None:
        self._desk.tapes.closed(self.site.name, connection)
        self._opener.shaking.discard(connection)
        if connection in self._leaving:
            self._leaving.discard(connection)
            self._tally.mark()
            self._replace()
        if connection in self._connections:
            self._connections.discard(connection)
            self._tally.mark()
            if connection.works and not self._stopping:
                self._broke(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting:
            self._desk.loop.call_soon(self._dispatch)

    def _broke(self, connection: Connection) -> None:
        """A connection has ended under its mail."""
        alive = len(self._connections)
        if connection.ended.code == 421:
            self._no_more_than(alive)
            self._tally.trouble("refused", connection.ended, connection.hop, alive)
        else:
            self._tally.trouble("cut", connection.ended, connection.hop, alive)

    # ---- inside

    def _dispatch(self) -> None:
        while self._waiting and self._idle and self._in_use * _HOT < len(self._waiting):
            self._idle.pop().feed()
        if not self._waiting or self._stopping:
            return
        if not self._connections and not self._opening:
            self._growth = 1
            self._open(1)
        if not self._ticking:
            self._ticking = True
            self._desk.loop.call_later(_GROWTH_TICK, self._tick)

    @property
    def _in_use(self) -> int:
        return len(self._connections) - len(self._idle)

    def _tick(self) -> None:
        """Use more connections, and make more, while jobs wait too long. Runs only as long as something waits."""
        self._ticking = False
        now = self._desk.loop.time()
        while self._waiting and self._idle and now - self._waiting[0].since >= _IDLE_PATIENCE:
            self._idle.pop().feed()
        if not self._waiting or self._stopping:
            self._growth = 1
            return
        self._ticking = True
        self._desk.loop.call_later(_GROWTH_TICK, self._tick)
        if self._may_grow(now):
            most = self.site.connections
            self._tally.limited = self._tally.limited or len(self._connections) >= most
            if now < self._most_until:
                most = min(most, self._most)
            room = most - len(self._connections) - len(self._opening) - len(self._leaving)
            self._open(min(self._growth, room, len(self._waiting)))
            self._growth *= 2

    def _no_more_than(self, connections: int) -> None:
        """So many are what the hosts have room for."""
        self._growth = 1
        self._most = max(1, connections)
        self._most_until = self._desk.loop.time() + _GROWTH_PAUSE

    def _replace(self) -> None:
        """A connection that has carried its mail is gone: the next one takes its place."""
        taken = len(self._connections) + len(self._opening) + len(self._leaving)
        if self._waiting and not self._stopping and taken < self.site.connections:
            self._open(1)

    def _may_grow(self, now: float) -> bool:
        if not self._connections:
            return False
        if self._opening and now - self._opening_since < _SLOW_OPENING:
            return False
        return now - self._waiting[0].since >= _PATIENCE

    def _dismiss(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._leaving.add(connection)
        connection.leave()

    def _open(self, count: int) -> None:
        self._opening_since = self._desk.loop.time()
        for _ in range(count):
            task = self._desk.loop.create_task(self._open_one())
            self._opening.add(task)
            task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if not task.cancelled():
            task.result()  # a bug of ours shows as an unhandled error of the loop
        self._dispatch()

    async def _open_one(self) -> None:
        opened = await self._opener.open(self.site)
        if isinstance(opened, Connection):
            self._welcome(opened)
        else:
            self._all_failed(opened)

    def _welcome(self, connection: Connection) -> None:
        self._connections.add(connection)
        if len(self._connections) > self.site.connections or connection.offer.mails:
            self._narrow = True  # the share became smaller meanwhile, or the host says how much it takes
        connection.feed()

    @property
    def _alive(self) -> int:
        """Connections that live, or may yet, while one that is being opened finds no room: each of them will tell."""
        return len(self._connections) + len(self._opening) - 1

    def _passed_over(self, failure: DialFailure) -> None:
        """A host would not have another connection, and the next one had to be asked."""
        alive = self._alive
        if self._connections and failure.reply.code:
            self._tally.trouble("refused", failure.reply, failure.hop, alive)

    def _all_failed(self, failures: Sequence[DialFailure]) -> None:
        """No host will have us. While another connection lives, that is only a reason not to grow."""
        temporary = [f for f in failures if not f.permanent]
        last = (temporary or failures or [_NO_HOST])[-1]
        if self._connections or len(self._opening) > 1:
            alive = self._alive
            self._no_more_than(alive)
            if self._connections and temporary:
                self._tally.trouble("refused", last.reply, last.hop, alive)
            return
        self._growth = 1
        if temporary and not self._demands:
            self._tally.trouble("unreachable", last.reply, last.hop, 0)
        status = Status.DEFERRED if temporary else Status.FAILED
        outcome = Outcome(status, last.reply, last.hop)
        while self._waiting:
            work = self._waiting.popleft()
            if status is Status.FAILED and self._lenient is not None and not work.sender:
                work.unguarded = True  # RFC 8689 §5: a notice must not be lost for want of REQUIRETLS
                self._lenient.add_works([work])
            else:
                self._settled(work, [outcome])


def _narrow(site: Site) -> bool:
    """Whether its mail is measured out to connections."""
    return bool(site.messages_per_connection)


def _least(ours: int, theirs: int) -> int:
    """Of two limits, 0 being none."""
    return min(ours, theirs) if ours and theirs else ours or theirs


def _void(connection: Connection, result: _fastparse.TransactionResult) -> bool:
    """Whether the replies of a transaction may belong to other commands than they seem to: nothing follows from them.

    Behind the 354 they are in step again.
    """
    return connection.broken and not result.finals


_NO_HOST = DialFailure(Reply(0, "5.4.4", "the site has no host"), True, "")
