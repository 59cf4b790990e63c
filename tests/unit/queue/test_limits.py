"""How many connections and messages a site is given, and why no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mta.config.settings import NO_RATE, CoolDown, Rate
from mta.model import Reply
from mta.queue.concurrency import Concurrency
from mta.queue.learned import Learned
from mta.queue.limits import NEVER, SiteLimits
from mta.queue.pace import Pace
from mta.queue.shapes import Shaping

STEP = 0.25
TOO_FAST = Reply(421, "4.7.28", "unusual rate of mail")


class Sink:
    """A site with room for so many connections, each of which takes `seconds` a message."""

    def __init__(self, room: int, seconds: float = 0.05) -> None:
        self.room = room
        self.seconds = seconds
        self.taken = 0.0
        self.turned_away = 0

    def run(self, concurrency: Concurrency, begin: float, seconds: float) -> list[int]:
        """As couriers would tell of it; the limits from step to step."""
        limits: list[int] = []
        for step in range(int(seconds / STEP)):
            now = begin + step * STEP
            want = concurrency.limit
            if want > self.room:
                self.turned_away += want - self.room
                for _ in range(want - self.room):
                    concurrency.refused(now, self.room, "421 too many")
            busy = min(want, self.room)
            before = int(self.taken)
            self.taken += busy * STEP / self.seconds
            concurrency.worked(now, int(self.taken) - before, STEP, busy, limited=True)
            limits.append(concurrency.limit)
        return limits


def test_a_site_without_trouble_is_at_its_ceiling_within_two_seconds() -> None:
    concurrency = Concurrency(1, 20, 5)
    assert Sink(1000).run(concurrency, 0.0, 2.0)[-1] == 20


def test_more_is_given_only_where_the_limit_keeps_mail_waiting() -> None:
    concurrency = Concurrency(1, 20, 5)
    for step in range(100):
        concurrency.worked(step * STEP, 10, STEP, 2, limited=False)
    assert concurrency.limit == 5


def test_couriers_that_tell_in_turn_are_not_taken_for_a_slow_one() -> None:
    """Each has one connection, and a delivery of half a second: every second time none of its own is through."""
    concurrency = Concurrency(1, 2, 2)
    for step in range(400):
        for courier in (1, 2):
            answered = (step + courier) % 2
            concurrency.worked(step * STEP, answered, STEP, 1, limited=True, courier=courier)
    assert concurrency.limit == 2
    assert concurrency.service == pytest.approx(2 * STEP, rel=0.1)


def test_the_first_delivery_is_not_slow_for_being_the_first() -> None:
    """What is told before it is through says nothing of what is usual."""
    concurrency = Concurrency(1, 2, 2)
    concurrency.worked(0.07, 0, 0.07, 2, limited=False)
    for step in range(1, 40):
        concurrency.worked(step * STEP, 2 if step % 3 == 0 else 0, STEP, 2, limited=True)
    assert concurrency.limit == 2
    assert concurrency.usual == pytest.approx(3 * STEP, rel=0.2)


def test_what_comes_one_at_a_time_is_not_infinitely_fast() -> None:
    """Told of when it is through, a delivery has nothing on the wire; that went on until the time was a denormal 0."""
    concurrency = Concurrency(1, 2, 2)
    concurrency.worked(0.0, 1, STEP, 1, limited=False)
    for step in range(1, 5000):
        concurrency.worked(step * STEP, 1, STEP, 0, limited=False)
    assert concurrency.service == STEP


def test_a_site_with_room_for_eight_is_held_at_eight() -> None:
    concurrency, sink = Concurrency(1, 20, 5), Sink(8)
    limits = sink.run(concurrency, 0.0, 600.0)
    assert all(7 <= limit <= 9 for limit in limits[int(2 / STEP) :])
    possible = 8 * 600 / sink.seconds
    assert sink.taken >= 0.99 * possible
    assert sink.turned_away <= 0.001 * sink.taken
    later = sink.turned_away
    sink.run(concurrency, 600.0, 3600.0)
    assert sink.turned_away - later <= 7  # ever more rarely, at last each ten minutes


def test_what_has_more_room_later_is_given_more() -> None:
    concurrency, sink = Concurrency(1, 20, 5), Sink(8)
    sink.run(concurrency, 0.0, 60.0)
    sink.room = 1000
    assert sink.run(concurrency, 60.0, 120.0)[-1] == 20


def test_what_has_less_room_is_followed_at_once() -> None:
    concurrency, sink = Concurrency(1, 20, 5), Sink(8)
    sink.run(concurrency, 0.0, 60.0)
    sink.room = 3
    assert sink.run(concurrency, 60.0, 2.0)[-1] == 3


def test_troubles_of_one_moment_count_once() -> None:
    concurrency = Concurrency(1, 20, 16)
    for _ in range(16):
        concurrency.pushed_back(1.0, "connection lost")
    assert concurrency.limit == 8
    concurrency.pushed_back(3.0, "connection lost")
    assert concurrency.limit == 4
    for when in range(10, 100, 2):
        concurrency.pushed_back(float(when), "connection lost")
    assert concurrency.limit == 1


def test_the_floor_holds() -> None:
    concurrency = Concurrency(3, 20, 16)
    for when in range(10):
        concurrency.pushed_back(10.0 * when, "connection lost")
        concurrency.refused(10.0 * when + 5, 0, "421")
    assert concurrency.limit == 3


def test_after_half_it_grows_by_one_a_round() -> None:
    concurrency = Concurrency(1, 20, 16)
    concurrency.pushed_back(0.0, "lost")
    limits = [concurrency.limit]
    for step in range(12, 18):
        concurrency.worked(step * STEP, 50, STEP, 8, limited=True)
        limits.append(concurrency.limit)
    assert limits == [8, 9, 10, 11, 12, 13, 13]  # three quarters of what was too much; above that only trials


def test_a_site_that_becomes_slow_gets_fewer_connections_within_ten_seconds() -> None:
    concurrency, sink = Concurrency(1, 20, 5), Sink(1000)
    sink.run(concurrency, 0.0, 20.0)
    assert concurrency.limit == 20
    sink.seconds = 2.0
    assert sink.run(concurrency, 20.0, 10.0)[-1] <= 7
    assert concurrency.why.startswith("a delivery takes ")
    assert sink.run(concurrency, 30.0, 300.0)[-1] == 20  # that is how slow it is: more connections are no harm


def test_a_site_that_answers_nothing_any_more_is_slow_too() -> None:
    concurrency, sink = Concurrency(1, 20, 5), Sink(1000)
    sink.run(concurrency, 0.0, 20.0)
    for step in range(40):
        concurrency.worked(20.0 + step * STEP, 0, STEP, concurrency.limit, limited=True)
    assert concurrency.limit <= 7


# ---- pace


def test_a_rate_is_even_and_kept() -> None:
    pace = Pace(Rate(100, 60))
    given, now, most = 0, 1000.0, 0
    while now < 1060.0:
        count = pace.allowed(now)
        pace.spend(count)
        given += count
        most = max(most, count)
        if not count:
            assert now < pace.ready_at(now) <= now + 0.61
        now += 0.125
    assert 98 <= given <= 102
    assert most == 1


def test_a_high_rate_is_reached_in_eighths_of_a_second() -> None:
    pace = Pace(Rate(2000, 1))
    given = 0
    for step in range(80):
        count = pace.allowed(step * 0.125)
        pace.spend(count)
        given += count
    assert 19_000 <= given <= 21_000


def test_a_complaint_halves_what_was_taken_and_silence_undoes_it() -> None:
    pace = Pace(NO_RATE)
    for step in range(40):
        pace.worked(float(step), 50, 1.0)
    assert not pace.per_second
    for _ in range(5):
        pace.complained(40.0, "421 too fast")
    assert pace.per_second == pytest.approx(25, rel=0.01)
    assert pace.why == "421 too fast"
    for step in range(41, 70):
        pace.worked(float(step), 25, 1.0)
    assert pace.per_second == pytest.approx(25, rel=0.01)
    for step in range(70, 100):
        pace.worked(float(step), 25, 1.0)
    assert 45 < pace.per_second < 55
    for step in range(100, 200):
        pace.worked(float(step), 50, 1.0)
    assert not pace.per_second


def test_what_two_couriers_are_rid_of_is_added_up() -> None:
    pace = Pace(NO_RATE)
    for step in range(40):
        for courier in (1, 2):
            pace.worked(float(step), 25, 1.0, courier)
    assert pace.taken == pytest.approx(50, rel=0.01)
    for step in range(40, 80):
        pace.worked(float(step), 25, 1.0, 1)
    assert pace.taken == pytest.approx(25, rel=0.01)


def test_complaints_without_end_leave_a_trickle() -> None:
    pace = Pace(NO_RATE)
    for step in range(100):
        pace.complained(step * 10.0, "421 too fast")
    assert pace.per_second == 0.1


def test_a_learned_rate_is_not_above_the_one_of_a_rule() -> None:
    pace = Pace(Rate(10, 1))
    pace.worked(0.0, 100, 5.0)
    pace.complained(5.0, "421 too fast")
    assert pace.per_second == 10
    pace.taken = 8.0
    pace.complained(15.0, "421 too fast")
    assert pace.per_second == 4


# ---- together


def limits(**more: object) -> SiteLimits:
    return SiteLimits(Shaping(1, 20, 5, **more))  # type: ignore[arg-type]


def test_what_is_not_held_back_asks_nothing() -> None:
    site = limits()
    assert not site.gated
    state = site.state(0.0)
    assert (state.gate, state.why, state.connections, state.rate) == ("open", "", 5, "")


def test_a_site_that_is_down_is_probed_by_one() -> None:
    site = limits()
    site.unreachable(100.0, 60.0, "connection refused")
    assert site.gated
    assert site.allowed(101.0, 0) == 0
    assert site.wakes(101.0) == 160.0
    assert site.allowed(160.0, 0) == 1
    assert site.allowed(160.0, 1) == 0
    assert site.wakes(160.0) == NEVER  # until the probe is back
    site.unreachable(161.0, 120.0, "connection refused")
    site.unreachable(162.0, 999.0, "connection refused")  # an echo
    assert site.failures == 2
    state = site.state(170.0)
    assert state.gate == "down"
    assert state.until == 281.0
    why = "the site is down: it could not be reached 2 times in a row, at last because of: connection refused"
    assert state.why == why
    assert site.allowed(281.0, 0) == 1
    site.worked(282.0, 1, 1, 0.25, 1, limited=False)
    assert not site.gated
    assert site.connections == 1  # and grows from there
    site.worked(283.0, 1, 1, 0.25, 1, limited=True)
    assert site.connections == 2


def test_deliveries_that_end_for_the_sites_sake_make_it_down() -> None:
    site = limits()
    assert [site.failed() for _ in range(4)] == [False] * 4
    site.reached()
    assert [site.failed() for _ in range(5)] == [False] * 4 + [True]


def test_a_reply_may_call_for_a_pause() -> None:
    rules = ((CoolDown("421 4.7.28", 1800.0), "rules.toml:7: Gmail"), (CoolDown("451 too much", 0.0), "rules.toml:9"))
    site = limits(cool_downs=rules)
    assert not site.heard(10.0, Reply(450, "4.2.1", "busy"))
    assert site.heard(10.0, TOO_FAST)
    state = site.state(11.0)
    assert (state.gate, state.until) == ("cooling", 1810.0)
    assert state.place == "rules.toml:7: Gmail: 421 4.7.28 = pause 1800s"
    assert "unusual rate" in state.why
    assert site.allowed(1809.0, 0) == 0
    assert site.allowed(1810.0, 0) > 1000
    assert not site.gated
    site.pace.taken = 10.0
    assert site.heard(2000.0, Reply(451, "4.3.2", "That was Too much for us"))
    assert site.state(2000.0).rate == "5 a second"
    assert site.state(2000.0).rate_learned


def test_an_operators_pause_holds_over_everything() -> None:
    site = limits()
    site.pause(NEVER, "maintenance", "ann")
    site.unreachable(0.0, 5.0, "refused")
    site.flush(1.0)
    assert site.allowed(2.0, 0) == 0
    assert site.wakes(2.0) == NEVER
    assert site.state(2.0).who == "ann"
    site.resume()
    assert site.allowed(2.0, 0) == 1  # woken: the probe may go
    site.pause(50.0, "lunch", "ann")
    assert site.wakes(3.0) == 50.0
    assert site.allowed(50.0, 0) == 1
    assert site.paused is None


def test_limits_set_by_hand_hide_rules_and_learning() -> None:
    site = limits(rate=Rate(5, 1))
    site.set_by_hand(3, NO_RATE)
    assert site.connections == 3
    assert not site.gated
    site.pushed_back(1.0, "lost")
    assert site.connections == 3
    assert site.state(2.0).places["connections"] == "set by hand"
    site.set_by_hand(0, None)
    assert site.gated
    assert site.state(2.0).rate == "5 a second"


def test_new_rules_hold_at_once() -> None:
    site = limits()
    site.shape(Shaping(1, 2, 1, rate=Rate(60, 60)))
    assert site.connections == 2
    assert site.state(0.0).rate == "1 a second"
    site.shape(Shaping(8, 8, 8))
    assert site.connections == 8
    assert site.state(0.0).fixed


# ---- over restarts


def test_a_new_site_has_nothing_to_remember() -> None:
    assert limits().memo(0.0) is None


def test_what_was_learned_outlives_a_restart(tmp_path: Path) -> None:
    site = limits()
    Sink(8).run(site.concurrency, 0.0, 20.0)
    site.pace.taken = 20.0
    site.complained(30.0, "421 too fast")
    site.pause(NEVER, "maintenance", "ann")
    site.set_by_hand(0, Rate(5, 1))
    site.unreachable(40.0, 60.0, "refused")
    learned = Learned(tmp_path / "sites.db", lambda: 50.0)
    learned.keep([(("mx:1:a", "main"), site), (("mx:1:b", ""), limits())])
    learned.close()
    again, other = limits(), limits()
    later = Learned(tmp_path / "sites.db", lambda: 50.0)
    later.recall(("mx:1:a", "main"), again)
    later.recall(("mx:1:b", ""), other)
    assert again.state(50.0) == replace(site.state(50.0), service=0.0, why_connections="")
    assert again.state(50.0).who == "ann"
    assert other.memo(50.0) is None
    again.resume()
    again.set_by_hand(0, None)
    again.forget()
    later.keep([(("mx:1:a", "main"), again)])
    later.close()
    last = Learned(tmp_path / "sites.db", lambda: 50.0)
    fresh = limits()
    last.recall(("mx:1:a", "main"), fresh)
    last.close()
    assert fresh.memo(50.0) is None


def test_what_is_old_is_forgotten(tmp_path: Path) -> None:
    site = limits()
    site.pause(NEVER, "maintenance", "ann")
    first = Learned(tmp_path / "sites.db", lambda: 0.0)
    first.keep([(("mx:1:a", ""), site)])
    first.close()
    Learned(tmp_path / "sites.db", lambda: 31 * 86400.0).close()
    later, fresh = Learned(tmp_path / "sites.db", lambda: 31 * 86400.0), limits()
    later.recall(("mx:1:a", ""), fresh)
    later.close()
    assert fresh.paused is None


def test_without_a_usable_file_mail_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learned, site = Learned(tmp_path / "no" / "sites.db", lambda: 0.0), limits()
    assert "nothing is remembered of sites" in capsys.readouterr().err
    site.pause(NEVER, "maintenance", "ann")
    learned.keep([(("mx:1:a", ""), site)])
    learned.recall(("mx:1:a", ""), limits())
    learned.close()
