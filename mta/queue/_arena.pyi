"""The index of the queue: deliveries in slots, slots in lists, lists in a timer wheel; see the .pyx."""

from array import array
from collections.abc import Set
from typing import Final

SOURCE_HASH: Final[str]

# States of a slot. IDLE: in no list, somebody has it in hand.
IDLE: Final[int]
READY: Final[int]
ACTIVE: Final[int]
DEFERRED: Final[int]
HELD: Final[int]
RESOLVING: Final[int]

# Marks of a slot, bits.
TOLD_DELAY: Final[int]  # what its sender was told: the bits of model.TOLD_...
TOLD_LATE: Final[int]
TOLD: Final[int]
TIMED: Final[int]  # what he wants: the bits of model.WANTS_..., shifted by two
URGENT: Final[int]
BULK: Final[int]
EMBARGOED: Final[int]  # deferred until the time that he set

class Query:
    """A filter over slots, answered by yes, no, or unsure: then what decides is not in the arena."""

    def __init__(self, nodes: list[tuple[object, ...]], now: float, base: float, epoch_ms: float) -> None:
        """Nodes in prefix order; see the .pyx. `now` and `base` are seconds: the present, and tick 0."""

class Arena:
    """All deliveries of a queue manager. Times are ticks of an eighth of a second, in 32 bits."""

    met_urgent: bool  # whether any delivery ever was

    def __init__(self, tick: int = 0) -> None: ...
    def new_list(self) -> int:
        """The number of a new, empty list."""
    def new_line(self) -> int:
        """The number of a new, empty line: a list of what is ready, which gives tenants and classes their turns."""
    def length(self, chain: int) -> int:
        """Slots in a list, or in a line."""
    def set_weight(self, tenant: int, weight: int) -> None:
        """How many turns a tenant has where one of weight 1 has one; counts where he is met from now on."""
    def urgent(self, chain: int) -> int:
        """How much urgent mail is in a line."""
    def shares_in_use(self) -> int:
        """Tenants in lines, idle ones that are remembered included."""
    def ahead(self, slot: int) -> tuple[int, int, int]:
        """(those before it in its list, those of its tenant in more urgent classes, those of others in its line).

        For a slot that is ready; the first is at most 100,000.
        """
    def waits(self, rank: int) -> list[int]:
        """How many of a class (0: urgent, 1: normal, 2: bulk) waited how long; see `mta.queue.waits`."""
    def add(self, id: int, ref: int, domain: int, part: int) -> int:
        """A new delivery, idle; its slot number."""
    def remove(self, slot: int) -> None:
        """The delivery is over; the slot may be given to another."""
    def push(self, chain: int, slot: int, state: int, front: bool = False) -> None:
        """Move a slot to the end (or the front) of a list."""
    def pop(self, chain: int) -> int:
        """Take the first slot of a list, now idle; -1 when the list is empty."""
    def take(self, chain: int, limit: int, active: int, now_ms: int = 0) -> list[tuple[int, int, int, int, int]]:
        """Move up to `limit` slots from a line to an active list: [(slot, id, ref, part, attempts), ...].

        `now_ms`, since the epoch of ids: notes how long those waited that are tried for the first time.
        """
    def detach(self, slot: int) -> None:
        """Take a slot out of whatever list it is in; it is idle then."""
    def schedule(self, slot: int, due: int) -> None:
        """Put a slot into the wheel; `due` is a tick. What is due already comes with the next tick."""
    def embargo(self, slot: int, due: int, why: int) -> None:
        """Put a slot into the wheel until the time that its sender has set."""
    def restore(
        self, id: int, ref: int, domain: int, part: int, attempts: int, why: int, due: int, marks: int = 0
    ) -> int:
        """A delivery of an earlier life that waits for a time: `add` and `schedule` in one go; its slot number."""
    def advance(self, tick: int, limit: int = 100000) -> list[int]:
        """Move time on; the slots that became due, idle now. Stops early after about `limit` of them."""
    def holds(self, slot: int, id: int, part: int) -> bool:
        """Whether this slot is in use, for this delivery."""
    def id(self, slot: int) -> int: ...
    def ref(self, slot: int) -> int: ...
    def domain(self, slot: int) -> int: ...
    def part(self, slot: int) -> int: ...
    def state(self, slot: int) -> int: ...
    def due(self, slot: int) -> int: ...
    def attempts(self, slot: int) -> int: ...
    def set_attempts(self, slot: int, attempts: int) -> None: ...
    def site(self, slot: int) -> int: ...
    def set_site(self, slot: int, site: int) -> None: ...
    def why(self, slot: int) -> int: ...
    def set_why(self, slot: int, why: int) -> None: ...
    def lane(self, slot: int) -> tuple[int, int]:
        """(tenant, pool)."""
    def assign(self, slot: int, tenant: int, pool: int) -> None:
        """Say whose a delivery is, and by which pool it leaves, that is in no line; 0 and 0 until then."""
    def marks(self, slot: int) -> int: ...
    def mark(self, slot: int, marks: int) -> None:
        """Set some marks."""
    def relocate(self, moves: dict[int, int]) -> tuple[list[int], set[int]]:
        """Give deliveries new references, {old: new}; looks at every slot once. (slots that got one, messages left out)

        A message is left out whole, by its old reference, when a part of it is idle or active: somebody has it in hand.
        """
    def find(self, id: int) -> list[int]:
        """The slots of a message. Looks at every slot: some milliseconds for a million."""
    def locate(self, ids: Set[int]) -> dict[tuple[int, int], int]:
        """The slots of some messages, as {(id, part): slot}; looks at every slot once, however many ids there are."""
    def scan(self, cursor: int, limit: int, states: int) -> tuple[list[int], int]:
        """Up to `limit` slots from `cursor` on whose state is in the bit set: (slots, next cursor), -1 at the end.

        Stops as well after having looked at very many, so that a choice of few is no long one.
        """
    def census(self, cursor: int, counts: array[int]) -> int:
        """Add up in `counts`, an array("I") of eight cells a site, how many deliveries there are in each state.

        Begins at slot `cursor`; returns where to go on, -1 at the end. Sites beyond the array are passed over.
        """
    def old(self, cursor: int, limit: int, states: int, expired: int, late: int) -> tuple[list[int], int]:
        """Up to `limit` slots from `cursor` on in these states whose message is older than `expired`, an id, or older
        than `late`, which is no older, without TOLD_DELAY: (slots, next cursor), -1 at the end. Stops as `scan` does.
        """
    def choose(
        self, cursor: int, limit: int, query: Query
    ) -> tuple[list[tuple[int, int, int, int, int, int, int, int, int, int, int, bool]], int]:
        """Up to `limit` deliveries from `cursor` on that a query may choose: (entries, next cursor), -1 at the end.

        An entry is (slot, id, ref, domain, part, state, attempts, due, why, marks, site, sure). Stops after many looks.
        """
    def entry(
        self, slot: int, query: Query
    ) -> tuple[int, int, int, int, int, int, int, int, int, int, int, bool] | None:
        """The entry of one slot, or None where the query does not choose it."""
    def tally(self, cursor: int, query: Query, several: dict[int, int]) -> tuple[int, list[int], int]:
        """The same, counted, of what is sure: (deliveries, ids of deliveries whose message is in `several`, next).

        The deliveries counted are those whose message is not in `several`.
        """
    def ages(self, cursor: int, query: Query, key: int, marks: bytes, counts: bytearray) -> int:
        """Count deliveries by what they have in common, and by age; the next cursor, -1 at the end.

        `key` is 0 for the site, 1 the domain, 2 the tenant. `marks` are ids, eight octets each, newest first: a
        delivery is as many ages old as there are ids above its own. `counts` are 32-bit numbers, a row of one more
        than there are marks for each number of the key; what has a number beyond is new and left out.
        Only what is sure counts.
        """
    def rows(
        self, cursor: int, limit: int
    ) -> tuple[list[tuple[int, int, int, int, int, int, int, int, int, int]], int]:
        """Up to `limit` deliveries from slot `cursor` on, and where to go on; -1 at the end.

        Each is (slot, id, ref, domain, part, state, attempts, due, why, marks).
        """
    def count(self, state: int) -> int:
        """Deliveries in a state."""
    def __len__(self) -> int: ...
    @property
    def now(self) -> int:
        """The tick up to which time has been moved."""
