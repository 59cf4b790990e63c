"""Reasons as small numbers: a million deliveries that wait for the same cause share one text.

Bounded: when the table is full, texts that no delivery uses any more are dropped by `sweep`, which the owner calls with
the numbers in use.
"""

from __future__ import annotations

_LONGEST = 300


class Reasons:
    """Number 0 is the empty reason."""

    def __init__(self, most: int = 100_000) -> None:
        self._most = most
        self._texts: dict[int, str] = {0: ""}
        self._numbers: dict[str, int] = {"": 0}
        self._next = 1

    def number(self, text: str) -> int:
        text = text[:_LONGEST]
        known = self._numbers.get(text)
        if known is None:
            known = self._next
            self._next += 1
            self._numbers[text] = known
            self._texts[known] = text
        return known

    def text(self, number: int) -> str:
        return self._texts.get(number, "")

    @property
    def limit(self) -> int:
        """All numbers are below."""
        return self._next

    @property
    def full(self) -> bool:
        return len(self._texts) > self._most

    def sweep(self, used: set[int]) -> None:
        """Keep only the texts with these numbers."""
        self._texts = {n: t for n, t in self._texts.items() if n in used or n == 0}
        self._numbers = {t: n for n, t in self._texts.items()}
        # Twice what is in use, so that a queue with very many different reasons is not swept at every one.
        self._most = max(self._most, 2 * len(self._texts))
