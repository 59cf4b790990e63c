"""Lines of the mail log, in one growing buffer until they are written."""

from collections.abc import Callable
from typing import Final

SOURCE_HASH: Final[str]  # sha256 of the .pyx this was built from, in hex; "" when the build did not say

class Lines:
    """`printable` makes text from outside safe, `stamp` writes a second since the epoch down to it, in 19 octets.

    What is bytes comes from outside; what is str is safe already, but for `status`.
    """

    def __init__(self, printable: Callable[[str | bytes], str], stamp: Callable[[int], bytes]) -> None: ...
    @property
    def size(self) -> int:
        """Octets in the buffer."""

    def take(self) -> bytes:
        """All lines; the buffer is empty then."""

    def step(self, message_id: str, event: str, fields: str) -> None:
        """Any line."""

    def received(
        self,
        message_id: str,
        client: str,
        helo: bytes,
        sender: bytes,
        recipient: bytes,
        recipients: int,
        octets: int,
        more: str,
    ) -> None:
        """A message is on disk; `more` are fields, a blank before each."""

    def delivered(self, message_id: int, recipient: bytes, hop: str, delay: float, status: str) -> None:
        """A recipient has it; `hop` may be "", `delay` is in seconds."""
