"""What a start does once a message; see the .pyx."""

from collections.abc import Container
from typing import Final

from typing_extensions import Buffer

SOURCE_HASH: Final[str]

class Newest:
    """The newest change of each part that was fed; `moves`: where the only valid record of an id is."""

    moves: dict[int, int]

    def feed(self, payload: bytes, segments: Container[int]) -> int:
        """Take the entries of a STATE record that are of these segments; how many entries there were.

        What is finished stays so; else the later entry counts. ValueError: the record is cut off.
        """
    def take(self, id: int, part: int) -> tuple[int, int, int, int, bytes] | None:
        """(kind, attempts, due, told, tail) of a part, or None; each is given once."""
    def __len__(self) -> int: ...

def heads(
    data: Buffer, found: list[tuple[int, int, int, int, int]], base: int
) -> list[tuple[int, int, bytes | None, int, tuple[str, str] | None] | None]:
    """For each record in `found` (of a scan of `data`, which lies at `base`): (octets, those in a body file, domain,
    wants, lane), the last two as model.wants_of and model.lane_of have them.

    The domain is None where the message has not just one recipient, or is of another version: decode these with care.
    What is no MESSAGE has None in its place.
    """
