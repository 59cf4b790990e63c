"""The patterns of filters: globs and regular expressions, without regard to case, that cannot be made slow.

A glob is compared as plain text where it has no wildcard but at its ends, which nearly all have; others are translated
by `fnmatch`, whose expressions never go back over what a `*` has taken. Regular expressions are RE2's: it looks at each
character of a text once, whatever the expression, and knows neither look-around nor back-references. So the time of a
match is bounded by the product of two short lengths, and the queue manager needs no clock to watch over it.

Invariant: a pattern is a value: two of the same source are equal, and `source` gives the same pattern again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from typing import Final, Literal

LONGEST: Final = 1000  # characters of an expression
_MEMORY: Final = 8 << 20  # octets that RE2 may take for one
_WILD: Final = re.compile(r"[*?\[]")

Kind = Literal["glob", "regex"]
How = Literal["is", "begins", "ends", "has", "expression"]  # what the text must do


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern. `how` and `plain` say it in plain text, in lower case, where that is possible."""

    kind: Kind
    source: str
    how: How = field(compare=False)
    plain: str = field(compare=False)
    matches: Callable[[str], bool] = field(compare=False, repr=False)

    def search(self, text: str) -> Literal[True] | None:
        """Like that of `re`: None where it does not match."""
        return True if self.matches(text) else None

    @property
    def exact(self) -> str | None:
        """The only text, but for case, that matches; None: there are several."""
        return self.source if self.kind == "glob" and self.how == "is" else None


@lru_cache(256)
def glob(source: str) -> Pattern:
    """A whole text: `*`, `?` and `[...]` stand for others."""
    inner = source.strip("*")
    if not _WILD.search(inner) and len(source) <= LONGEST:
        plain = inner.lower()
        how: How = _HOW[source.startswith("*"), source.endswith("*")] if inner or not source else "has"
        return Pattern("glob", source, how, plain, _PLAIN[how](plain))
    if len(source) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} characters")
    found = re.compile(translate(source), re.IGNORECASE)
    return Pattern("glob", source, "expression", "", lambda text: found.match(text) is not None)


@lru_cache(256)
def expression(source: str) -> Pattern:
    """Looked for anywhere in a text. ValueError says what is wrong with it."""
    import re2  # late: few ask, and it is two megabytes

    if len(source) > LONGEST:
        raise ValueError(f"a regular expression is at most {LONGEST} characters long")
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        found = re2.compile(source, options)
    except re2.error as error:
        what = error.args[0] if error.args else error
        text = what.decode("utf-8", "replace") if isinstance(what, bytes) else str(what)
        raise ValueError(f"no regular expression: {text} (of RE2's kind, without look-around and references)") from None
    return Pattern("regex", source, "expression", "", lambda text: found.search(text) is not None)


_HOW: Final[dict[tuple[bool, bool], How]] = {
    (False, False): "is",
    (False, True): "begins",
    (True, False): "ends",
    (True, True): "has",
}
_PLAIN: Final[dict[How, Callable[[str], Callable[[str], bool]]]] = {
    "is": lambda plain: lambda text: text.lower() == plain,
    "begins": lambda plain: lambda text: text.lower().startswith(plain),
    "ends": lambda plain: lambda text: text.lower().endswith(plain),
    "has": lambda plain: lambda text: plain in text.lower(),
}
