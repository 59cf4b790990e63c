"""The turns in a line, in plain Python, as `mta.queue._arena` is to give them: slow and easy to check."""

from __future__ import annotations

from dataclasses import dataclass, field

SCALE, FAR, LEAD, TRIES, IDLE = 1 << 32, 1 << 40, 32, 4, 32
PASSED = (0, 8, 16)


@dataclass
class Share:
    tenant: int
    place: int
    stride: int
    lists: tuple[list[int], list[int], list[int]] = field(default_factory=lambda: ([], [], []))
    passed: list[int] = field(default_factory=lambda: [0, 0, 0])
    owed: bool = False

    @property
    def ready(self) -> int:
        return sum(map(len, self.lists))


class Line:
    def __init__(self, weights: dict[int, int]) -> None:
        self._weights = weights
        self._lowest = 0
        self._ring: list[Share] = []
        self.shares: dict[int, Share] = {}

    def __len__(self) -> int:
        return sum(share.ready for share in self.shares.values())

    def push(self, number: int, tenant: int, rank: int, *, front: bool) -> None:
        share = self._share(tenant)
        if not share.ready:
            share.place = max(share.place, self._lowest)
        mine = share.lists[rank]
        mine.insert(0 if front else len(mine), number)
        if rank == 0 and len(mine) == 1:
            self._ring.append(share)

    def pop(self) -> int:
        share = self._whose_turn()
        mine = share.lists[self._whose_list(share)]
        if sum(1 for s in self.shares.values() if s.ready) > 1:
            share.place += share.stride
        number = mine[0]
        self.remove(number)
        return number

    def remove(self, number: int) -> None:
        share = next(s for s in self.shares.values() if any(number in mine for mine in s.lists))
        rank = next(n for n, mine in enumerate(share.lists) if number in mine)
        share.lists[rank].remove(number)
        if not share.lists[rank]:
            share.passed[rank] = 0
            if rank == 0:
                self._ring.remove(share)
        if not share.ready:
            share.owed = False
        if not len(self):
            self.shares = {share.tenant: share}
            self._lowest = share.place = 0

    def _share(self, tenant: int) -> Share:
        if tenant not in self.shares:
            active = sum(1 for s in self.shares.values() if s.ready)
            if not active:
                self.shares = {}
            elif len(self.shares) > IDLE + 2 * active:
                self.shares = {t: s for t, s in self.shares.items() if s.ready or s.place > self._lowest}
            self.shares[tenant] = Share(tenant, self._lowest, SCALE // self._weights.get(tenant, 1))
        return self.shares[tenant]

    def _whose_turn(self) -> Share:
        active = [share for share in self.shares.values() if share.ready]
        first = min(active, key=lambda share: (share.place, share.tenant))
        self._lowest = first.place
        if len(active) == 1:
            return first
        if self._lowest > FAR:
            for share in self.shares.values():
                share.place -= min(share.place, self._lowest)
            self._lowest = 0
        for _ in range(TRIES if self._ring else 0):
            urgent = self._ring.pop(0)
            self._ring.append(urgent)
            if urgent.place <= self._lowest + LEAD * urgent.stride:
                return urgent
        return first

    def _whose_list(self, share: Share) -> int:
        top = chosen = next(rank for rank in range(3) if share.lists[rank])
        if not share.owed:
            chosen = next((r for r in range(top + 1, 3) if share.passed[r] >= PASSED[r]), top)
        share.owed = chosen != top
        share.passed[chosen] = 0
        for rank in range(chosen + 1, 3):
            if share.lists[rank]:
                share.passed[rank] = min(PASSED[rank], share.passed[rank] + 1)
        return chosen
