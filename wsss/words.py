"""Words that the sentences of errors share."""

import difflib
from collections.abc import Iterable


def shown(value: object) -> str:
    """A value that was given, short enough for a sentence."""
    if isinstance(value, int) and abs(value) >= 10**40:  # Python refuses to write out the longest ones
        return "a number of more than 40 digits"
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with the known name that is most like `name`; empty where none is."""
    near = difflib.get_close_matches(name[:80], known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
